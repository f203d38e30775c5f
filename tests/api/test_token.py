"""`POST /oauth/token` as clients see it, over a socket and by independent libraries."""

import base64
import time
from typing import Any
from urllib.parse import quote_plus

import httpx2
import jwt
import pytest

from tests.api.conftest import APP, SECRET, Running
from tests.api.installation import ASSERTION_TYPE, ISSUER, Installation, assertion, form

pytestmark = pytest.mark.asyncio(loop_scope="session")


def basic(client_id: str, secret: bytes) -> dict[str, str]:
    joined = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
    return {"Authorization": f"Basic {base64.b64encode(joined).decode()}"}


async def token(shared: Running, **fields: Any) -> str:
    answer = await shared.http.post("/oauth/token", data=form(assertion(APP, "team.app"), **fields))
    assert answer.status_code == 200, answer.text
    value: str = answer.json()["access_token"]
    return value


async def test_a_client_gets_a_token_that_an_independent_verifier_accepts(shared: Running) -> None:
    answer = await shared.http.post("/oauth/token", data=form(assertion(APP, "team.app"), client_id="team.app"))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    body = answer.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 900)
    assert "scope" not in body
    published = (await shared.http.get("/.well-known/jwks.json")).json()
    header = jwt.get_unverified_header(body["access_token"])
    assert header["typ"] == "at+jwt"
    key = jwt.PyJWKSet.from_dict(published)[header["kid"]]
    claims = jwt.decode(
        body["access_token"],
        key,
        ["RS256"],
        audience="orders",
        issuer=ISSUER,
        options={"require": ["iss", "sub", "client_id", "aud", "jti", "exp", "iat"]},
    )
    assert claims["sub"] == claims["client_id"] == "team.app"
    assert claims["permissions"] == ["orders:read", "orders:write"]
    assert claims["exp"] - claims["iat"] == 900


async def test_a_secret_with_special_characters_works_form_encoded(shared: Running) -> None:
    headers = basic("team.secret", SECRET)
    for _ in range(2):  # the second time from the cache
        answer = await shared.http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=headers)
        assert answer.status_code == 200, answer.text


async def test_the_longest_token_counts_at_every_endpoint_and_a_longer_one_is_not_issued(
    installation: Installation,
) -> None:
    held = tuple(f"{number:019}" for number in range(200))
    await installation.add_secret_client("team.wide", SECRET, permissions=held)
    process = await installation.start().ready()
    as_wide = basic("team.wide", SECRET)
    async with httpx2.AsyncClient(base_url=process.url) as http:

        async def ask(count: int) -> httpx2.Response:
            scope = " ".join(held[:count])
            return await http.post(
                "/oauth/token", headers=as_wide, data={"grant_type": "client_credentials", "scope": scope}
            )

        whole = await http.post("/oauth/token", headers=as_wide, data={"grant_type": "client_credentials"})
        assert (whole.status_code, whole.json()["error"]) == (400, "invalid_scope")
        most = 1
        while (answer := await ask(most + 1)).status_code == 200:
            most += 1
            token = answer.json()["access_token"]
        assert answer.json()["error"] == "invalid_scope"
        assert most > 50
        info = await http.get("/tokeninfo", headers={"authorization": f"Bearer {token}"})
        assert (info.status_code, len(info.json()["permissions"])) == (200, most)
        told = await http.post("/oauth/introspect", headers=as_wide, data={"token": token})
        assert told.json()["active"] is True
        decided = await http.get(
            "/auth",
            headers={
                "authorization": f"Bearer {token}",
                "original-request-method": "GET",
                "original-request-uri": "/orders",
            },
        )
        assert decided.status_code == 403  # known, and not permitted
        assert "insufficient_scope" in decided.headers["www-authenticate"]
        assert (await http.post("/oauth/revoke", headers=as_wide, data={"token": token})).status_code == 200
        assert (await http.get("/tokeninfo", headers={"authorization": f"Bearer {token}"})).status_code == 401


