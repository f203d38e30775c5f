"""Base64url without padding (RFC 7515 section 2), strict: one byte string has exactly one encoding."""

import binascii
from typing import Final

# "+", "/" and "=" belong to other alphabets: they are mapped to a byte that the strict decoder refuses.
_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")

# The unused low bits of the last character must be zero; otherwise several texts would stand for the same bytes, and a token
# could be altered without breaking what is compared by its text (RFC 4648 section 3.5).
_LAST_OF_TWO: Final = frozenset(b"AQgw")
_LAST_OF_THREE: Final = frozenset(b"AEIMQUYcgkosw048")


def encode(data: bytes) -> bytes:
    """The unpadded base64url text of `data`."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """The bytes that `text` stands for. Raises ValueError for padding, whitespace, foreign characters and non-canonical ends."""
    rest = len(text) & 3
    if rest == 0:
        return binascii.a2b_base64(text.translate(_TO_STANDARD), strict_mode=True)
    if rest == 1:
        raise ValueError("impossible length of a base64url text")
    if text[-1] not in (_LAST_OF_TWO if rest == 2 else _LAST_OF_THREE):
        raise ValueError("non-canonical end of a base64url text")
    return binascii.a2b_base64(text.translate(_TO_STANDARD) + (b"==" if rest == 2 else b"="), strict_mode=True)
