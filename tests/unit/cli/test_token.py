"""`keyturn token`: the assertion that it makes, the request that it sends, and what it says when there is no token."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from .command import GRANTED, ISSUER, METADATA, TokenService, keyturn

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from typer.testing import Result

    from keyturn.jose.signing import PrivateKey

CLIENT = "team-a.billing"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def token(key_file: str, *arguments: str, url: str = ISSUER) -> Result:
    return keyturn("token", "--url", url, "--client-id", CLIENT, "--key", key_file, *arguments)


def verified(assertion: str, key: PrivateKey, *, audience: str = ISSUER) -> dict[str, Any]:
    """The claims, checked by another library as a server would."""
    claims: dict[str, Any] = jwt.decode(
        assertion,
        jwt.PyJWK(key.public.jwk).key,
        algorithms=[key.algorithm],
        audience=audience,
        issuer=CLIENT,
        options={"require": ["iss", "sub", "aud", "jti", "iat", "exp"], "strict_aud": True},
    )
    return claims


def test_stdout_holds_the_access_token_and_nothing_else(service: TokenService, key_file: str) -> None:
    result = token(key_file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{GRANTED['access_token']}\n", "")


def test_the_assertion_says_who_asks_whom_and_for_how_long(
    service: TokenService, key_file: str, client_key: PrivateKey
) -> None:
    before = int(time.time())
    assert token(key_file).exit_code == 0
    form = dict(service.form)
    assert form["grant_type"] == "client_credentials"
    assert form["client_assertion_type"] == ASSERTION_TYPE
    assertion = form["client_assertion"]
    assert jwt.get_unverified_header(assertion) == {"alg": "ES256", "typ": "JWT", "kid": client_key.kid}
    claims = verified(assertion, client_key)
    assert claims["sub"] == CLIENT
    assert before <= claims["iat"] <= time.time()
    assert claims["exp"] == claims["iat"] + 60
    assert set(claims) == {"iss", "sub", "aud", "jti", "iat", "exp"}


def test_every_assertion_has_a_jti_of_its_own(key_file: str, client_key: PrivateKey) -> None:
    made = [token(key_file, "--assertion-only", "--issuer", ISSUER).stdout.strip() for _ in range(3)]
    jtis = {verified(assertion, client_key)["jti"] for assertion in made}
    assert len(jtis) == 3
    assert all(len(jti) >= 22 for jti in jtis)


def test_the_kid_can_be_named(key_file: str) -> None:
    result = token(key_file, "--assertion-only", "--issuer", ISSUER, "--kid", "mine")
    assert jwt.get_unverified_header(result.stdout.strip())["kid"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        pytest.param([], [], id="nothing narrowed"),
        pytest.param(["--scope", "a:b c"], [("scope", "a:b c")], id="permissions narrowed"),
        pytest.param(
            ["--audience", "https://x/?a&b", "--audience", "y"],
            [("audience", "https://x/?a&b"), ("audience", "y")],
            id="several audiences",
        ),
    ],
)
def test_the_request_holds_each_field_as_given(
    service: TokenService, key_file: str, arguments: list[str], more: list[tuple[str, str]]
) -> None:
    assert token(key_file, *arguments).exit_code == 0
    names = [name for name, _ in service.form]
    assert names == ["grant_type", "client_assertion_type", "client_assertion", *(name for name, _ in more)]
    assert service.form[3:] == more


def test_an_assertion_alone_needs_no_server_when_the_issuer_is_named(
    service: TokenService, key_file: str, client_key: PrivateKey
) -> None:
    result = keyturn("token", "--issuer", ISSUER, "--client-id", CLIENT, "--key", key_file, "--assertion-only")
    assert result.exit_code == 0
    verified(result.stdout.strip(), client_key)
    assert service.requests == []


def test_an_assertion_alone_asks_the_server_for_its_issuer(
    service: TokenService, key_file: str, client_key: PrivateKey
) -> None:
    verified(token(key_file, "--assertion-only").stdout.strip(), client_key)
    assert [str(request.url) for request in service.requests] == [f"{ISSUER}/.well-known/oauth-authorization-server"]


@pytest.mark.parametrize(
    ("served", "asked"),
    [
        pytest.param("/.well-known/oauth-authorization-server/tenant", 1, id="where RFC 8414 says"),
        pytest.param("/tenant/.well-known/oauth-authorization-server", 2, id="below the issuer"),
    ],
)
@pytest.mark.parametrize("elsewhere", [(404, b"nothing here"), (503, {}), (200, {})])
def test_the_metadata_of_an_issuer_with_a_path_is_found(
    service: TokenService, key_file: str, served: str, asked: int, elsewhere: tuple[int, Any]
) -> None:
    origin = "https://tokens.example.org"
    issuer = f"{origin}/tenant"

    def handle(request: httpx2.Request) -> httpx2.Response:
        service.requests.append(request)
        if request.url.path == served:
            return httpx2.Response(200, json={"issuer": issuer, "token_endpoint": f"{issuer}/oauth/token"})
        status, body = elsewhere
        return httpx2.Response(status, **({"content": body} if isinstance(body, bytes) else {"json": body}))

    service.handle = handle  # type: ignore[method-assign]
    result = keyturn("token", "--url", issuer, "--client-id", CLIENT, "--key", key_file, "--curl")
    assert result.exit_code == 0, result.output
    assert f"{issuer}/oauth/token" in result.stdout
    assert len(service.requests) == asked


def test_the_curl_command_is_the_request_that_would_be_sent(
    service: TokenService, key_file: str, client_key: PrivateKey
) -> None:
    result = token(key_file, "--curl", "--audience", "it's; $(here)", "--scope", "a b")
    assert result.exit_code == 0
    words = [word for word in shlex.split(result.stdout) if word != "\n"]
    assert words[:3] == ["curl", "-sS", f"{ISSUER}/oauth/token"]
    assert set(words[3::2]) == {"--data-urlencode"}
    fields = [tuple(word.split("=", 1)) for word in words[4::2]]
    assert fields[:2] == [("grant_type", "client_credentials"), ("client_assertion_type", ASSERTION_TYPE)]
    assert fields[3:] == [("audience", "it's; $(here)"), ("scope", "a b")]
    verified(fields[2][1], client_key)
    assert all(request.method == "GET" for request in service.requests)


def test_the_url_may_come_from_the_environment(service: TokenService, key_file: str) -> None:
    result = keyturn("token", "--client-id", CLIENT, "--key", key_file, env={"KEYTURN_URL": f"{ISSUER}/"})
    assert result.exit_code == 0
    assert str(service.requests[-1].url) == f"{ISSUER}/oauth/token"


def test_the_key_may_come_from_stdin(service: TokenService, client_key: PrivateKey) -> None:
    arguments = ("token", "--url", ISSUER, "--client-id", CLIENT, "--key", "-")
    assert keyturn(*arguments, stdin=client_key.to_pem()).exit_code == 0
    verified(dict(service.form)["client_assertion"], client_key)


@pytest.mark.parametrize(
    ("url", "issuer", "endpoint", "asked"),
    [
        pytest.param(
            ISSUER, ISSUER, f"{ISSUER}/v2/token", f"{ISSUER}/v2/token", id="the endpoint that the server names"
        ),
        pytest.param(ISSUER, ISSUER, "https://evil.example/t", f"{ISSUER}/oauth/token", id="never another host"),
        pytest.param(ISSUER, ISSUER, "http://tokens.example.org/t", f"{ISSUER}/oauth/token", id="never without TLS"),
        pytest.param(ISSUER, ISSUER, None, f"{ISSUER}/oauth/token", id="no endpoint named"),
        pytest.param(
            "http://127.0.0.1:8080",
            ISSUER,
            f"{ISSUER}/oauth/token",
            "http://127.0.0.1:8080/oauth/token",
            id="a forwarded port",
        ),
    ],
)
def test_the_assertion_goes_to_the_server_that_was_named(
    service: TokenService,
    key_file: str,
    client_key: PrivateKey,
    url: str,
    issuer: str,
    endpoint: str | None,
    asked: str,
) -> None:
    service.metadata = (200, {"issuer": issuer, "token_endpoint": endpoint})
    assert token(key_file, url=url).exit_code == 0
    assert str(service.requests[-1].url) == asked
    verified(dict(service.form)["client_assertion"], client_key, audience=issuer)


def test_metadata_in_the_name_of_another_issuer_gets_no_assertion(service: TokenService, key_file: str) -> None:
    """RFC 8414 section 3.3."""
    result = token(key_file, url="https://false.example")
    assert result.exit_code == 1
    assert f"add --issuer {ISSUER}" in result.stderr
    assert [request.method for request in service.requests] == ["GET"]
    assert result.stdout == ""


def test_a_named_issuer_counts_without_metadata(service: TokenService, key_file: str, client_key: PrivateKey) -> None:
    assert token(key_file, "--issuer", "https://other.example", url="https://inside.example").exit_code == 0
    verified(dict(service.form)["client_assertion"], client_key, audience="https://other.example")
    assert [str(request.url) for request in service.requests] == ["https://inside.example/oauth/token"]


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        pytest.param("http://tokens.example.org", True, id="plain HTTP to another machine"),
        pytest.param("http://localhost:8080", False, id="plain HTTP on this machine"),
        pytest.param("http://[::1]:8080", False, id="plain HTTP on this machine, IPv6"),
        pytest.param(ISSUER, False, id="TLS"),
    ],
)
def test_a_token_over_plain_http_comes_with_a_warning(
    service: TokenService, key_file: str, url: str, warned: bool
) -> None:
    result = token(key_file, "--issuer", ISSUER, url=url)
    assert result.exit_code == 0
    assert ("plain HTTP" in result.stderr) is warned
    assert result.stdout == f"{GRANTED['access_token']}\n"


REFUSALS = [
    pytest.param(
        401, {"error": "invalid_client", "error_description": "unknown key"},
        ["The server refused: invalid_client: unknown key.", "kubectl get cc", CLIENT], id="a client that it does not know",
    ),
    pytest.param(400, {"error": "invalid_target"}, ["refused: invalid_target.", "spec.audiences"], id="an audience not held"),
    pytest.param(400, {"error": "invalid_scope"}, ["refused: invalid_scope.", "spec.permissions"], id="a permission not held"),
    pytest.param(404, b"<html>nothing here</html>", ["refused: HTTP 404.", "--url"], id="no token endpoint there"),
    pytest.param(302, b"", ["refused: HTTP 302."], id="a redirect, which is not followed"),
    pytest.param(400, {"error": ["x"], "error_description": 7}, ["refused: HTTP 400."], id="an error of another shape"),
    pytest.param(400, b"[" * 60_000, ["refused: HTTP 400."], id="a body nested too deep to read"),
    pytest.param(
        400, {"error": "bad\x1b[2J\u202eworse\r\n", "error_description": "x" * 400},
        ["refused: bad [2J worse: " + "x" * 299 + "…"], id="text that would rewrite the terminal",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "said"), REFUSALS)
def test_a_refusal_is_one_sentence_with_the_next_step(
    service: TokenService, key_file: str, status: int, body: object, said: list[str]
) -> None:
    service.answer = (status, body)
    result = token(key_file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    for part in said:
        assert part in result.stderr


def test_too_many_requests_say_when_to_try_again(service: TokenService, key_file: str) -> None:
    service.answer, service.headers = (429, {"error": "slow_down"}), {"Retry-After": "17"}
    result = token(key_file)
    assert result.exit_code == 1
    assert "Try again in 17 s." in result.stderr


UNREACHABLE = [
    pytest.param({"failure": httpx2.ConnectError}, "can't be reached", id="no connection"),
    pytest.param({"failure": httpx2.ReadTimeout}, "no answer within 10 s", id="no answer in time"),
    pytest.param({"failure": httpx2.RemoteProtocolError}, "can't be reached", id="an answer that is not HTTP"),
    pytest.param({"metadata": (404, b"")}, "--issuer", id="no metadata"),
    pytest.param({"metadata": (200, b"<html>")}, "--issuer", id="metadata that is not JSON"),
    pytest.param({"metadata": (200, {"issuer": 1})}, "--issuer", id="metadata without an issuer"),
    pytest.param({"metadata": (301, METADATA)}, "--issuer", id="a redirect"),
    pytest.param({"metadata": (503, b"")}, "can't serve now (HTTP 503)", id="metadata unavailable"),
    pytest.param({"metadata": (200, b" " * 70_000)}, "answered with more than", id="an endless answer"),
    pytest.param(
        {"answer": (503, {"error": "temporarily_unavailable"}), "headers": {"Retry-After": "5"}},
        "Try again in 5 s.", id="a store that is down",
    ),
    pytest.param(
        {"answer": (503, b""), "headers": {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}},
        "Try again in a moment.", id="a date to try again",
    ),
    pytest.param({"answer": (200, b"ok")}, "without an access token", id="an answer that is no token"),
    pytest.param({"answer": (200, {"access_token": "a b\x1b"})}, "without an access token", id="a token that is none"),
]  # fmt: skip


@pytest.mark.parametrize(("behaviour", "said"), UNREACHABLE)
def test_a_server_that_gives_no_usable_answer_has_an_exit_code_of_its_own(
    service: TokenService, key_file: str, behaviour: dict[str, Any], said: str
) -> None:
    for name, value in behaviour.items():
        setattr(service, name, value)
    result = token(key_file)
    assert (result.exit_code, result.stdout) == (3, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_certificate_that_is_not_trusted_is_called_that(
    service: TokenService, key_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed", request=request)

    monkeypatch.setattr(service, "handle", refuse)
    result = token(key_file)
    assert result.exit_code == 3
    assert "SSL_CERT_FILE" in result.stderr


def test_an_assertion_that_the_server_quotes_is_not_shown(service: TokenService, key_file: str) -> None:
    def quote(request: httpx2.Request) -> dict[str, str]:
        assertion = dict(parse_qsl(request.content.decode()))["client_assertion"]
        return {"error": "invalid_client", "error_description": f"bad assertion {assertion}!"}

    service.answer = (401, quote)
    result = token(key_file)
    assert "bad assertion …!" in result.stderr
    assert "eyJ" not in result.output


def test_an_assertion_in_the_text_of_an_exception_is_not_shown(service: TokenService, key_file: str) -> None:
    service.failure = httpx2.ReadError
    result = token(key_file, "--issuer", ISSUER)
    assert result.exit_code == 3
    assert b"client_assertion=eyJ" in service.requests[-1].content
    assert "eyJ" not in result.output


def pem(key: PrivateKeyTypes, *, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(password) if password else NoEncryption())


RSA_KEY = rsa.generate_private_key(65537, 2048)
P256_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("content", "algorithm"),
    [
        pytest.param(pem(RSA_KEY), "RS256", id="RSA in PKCS 8"),
        pytest.param(pem(RSA_KEY, form=PrivateFormat.TraditionalOpenSSL), "RS256", id="RSA in PKCS 1"),
        pytest.param(pem(P256_KEY, form=PrivateFormat.TraditionalOpenSSL), "ES256", id="EC in SEC 1"),
        pytest.param(pem(ed25519.Ed25519PrivateKey.generate()), "EdDSA", id="Ed25519"),
    ],
)
def test_the_key_decides_the_algorithm(tmp_path: Path, content: bytes, algorithm: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    result = token(str(path), "--assertion-only", "--issuer", ISSUER)
    assert jwt.get_unverified_header(result.stdout.strip())["alg"] == algorithm


UNUSABLE = [
    pytest.param(None, "No such file", id="a file that is not there"),
    pytest.param(b"", "holds no private key", id="an empty file"),
    pytest.param(pem(P256_KEY)[:90] + b"\n-----END PRIVATE KEY-----\n", "holds no private key", id="a damaged key"),
    pytest.param(
        P256_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "holds no private key", id="a public key",
    ),
    pytest.param(pem(P256_KEY, password=b"pw"), "passphrase", id="a key under a passphrase"),
    pytest.param(pem(ec.generate_private_key(ec.SECP384R1())), "of a kind", id="another curve"),
    pytest.param(pem(x25519.X25519PrivateKey.generate()), "of a kind", id="a key that signs nothing"),
    pytest.param(pem(rsa.generate_private_key(65537, 1024)), "can't be used", id="a weak RSA key"),
    pytest.param(pem(P256_KEY) + b"#" * 20_000, "too long", id="a file that is too long"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), UNUSABLE)
def test_a_key_that_cannot_be_used_is_named_and_never_shown(
    service: TokenService, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    result = token(str(path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert str(path) in result.stderr
    for line in (content or b"").splitlines():
        assert len(line) < 20 or line.decode() not in result.output
    assert service.requests == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "--url", id="no URL"),
        pytest.param(["--assertion-only"], "--url", id="an assertion for nobody"),
        pytest.param(["--issuer", ISSUER], "--url", id="an issuer, but nowhere to ask"),
        pytest.param(["--url", ISSUER, "--assertion-only", "--curl"], "--curl", id="two forms of output"),
        pytest.param(["--url", "tokens.example.org"], "https://", id="a URL without a scheme"),
        pytest.param(["--url", "ftp://x"], "https://", id="a scheme that is not HTTP"),
        pytest.param(["--url", "https://"], "host", id="a URL without a host"),
        pytest.param(["--url", "https://x:port"], "not a URL", id="a port that is none"),
        pytest.param(["--url", f"{ISSUER}?a=b"], "query", id="a URL with a query"),
        pytest.param(["--url", ISSUER, "--client-id", "a b"], "not a client id", id="a client id with a space"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_a_usage_error(
    service: TokenService, key_file: str, arguments: list[str], said: str
) -> None:
    result = keyturn("token", "--client-id", CLIENT, "--key", key_file, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert service.requests == []


def test_a_password_in_the_url_is_refused_without_being_repeated(service: TokenService, key_file: str) -> None:
    result = token(key_file, url="https://user:hunter2@tokens.example.org")
    assert result.exit_code == 2
    assert "user name" in result.stderr
    assert "hunter2" not in result.output