async def test_scope_narrows_and_is_told(shared: Running) -> None:
    answer = await shared.http.post("/oauth/token", data=form(assertion(APP, "team.app"), scope="orders:read"))
    body = answer.json()
    assert body["scope"] == "orders:read"
    assert jwt.decode(body["access_token"], options={"verify_signature": False})["permissions"] == ["orders:read"]


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        pytest.param({"grant_type": None}, 400, "invalid_request", id="no grant"),
        pytest.param({"grant_type": ""}, 400, "invalid_request", id="an empty grant"),
        pytest.param({"grant_type": "password"}, 400, "unsupported_grant_type", id="an unknown grant"),
        pytest.param({"grant_type": ["client_credentials"] * 2}, 400, "invalid_request", id="a field twice"),
        pytest.param({"client_assertion_type": None}, 400, "invalid_request", id="no assertion type"),
        pytest.param({"client_assertion_type": "jwt"}, 400, "invalid_request", id="a wrong assertion type"),
        pytest.param({"client_assertion": None}, 400, "invalid_request", id="a type without an assertion"),
        pytest.param({"client_assertion": "x"}, 401, "invalid_client", id="no token as assertion"),
        pytest.param({"client_assertion": "ä.ö.ü"}, 401, "invalid_client", id="an assertion that is not ASCII"),
        pytest.param({"client_assertion": "a" * 20_000}, 401, "invalid_client", id="an assertion without end"),
        pytest.param({"client_id": "other"}, 401, "invalid_client", id="client_id is not sub"),
        pytest.param({"client_secret": "x"}, 400, "invalid_request", id="two ways of authentication"),
        pytest.param({"audience": "billing"}, 400, "invalid_target", id="an audience not held"),
        pytest.param({"audience": ["orders", "billing"]}, 400, "invalid_target", id="one audience of two not held"),
        pytest.param({"resource": "orders"}, 400, "invalid_target", id="a resource that is no URI"),
        pytest.param({"resource": "https://a.example/#x"}, 400, "invalid_target", id="a resource with a fragment"),
        pytest.param({"scope": "admin"}, 400, "invalid_scope", id="a permission not held"),
    ],
)
async def test_a_wrong_request_is_answered_by_rfc_6749(
    shared: Running, changes: dict[str, Any], status: int, error: str
) -> None:
    fields = {
        name: value for name, value in {**form(assertion(APP, "team.app")), **changes}.items() if value is not None
    }
    answer = await shared.http.post("/oauth/token", data=fields)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["error_description"]
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_a_request_that_failed_for_another_reason_has_not_used_its_assertion(shared: Running) -> None:
    signed = assertion(APP, "team.app")
    assert (await shared.http.post("/oauth/token", data=form(signed, scope="admin"))).status_code == 400
    assert (await shared.http.post("/oauth/token", data=form(signed))).status_code == 200


async def test_an_assertion_counts_once(shared: Running) -> None:
    signed = assertion(APP, "team.app")
    assert (await shared.http.post("/oauth/token", data=form(signed))).status_code == 200
    replayed = await shared.http.post("/oauth/token", data=form(signed))
    assert replayed.status_code == 401
    assert "jti" in replayed.json()["error_description"]


@pytest.mark.parametrize(
    ("method", "content", "headers", "status"),
    [
        pytest.param("GET", None, {}, 405, id="GET"),
        pytest.param("PUT", b"", {}, 405, id="PUT"),
        pytest.param("POST", b"{}", {"content-type": "application/json"}, 400, id="JSON"),
        pytest.param("POST", b"grant_type=client_credentials", {}, 400, id="no content type"),
        pytest.param("POST", b"\xff\xfe", {"content-type": "application/x-www-form-urlencoded"}, 400, id="not ASCII"),
        pytest.param("POST", b"a=%ff", {"content-type": "application/x-www-form-urlencoded"}, 400, id="not UTF-8"),
        pytest.param("POST", b"&a" * 200, {"content-type": "application/x-www-form-urlencoded"}, 400, id="200 fields"),
    ],
)
async def test_a_request_of_another_form_is_refused(
    shared: Running, method: str, content: bytes | None, headers: dict[str, str], status: int
) -> None:
    answer = await shared.http.request(method, "/oauth/token", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (status, "invalid_request")
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)


async def test_credentials_in_the_url_are_refused(shared: Running) -> None:
    answer = await shared.http.post("/oauth/token?client_secret=x", data=form(assertion(APP, "team.app")))
    assert answer.status_code == 400


