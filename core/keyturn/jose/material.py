"""Public key material: from JWK members to prepared key objects and back, refusing what is weak."""

import math
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyturn.jose import base64url
from keyturn.jose.algorithms import EDDSA, ES256, MAX_RSA_BITS, MIN_RSA_BITS, PS256, RS256
from keyturn.jose.rejection import invalid, weak

PublicKeyObject = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

# NIST SP 800-56B and FIPS 186-5 section 5.4 ask for at least 65537; above 64 bits a verification becomes slow.
_MIN_EXPONENT: Final = 65537
_MAX_EXPONENT_BITS: Final = 64
_MAX_MEMBER: Final = 4 * MAX_RSA_BITS // (8 * 3) + 2  # base64url characters of the longest modulus

# The field prime and the curve constant of edwards25519 (RFC 8032 section 5.1).
_P25519: Final = 2**255 - 19
_D25519: Final = -121665 * pow(121666, -1, _P25519) % _P25519


def _primes_below(limit: int) -> list[int]:
    return [n for n in range(3, limit, 2) if all(n % d for d in range(3, math.isqrt(n) + 1, 2))]


_SMALL_PRIMES_PRODUCT: Final = math.prod(_primes_below(1000))


def algorithms_for(key: PublicKeyObject) -> tuple[str, ...]:
    """The algorithms that fit the key, the default one first."""
    if isinstance(key, rsa.RSAPublicKey):
        return (RS256, PS256)
    return (ES256,) if isinstance(key, ec.EllipticCurvePublicKey) else (EDDSA,)


def size_of(key: PublicKeyObject) -> int:
    """The key's size in bits."""
    return 256 if isinstance(key, ed25519.Ed25519PublicKey) else key.key_size


def members_of(key: PublicKeyObject) -> dict[str, str]:
    """The members that make up the key itself (RFC 7518 section 6, RFC 8037 section 2), `kty` first."""
    if isinstance(key, rsa.RSAPublicKey):
        rsa_numbers = key.public_numbers()
        return {"kty": "RSA", "n": base64url_uint(rsa_numbers.n), "e": base64url_uint(rsa_numbers.e)}
    if isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": _text(point.x.to_bytes(32)), "y": _text(point.y.to_bytes(32))}
    return {"kty": "OKP", "crv": "Ed25519", "x": _text(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}


def from_members(jwk: Mapping[str, Any], *, field: str) -> PublicKeyObject:
    """The prepared key of a JWK. Raises KeyRejected."""
    match jwk.get("kty"):
        case "RSA":
            modulus, exponent = _read_uint(jwk, "n", field), _read_uint(jwk, "e", field)
            _check_rsa(modulus, exponent, field=field)
            return rsa.RSAPublicNumbers(exponent, modulus).public_key()
        case "EC":
            if jwk.get("crv") != "P-256":
                raise invalid("the only supported curve is P-256", field=f"{field}.crv")
            x, y = _read_octets(jwk, "x", field), _read_octets(jwk, "y", field)
            numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
            try:
                return numbers.public_key()
            except ValueError:
                raise invalid("the point does not lie on the curve P-256", field=field) from None
        case "OKP":
            if jwk.get("crv") != "Ed25519":
                raise invalid("the only supported curve for kty OKP is Ed25519", field=f"{field}.crv")
            raw = _read_octets(jwk, "x", field)
            _check_ed25519(raw, field=f"{field}.x")
            return ed25519.Ed25519PublicKey.from_public_bytes(raw)
        case "oct":
            raise invalid("symmetric keys are not supported: register a public key", field=f"{field}.kty")
        case _:
            raise invalid("kty must be RSA, EC or OKP", field=f"{field}.kty")


def check(key: object, *, field: str) -> PublicKeyObject:
    """The key if it is of a supported kind and strong enough. Raises KeyRejected."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        _check_rsa(numbers.n, numbers.e, field=field)
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise invalid("the only supported curve is P-256", field=field)
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        _check_ed25519(key.public_bytes(Encoding.Raw, PublicFormat.Raw), field=field)
        return key
    raise invalid("the key must be RSA, EC on P-256, or Ed25519", field=field)


def _check_rsa(modulus: int, exponent: int, *, field: str) -> None:
    bits = modulus.bit_length()
    if bits < MIN_RSA_BITS:
        raise weak(f"the RSA key is shorter than {MIN_RSA_BITS} bits: make a new one of 2048 bits or more", field=field)
    if bits > MAX_RSA_BITS:
        raise weak(f"the RSA key is longer than {MAX_RSA_BITS} bits: make a new one of at most 4096 bits", field=field)
    if exponent % 2 == 0 or exponent < _MIN_EXPONENT:
        raise weak("the RSA exponent must be odd and at least 65537", field=field)
    if exponent.bit_length() > _MAX_EXPONENT_BITS:
        raise weak(f"the RSA exponent must not exceed {_MAX_EXPONENT_BITS} bits", field=field)
    # A product of two large primes has no small factor; one that has is damaged or can be factored further.
    if modulus % 2 == 0 or math.gcd(modulus, _SMALL_PRIMES_PRODUCT) != 1:
        raise weak("the RSA modulus has small factors: it is not a product of two large primes", field=field)


def _check_ed25519(raw: bytes, *, field: str) -> None:
    """Points that cannot be decoded (RFC 8032 section 5.1.3) would never verify; those of small order verify forged signatures."""
    p, d = _P25519, _D25519
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    y2 = y * y % p
    # x^2 = (y^2 - 1) / (d y^2 + 1) must be a square: Euler's criterion on the product with the denominator's square.
    if y >= p or pow((y2 - 1) * (d * y2 + 1), (p - 1) // 2, p) == p - 1:
        raise invalid("x is no point of edwards25519", field=field)
    # Of order 1, 2 or 4: y is 1, -1 or 0. Of order 8: its double has y = 0, hence x^2 = -y^2, put into the curve equation.
    if y in (0, 1, p - 1) or (d * y2 * y2 + 2 * y2 - 1) % p == 0:
        raise weak("x is a point of small order, for which anyone can sign", field=field)


def _read(jwk: Mapping[str, Any], member: str, field: str) -> bytes:
    value = jwk.get(member)
    if not isinstance(value, str) or not value:
        raise invalid(f"{member} is required, as base64url text", field=f"{field}.{member}")
    if len(value) > _MAX_MEMBER:
        raise invalid(f"{member} is too long", field=f"{field}.{member}")
    try:
        return base64url.decode(value.encode("ascii"))
    except ValueError:
        # The cause would quote the input.
        raise invalid(f"{member} must be canonical base64url without padding", field=f"{field}.{member}") from None


def _read_octets(jwk: Mapping[str, Any], member: str, field: str) -> bytes:
    # RFC 7518 section 6.2.1.2 and RFC 8037 section 2: full length, leading zeros included.
    octets = _read(jwk, member, field)
    if len(octets) != 32:
        raise invalid(f"{member} must be exactly 32 bytes", field=f"{field}.{member}")
    return octets


def _read_uint(jwk: Mapping[str, Any], member: str, field: str) -> int:
    # RFC 7518 section 2, Base64urlUInt: the minimum number of octets.
    octets = _read(jwk, member, field)
    if octets[0] == 0:
        raise invalid(f"{member} must not begin with a zero byte (RFC 7518 section 2)", field=f"{field}.{member}")
    return int.from_bytes(octets)


def _text(octets: bytes) -> str:
    return base64url.encode(octets).decode("ascii")


def base64url_uint(number: int) -> str:
    """RFC 7518 section 2, Base64urlUInt."""
    return _text(number.to_bytes((number.bit_length() + 7) // 8))
