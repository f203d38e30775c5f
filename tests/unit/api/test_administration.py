"""Callers with Kubernetes tokens: who they are, what RBAC allows them, and what is asked of the API server for that."""

import asyncio
import base64
import json
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest

from keyturn_api.administration import Administration, Caller, admin_audience
from keyturn_api.errors import ApiError
from tests.unit.api.kubernetes_api import KubernetesApi, status

ISSUER = "https://issuer.example/path"
AUDIENCE = "https://issuer.example/path/admin"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
USER = {"username": "system:serviceaccount:portal:app", "uid": "u1", "groups": ["g"], "extra": {"pod": ["p1"]}}


def jwt(**claims: Any) -> bytes:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    return b"Bearer e30." + payload + b".c2ln"


GOOD = jwt(iss="https://kubernetes.default.svc", aud=[AUDIENCE])


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def api(tmp_path: Path) -> KubernetesApi:
    """Knows the user, for our audience alone, and allows everything."""
    one = KubernetesApi(tmp_path)
    one.answers["POST", TOKEN_REVIEWS] = lambda body: {
        "status": {"authenticated": True, "audiences": body["spec"].get("audiences", ["the server"]), "user": USER}
    }
    one.answers["POST", ACCESS_REVIEWS] = lambda _: {"status": {"allowed": True}}
    return one


def administration(api: KubernetesApi, **options: Any) -> Administration:
    return Administration(api.client(), issuer=ISSUER, **options)


async def ask(one: Administration, authorization: bytes | None = GOOD, **question: Any) -> Caller:
    base = {"verb": "create", "namespace": "team", "request_id": "r1", "address": "192.0.2.1"}
    return await one.authorize(authorization, **{**base, **question})


async def refused(one: Administration, authorization: bytes | None = GOOD, **question: Any) -> ApiError:
    with pytest.raises(ApiError) as error:
        await ask(one, authorization, **question)
    return error.value


def test_the_audience_is_the_issuers() -> None:
    assert admin_audience(ISSUER) == admin_audience(ISSUER + "/") == AUDIENCE


async def test_an_allowed_caller_is_named_and_asked_about_with_all_that_kubernetes_knows(api: KubernetesApi) -> None:
    caller = await ask(administration(api), verb="revoke", name="r-1")
    assert caller == Caller(USER["username"], "u1", ("g",), {"pod": ("p1",)})  # type: ignore[arg-type]
    (_, _, token_review), (_, _, access_review) = api.calls
    assert token_review["spec"]["audiences"] == [AUDIENCE]
    assert access_review["spec"] == {
        "user": USER["username"],
        "uid": "u1",
        "groups": ["g"],
        "extra": {"pod": ["p1"]},
        "resourceAttributes": {
            "group": "keyturn.dev",
            "resource": "clientcredentials",
            "verb": "revoke",
            "namespace": "team",
            "name": "r-1",
        },
    }


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="nothing"),
        pytest.param(b"", id="an empty header"),
        pytest.param(b"Bearer", id="no token"),
        pytest.param(b"Bearer a b", id="two tokens"),
        pytest.param(b"Basic YTpi", id="another scheme"),
        pytest.param(b"Bearer opaque", id="no JWT"),
        pytest.param(b"Bearer a.\xff.c", id="no base64"),
        pytest.param(jwt(aud="https://kubernetes.default.svc"), id="a token for the API server"),
        pytest.param(jwt(aud=ISSUER), id="a token for the token endpoint"),
        pytest.param(jwt(aud={AUDIENCE: 1}), id="an audience that is neither text nor list"),
        pytest.param(jwt(aud=AUDIENCE, pad="x" * 20_000), id="a token without end"),
    ],
)
async def test_what_cannot_count_is_refused_without_asking_kubernetes(
    authorization: bytes | None, api: KubernetesApi
) -> None:
    error = await refused(administration(api), authorization)
    assert error.status == 401
    assert any(name == b"www-authenticate" and value.startswith(b"Bearer") for name, value in error.headers)
    assert api.calls == []


