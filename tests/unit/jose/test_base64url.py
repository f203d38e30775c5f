import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.jose import base64url


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_what_is_encoded_decodes_to_itself_and_agrees_with_the_standard_library(data: bytes) -> None:
    text = base64url.encode(data)
    assert text == base64.urlsafe_b64encode(data).rstrip(b"=")
    assert base64url.decode(text) == data


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=12), st.text("AQgwBZz09-_+/= \n", max_size=12).map(str.encode)))
def test_a_text_is_refused_or_the_only_encoding_of_its_bytes(text: bytes) -> None:
    try:
        data = base64url.decode(text)
    except ValueError:
        return
    assert base64url.encode(data) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"QQ==", id="padding (RFC 7515 section 2)"),
        pytest.param(b"QUI=", id="padding of one"),
        pytest.param(b"A", id="an impossible length"),
        pytest.param(b"QUJDR", id="an impossible length after a full group"),
        pytest.param(b"QR", id="unused bits set after one byte"),
        pytest.param(b"QUJ", id="unused bits set after two bytes"),
        pytest.param(b"QU+D", id="plus of the other alphabet"),
        pytest.param(b"QU/D", id="slash of the other alphabet"),
        pytest.param(b"QUJD\n", id="a newline at the end"),
        pytest.param(b"QU D", id="a space"),
        pytest.param(b" QUJ", id="a space in front"),
        pytest.param(b"QU\x00D", id="a NUL"),
        pytest.param("QÜJ".encode(), id="a letter outside ASCII"),
        pytest.param(b"Q===", id="padding instead of characters"),
        pytest.param(b"====", id="nothing but padding"),
    ],
)
def test_other_than_strict_base64url_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        base64url.decode(text)


def test_the_two_characters_of_the_url_alphabet_are_read() -> None:
    assert base64url.decode(b"-_-_") == b"\xfb\xff\xbf"