async def test_basic_beside_an_assertion_is_refused(shared: Running) -> None:
    answer = await shared.http.post(
        "/oauth/token", data=form(assertion(APP, "team.app")), headers=basic("team.secret", SECRET)
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(basic("team.secret", b"wrong"), id="a wrong secret"),
        pytest.param(basic("nobody", SECRET), id="an unknown client"),
        pytest.param(basic("team.app", SECRET), id="a client with a public key"),
        pytest.param(basic("team.secret", b"x" * 200), id="a secret longer than any"),
        pytest.param(basic("team.secret", b""), id="an empty secret"),
    ],
)
async def test_whatever_is_wrong_with_a_secret_the_answer_is_the_same(shared: Running, headers: dict[str, str]) -> None:
    answer = await shared.http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"error": "invalid_client", "error_description": "client id and secret do not fit"}
    assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "value", ["Basic", "Basic !!!", "Basic YQ==", "Digest x", "Basic gDp4", "Basic " + "YTpi" * 2000]
)
async def test_malformed_basic_credentials_are_401(shared: Running, value: str) -> None:
    answer = await shared.http.post(
        "/oauth/token", data={"grant_type": "client_credentials"}, headers={"Authorization": value}
    )
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_without_any_authentication_it_is_invalid_client(shared: Running) -> None:
    answer = await shared.http.post("/oauth/token", data={"grant_type": "client_credentials"})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_an_expired_assertion_says_so(shared: Running) -> None:
    now = int(time.time())
    answer = await shared.http.post("/oauth/token", data=form(assertion(APP, "team.app", iat=now - 200, exp=now - 100)))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert "expired" in answer.json()["error_description"]


@pytest.mark.parametrize("size", [70_000, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_a_body_over_the_limit_is_413(shared: Running, size: int, chunked: bool) -> None:
    async def pieces() -> Any:
        for _ in range(0, size, 10_000):
            yield b"a" * 10_000

    async with httpx2.AsyncClient(base_url=shared.process.url) as http:
        try:
            answer = await http.post(
                "/oauth/token",
                content=pieces() if chunked else b"a" * size,
                headers={"content-type": "application/x-www-form-urlencoded"},
            )
        except (httpx2.WriteError, httpx2.ReadError):
            # The connection was closed while the body was still being sent, which is what the limit is for.
            return
    assert answer.status_code == 413


async def test_token_endpoint_auth_method_is_tolerated(shared: Running) -> None:
    assert await token(shared, token_endpoint_auth_method="private_key_jwt")


async def test_tokeninfo_gives_the_claims(shared: Running) -> None:
    value = await token(shared)
    answer = await shared.http.get("/tokeninfo", headers={"Authorization": f"Bearer {value}"})
    assert answer.status_code == 200
    assert answer.json() == jwt.decode(value, options={"verify_signature": False})


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer x", "Basic YTpi", "Bearer a.b.c"])
async def test_tokeninfo_refuses_what_is_no_token(shared: Running, value: str | None) -> None:
    answer = await shared.http.get("/tokeninfo", headers={} if value is None else {"Authorization": value})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_an_assertion_is_no_access_token(shared: Running) -> None:
    headers = {"Authorization": f"Bearer {assertion(APP, 'team.app')}"}
    assert (await shared.http.get("/tokeninfo", headers=headers)).status_code == 401


async def test_the_log_at_debug_holds_no_secret_no_assertion_and_no_token(shared: Running) -> None:
    signed = assertion(APP, "team.app")
    value = (await shared.http.post("/oauth/token", data=form(signed))).json()["access_token"]
    await shared.http.post("/oauth/token", data=form(signed))
    await shared.http.get("/tokeninfo", headers={"Authorization": f"Bearer {value}x"})
    await shared.http.post(
        "/oauth/token", data={"grant_type": "client_credentials"}, headers=basic("team.secret", b"wrong-one-9")
    )
    log = shared.process.output()
    assert '"event":"token_refused"' in log
    for secret in (signed.split(".")[2], value.split(".")[1], "wrong-one-9", "s3cret", ASSERTION_TYPE, "PRIVATE KEY"):
        assert secret not in log
    assert "Traceback" not in log
