"""Requests as bytes, and the file from which the load generator sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_FORM = {"content-type": "application/x-www-form-urlencoded"}


def request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return one HTTP/1.1 request, complete."""
    lines = [f"{method} {target} HTTP/1.1", "host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body or method == "POST":
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def token_by_assertion(assertion: bytes) -> bytes:
    """Return a token request with private_key_jwt (RFC 7523 section 2.2)."""
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": _ASSERTION_TYPE,
        "client_assertion": assertion.decode("ascii"),
    }
    return request("POST", "/oauth/token", _FORM, urlencode(form).encode("ascii"))


def token_by_secret(authorization: str) -> bytes:
    """Return a token request with client_secret_basic (RFC 6749 section 2.3.1)."""
    return request("POST", "/oauth/token", {**_FORM, "authorization": authorization}, b"grant_type=client_credentials")


def tokeninfo(token: bytes) -> bytes:
    """Return a question for what a token says."""
    return request("GET", "/tokeninfo", {"authorization": f"Bearer {token.decode('ascii')}"})


def gateway_check(token: bytes, *, method: str, uri: str) -> bytes:
    """Return what a gateway asks under the profile `original-request`."""
    headers = {
        "original-request-uri": uri,
        "original-request-method": method,
        "authorization": f"Bearer {token.decode('ascii')}",
    }
    return request("GET", "/auth", headers)


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Write the generator's file: each request with its length in decimal and a line feed in front."""
    path.write_bytes(b"".join(b"%d\n%b" % (len(each), each) for each in requests))
