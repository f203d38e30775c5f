"""Requests as bytes, and the file from which the load generator sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import orjson

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


def plain_get(token: bytes, *, uri: str) -> bytes:
    """Return a caller's own request, as it reaches a gateway."""
    return request("GET", uri, {"authorization": f"Bearer {token.decode('ascii')}"})


def decision_query(token: bytes, *, method: str, path: str) -> bytes:
    """Return what a gateway asks Open Policy Agent."""
    query = {"input": {"method": method, "path": path, "token": token.decode("ascii")}}
    return request("POST", "/v1/data/authz/allow", {"content-type": "application/json"}, orjson.dumps(query))


def grpc_check(token: bytes, *, method: str, uri: str) -> bytes:
    """Return the message that Envoy sends under the profile `envoy-grpc`, with the headers that it adds of its own."""
    # Imported here: only this kind of work needs the stubs.
    from envoy.service.auth.v3 import external_auth_pb2

    message = external_auth_pb2.CheckRequest()
    http = message.attributes.request.http
    http.id, http.method, http.path, http.host, http.scheme = "1", method, uri, "shop.example", "https"
    http.protocol, http.size = "HTTP/1.1", -1
    headers = {
        ":method": method,
        ":path": uri,
        ":authority": "shop.example",
        ":scheme": "https",
        "authorization": f"Bearer {token.decode('ascii')}",
        "user-agent": "bench",
        "accept": "*/*",
        "x-forwarded-for": "192.0.2.1",
        "x-forwarded-proto": "https",
        "x-envoy-internal": "true",
        "x-request-id": "0f6cb3a4-6d0a-4a4e-9d3a-d3e4f6a7b8c9",
    }
    for name, value in headers.items():
        http.headers[name] = value
    serialized: bytes = message.SerializeToString()
    return serialized


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Write the generator's file: each request with its length in decimal and a line feed in front."""
    path.write_bytes(b"".join(b"%d\n%b" % (len(each), each) for each in requests))