@pytest.mark.parametrize(
    "review",
    [
        pytest.param({"authenticated": False, "error": "expired"}, id="not authenticated"),
        pytest.param({"authenticated": True, "user": USER}, id="by something that knows no audiences"),
        pytest.param({"authenticated": True, "audiences": ["other"], "user": USER}, id="for another audience"),
        pytest.param({"authenticated": True, "audiences": [AUDIENCE], "user": {}}, id="nobody"),
        pytest.param({"authenticated": "true", "audiences": [AUDIENCE], "user": USER}, id="not quite true"),
        pytest.param({}, id="an empty status"),
    ],
)
async def test_a_token_that_kubernetes_does_not_vouch_for_is_401(review: dict[str, Any], api: KubernetesApi) -> None:
    api.answers["POST", TOKEN_REVIEWS] = lambda _: {"status": review}
    assert (await refused(administration(api))).status == 401
    assert [path for _, path, _ in api.calls] == [TOKEN_REVIEWS]


@pytest.mark.parametrize(
    "review",
    [
        pytest.param({"allowed": False}, id="not allowed"),
        pytest.param({"allowed": True, "denied": True}, id="denied besides"),
        pytest.param({}, id="an empty status"),
    ],
)
async def test_a_caller_whom_rbac_does_not_allow_is_403_and_leaves_an_audit_record(
    review: dict[str, Any], api: KubernetesApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.answers["POST", ACCESS_REVIEWS] = lambda _: {"status": review}
    error = await refused(administration(api))
    assert (error.status, error.code) == (403, "access_denied")
    (line,) = [dict(one.msg) for one in caplog.records if one.name == "keyturn.audit" and isinstance(one.msg, dict)]
    assert line.pop("timestamp")
    assert line == {
        "event": "administration_denied",
        "logger": "keyturn.audit",
        "level": "info",
        "who": USER["username"],
        "request_id": "r1",
        "verb": "create",
        "resource": "clientcredentials.keyturn.dev",
        "object": "team/*",
    }


@pytest.mark.parametrize("review", [TOKEN_REVIEWS, ACCESS_REVIEWS])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(lambda _: httpx2.ConnectError("down"), "does not answer", id="Kubernetes is down"),
        pytest.param(lambda _: status(500), "does not answer", id="Kubernetes fails"),
        pytest.param(lambda _: status(403, "Forbidden"), "lacks the right", id="this service may not ask"),
        pytest.param(lambda _: status(401, "Unauthorized"), "lacks the right", id="Kubernetes does not know it"),
    ],
)
async def test_without_a_review_the_answer_is_503_and_tells_an_outage_from_a_missing_right(
    answer: Callable[[Any], httpx2.Response | Exception], said: str, review: str, api: KubernetesApi
) -> None:
    api.answers["POST", review] = answer
    error = await refused(administration(api))
    assert (error.status, error.code) == (503, "temporarily_unavailable")
    assert said in error.description
    assert b"retry-after" in dict(error.headers)


async def test_switched_off_there_is_no_such_endpoint(api: KubernetesApi) -> None:
    for one in (administration(api, enabled=False), Administration(None, issuer=ISSUER)):
        assert not one.enabled
        assert (await refused(one)).status == 404


async def test_what_was_allowed_counts_for_seconds_and_for_this_question_only(api: KubernetesApi) -> None:
    clock = Clock()
    one = administration(api, clock=clock)
    await ask(one)
    await ask(one)
    assert len(api.calls) == 2
    await ask(one, verb="introspect")
    await ask(one, namespace="other")
    await ask(one, jwt(iss="k", aud=AUDIENCE, sub="another"))
    assert len(api.calls) == 8
    clock.now += 6
    await ask(one)
    assert len(api.calls) == 10


async def test_a_token_that_was_refused_is_remembered_for_seconds(api: KubernetesApi) -> None:
    clock = Clock()
    one = administration(api, clock=clock)
    good = api.answers["POST", TOKEN_REVIEWS]
    api.answers["POST", TOKEN_REVIEWS] = lambda _: {"status": {"authenticated": False}}
    for verb in ("create", "revoke"):
        assert (await refused(one, verb=verb)).status == 401
    assert len(api.calls) == 1
    api.answers["POST", TOKEN_REVIEWS] = good
    await ask(one, jwt(iss="k", aud=AUDIENCE, sub="another"))
    clock.now += 6
    await ask(one)


@pytest.mark.parametrize(
    ("review", "answer", "expected"),
    [
        pytest.param(TOKEN_REVIEWS, {"authenticated": False}, 401, id="with tokens that somebody made up"),
        pytest.param(ACCESS_REVIEWS, {"allowed": False}, 403, id="with tokens that allow nothing"),
    ],
)
async def test_an_address_asks_kubernetes_in_vain_so_often_and_no_more(
    review: str, answer: dict[str, Any], expected: int, api: KubernetesApi
) -> None:
    clock = Clock()
    one = administration(api, clock=clock, exempt=[ip_network("198.51.100.0/24")])
    good = api.answers["POST", review]
    api.answers["POST", review] = lambda _: {"status": answer}

    async def try_often(address: str) -> list[int]:
        tokens = [jwt(iss="k", aud=AUDIENCE, sub=f"{address}-{number}") for number in range(110)]
        return [(await refused(one, token, address=address)).status for token in tokens]

    assert await try_often("192.0.2.1") == [expected] * 100 + [429] * 10
    asked = len(api.calls)
    error = await refused(one, GOOD, address="192.0.2.1")
    assert (error.status, error.code) == (429, "slow_down")
    assert 1 <= int(dict(error.headers)[b"retry-after"]) <= 61
    assert len(api.calls) == asked
    assert await try_often("198.51.100.7") == [expected] * 110
    api.answers["POST", review] = good
    await ask(one, address="192.0.2.2")
    clock.now += 61
    await ask(one, address="192.0.2.1")


async def test_neither_those_who_are_allowed_nor_an_absence_of_kubernetes_count(api: KubernetesApi) -> None:
    one = administration(api)
    good = api.answers["POST", TOKEN_REVIEWS]
    for number in range(110):
        await ask(one, jwt(iss="k", aud=AUDIENCE, sub=str(number)))
    api.answers["POST", TOKEN_REVIEWS] = lambda _: httpx2.ConnectError("down")
    for _ in range(110):
        assert (await refused(one)).status == 503
    api.answers["POST", TOKEN_REVIEWS] = good
    await ask(one)


async def test_what_rbac_denied_is_asked_again(api: KubernetesApi) -> None:
    one = administration(api)
    api.answers["POST", ACCESS_REVIEWS] = lambda _: {"status": {"allowed": False}}
    await refused(one)
    api.answers["POST", ACCESS_REVIEWS] = lambda _: {"status": {"allowed": True}}
    await ask(one)


async def test_tokens_for_the_api_server_count_only_by_the_setting(api: KubernetesApi) -> None:
    server = jwt(iss="https://kubernetes.default.svc", aud=["https://kubernetes.default.svc"])
    api.answers["POST", TOKEN_REVIEWS] = lambda body: {
        "status": {"authenticated": False} if "audiences" in body["spec"] else {"authenticated": True, "user": USER}
    }
    assert (await refused(administration(api), server)).status == 401
    assert (await ask(administration(api, server_tokens=True), server)).username == USER["username"]


async def test_a_flood_of_tokens_is_refused_rather_than_queued_without_end(api: KubernetesApi) -> None:
    one = administration(api)
    questions = [ask(one, jwt(iss="k", aud=AUDIENCE, sub=str(number))) for number in range(200)]
    results = await asyncio.gather(*questions, return_exceptions=True)
    full = [one for one in results if isinstance(one, ApiError)]
    assert {error.reason for error in full} == {"reviews_full"}
    assert sum(isinstance(one, Caller) for one in results) >= 64


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        pytest.param(GOOD, True, id="another issuer's JWT"),
        pytest.param(jwt(iss=ISSUER), False, id="our own"),
        pytest.param(jwt(sub="x"), False, id="nobody's"),
        pytest.param(jwt(iss=["x"]), False, id="an issuer that is no text"),
        pytest.param(b"Bearer opaque", False, id="no JWT"),
        pytest.param(b"Basic " + GOOD[7:], False, id="another scheme"),
        pytest.param(b"", False, id="nothing"),
    ],
)
def test_a_kubernetes_token_is_told_from_our_own_by_its_issuer(
    authorization: bytes, *, expected: bool, api: KubernetesApi
) -> None:
    assert administration(api).is_kubernetes_token(authorization) is expected
