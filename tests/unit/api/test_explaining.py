"""`POST /explain`: the gateway's decision with its reasons, and what became of a request by its answer's id."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import pytest_asyncio

from keyturn.expressions import Subject
from keyturn.records import Kind
from keyturn.rules.state import AUDIT, Condition, RouteState, RuleState
from keyturn.store.memory import MemoryStore
from keyturn_api.answers import Caller
from keyturn_api.callers import Callers, OtherSource
from keyturn_api.denials import STORED_PER_SECOND, Denials
from keyturn_api.errors import ApiError
from keyturn_api.explaining import ExplainEndpoint
from keyturn_api.explanations import Explainer
from keyturn_api.gateway import Gateway
from keyturn_api.http import Message, Response
from keyturn_api.profiles.original_request import original_request
from tests.unit.api.worlds import World, access_token, content, fields, metrics, scope
from tests.unit.tokens.worlds import ISSUER, NOW, client_state

URL = "https://shop.example/orders/7"


@dataclass(frozen=True)
class Person:
    username: str = "ann"


async def allowed(authorization: bytes | None, request_id: str, address: str) -> Person:
    if authorization != b"Bearer kubernetes":
        raise ApiError(401, "unauthorized", "a Kubernetes token is needed", headers=[(b"www-authenticate", b"Bearer")])
    return Person()


class Asking:
    """An endpoint and a gateway over one state."""

    def __init__(
        self,
        *,
        kept: int = 100,
        stored: bool = True,
        loaded: bool = True,
        accepted: tuple[str, ...] = (),
        others: tuple[OtherSource, ...] = (),
    ) -> None:
        self.world = World(loaded=loaded)
        self.store = MemoryStore()
        self.now = NOW
        callers = Callers(self.world.tokens(accepted), others)
        self.denials = Denials(self.store, kept=kept, stored=stored, clock=lambda: self.now)
        self.gateway = Gateway(
            self.world.snapshot,
            callers,
            metrics(),
            profile=original_request,
            denials=self.denials,
            clock=lambda: self.now,
        )
        self.endpoint = ExplainEndpoint(
            self.world.snapshot,
            Explainer(self.world.snapshot, callers, issuer=ISSUER, accepted=frozenset(accepted)),
            self.denials,
            metrics(),
            authorize=allowed,
            max_body_bytes=4096,
            namespace="team",
            clock=lambda: self.now,
        )

    async def post(self, body: Any, *headers: tuple[str, str], method: str = "POST") -> Response:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)

        async def receive() -> Message:
            return {"type": "http.request", "body": raw, "more_body": False}

        given = headers or (("authorization", "Bearer kubernetes"),)
        return await self.endpoint(scope(method, "/explain", *given), receive)

    async def explain(self, **asked: Any) -> Any:
        answer = await self.post({"method": "GET", "url": URL, **asked})
        assert answer.status == 200, content(answer)
        return content(answer)

    def denied(self, *headers: tuple[str, str | bytes], request_id: str = "req-1", path: str = "/orders/7?q=1") -> None:
        question = (
            ("original-request-uri", path),
            ("original-request-method", "POST"),
            ("x-request-id", request_id),
        )
        answer = self.gateway(scope("GET", "/auth", *question, *headers))
        assert isinstance(answer, Response)
        assert answer.status in (401, 403)


@pytest_asyncio.fixture
async def asking() -> AsyncIterator[Asking]:
    yield Asking()


BEARER = ("authorization", b"Bearer " + access_token())


@pytest.mark.parametrize(
    "caller",
    [
        pytest.param({"client": "team.app"}, id="by its client id"),
        pytest.param({"client": "keyturn"}, id="by its object's name"),
        pytest.param({"client": "keyturn", "namespace": "team"}, id="by its object's name and namespace"),
        pytest.param({"client": "team/keyturn", "namespace": "other"}, id="by both in one"),
        pytest.param({"token": access_token().decode()}, id="by its token"),
    ],
)
async def test_a_client_is_explained_the_rule_that_decides_for_it(asking: Asking, caller: dict[str, Any]) -> None:
    body = await asking.explain(**caller)
    assert (body["decision"]["outcome"], body["decision"]["rule"], body["decision"]["route"]) == (
        "Allow",
        "team/keyturn",
        "/orders",
    )
    assert (body["caller"]["clientId"], body["caller"]["object"]) == ("team.app", "team/keyturn")
    assert body["caller"]["permissions"] == ["orders:read", "orders:write"]


async def test_what_is_missing_is_told_with_the_objects_that_have_it(asking: Asking) -> None:
    other = client_state(client_id="team.admin", permissions=("orders:admin",))
    asking.world.change((Kind.CLIENT, "c2", other.to_body()))
    body = await asking.explain(method="POST", client="team.app")
    assert body["decision"]["outcome"] == "Forbidden"
    (route,) = body["readings"][0]["routes"]
    assert route["checks"][-1]["missing"] == {"allOf": ["orders:admin"]}
    assert body["grants"] == [{"permission": "orders:admin", "clients": ["team/keyturn"], "count": 1}]


@pytest.mark.parametrize(
    ("caller", "outcome", "reason"),
    [
        pytest.param({"anonymous": True}, "Unauthenticated", None, id="nobody"),
        pytest.param(
            {"token": access_token(exp=NOW - 1).decode()}, "Unauthenticated", "expired", id="an expired token"
        ),
        pytest.param({"token": "junk"}, "Unauthenticated", "malformed", id="junk"),
        pytest.param({"permissions": ["orders:read"]}, "Allow", None, id="somebody with permissions"),
        pytest.param({"groups": ["x"], "userProperties": {"a": 1}}, "Forbidden", None, id="somebody without"),
        pytest.param({"client": "team.app", "backoffice": True}, "Forbidden", None, id="in the back office"),
    ],
)
async def test_other_callers_are_explained_too(
    asking: Asking, caller: dict[str, Any], outcome: str, reason: str | None
) -> None:
    body = await asking.explain(**caller)
    assert body["decision"]["outcome"] == outcome
    assert (body["caller"].get("problem") or {}).get("reason") == reason
    assert "junk" not in str(body)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"suspended": True}, "client_suspended"), ({"expires_at": NOW - 1}, "client_expired")],
    ids=["suspended", "expired"],
)
async def test_a_client_that_gets_no_token_is_told_why(asking: Asking, changes: dict[str, Any], reason: str) -> None:
    asking.world.change_client(**changes)
    body = await asking.explain(client="team.app")
    assert body["caller"]["problem"]["reason"] == reason
    assert body["decision"]["outcome"] == "Unauthenticated"


async def test_a_client_whose_tokens_this_installation_does_not_accept_is_told_so_as_the_gateway_does() -> None:
    asking = Asking(accepted=("elsewhere",))
    asking.denied(BEARER)
    for caller in ({"client": "team.app"}, {"token": access_token().decode()}):
        body = await asking.explain(**caller)
        assert body["caller"]["problem"]["reason"] == "wrong_audience"
        assert body["decision"]["outcome"] == "Unauthenticated"
    assert (await Asking(accepted=("orders",)).explain(client="team.app"))["decision"]["outcome"] == "Allow"


async def test_contradictions_and_rules_under_audit_are_told(asking: Asking) -> None:
    changed = RuleState(routes=(RouteState("/orders", ("GET",), Condition(any_of=("other",))),))
    tried = RuleState(mode=AUDIT, routes=(RouteState("/orders/7", ("GET",), Condition(any_of=("tried",))),))
    asking.world.change((Kind.ACCESS_RULE, "r2", changed.to_body()))
    body = await asking.explain(client="team.app")
    # Two objects of one name stand for a rule and the one made in its place: both hold.
    assert [route["passes"] for route in body["readings"][0]["routes"]] == [True, False]
    asking.world.change((Kind.ACCESS_RULE, "r2", tried.to_body()))
    (audit,) = (await asking.explain(client="team.app"))["audits"]
    assert (audit["rule"], audit["decision"]["outcome"]) == ("team/keyturn", "Forbidden")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        pytest.param(b"{", "JSON object", id="no JSON"),
        pytest.param([], "JSON object", id="a list"),
        pytest.param({"method": "GET"}, "A request names a URL", id="no URL"),
        pytest.param({"method": "G ET", "url": "/"}, "begins with a method", id="no method"),
        pytest.param({"method": "GET", "url": "ftp://x"}, "A request names a URL", id="another scheme"),
        pytest.param({"method": "GET", "url": 7}, "url must be a string", id="a number for a URL"),
        pytest.param({"method": "GET", "url": "/", "user": "x"}, "not known", id="an unknown member"),
        pytest.param(
            {"method": "GET", "url": "/", "client": "a", "token": "b"}, "the caller is one of", id="two callers"
        ),
        pytest.param({"method": "GET", "url": "/", "groups": "x"}, "groups must be", id="a text for a list"),
        pytest.param({"method": "GET", "url": "/", "anonymous": 1}, "anonymous must be", id="a number for a truth"),
        pytest.param({"method": "GET", "url": "/", "userProperties": []}, "userProperties", id="a list of properties"),
        pytest.param({"requestId": "a", "method": "GET"}, "stands alone", id="an id and a request"),
    ],
)
async def test_a_question_that_cannot_be_read_is_a_bad_request(asking: Asking, body: Any, detail: str) -> None:
    answer = await asking.post(body)
    assert answer.status == 400
    assert detail in content(answer)["detail"]


async def test_others_than_those_whom_rbac_allows_are_refused(asking: Asking) -> None:
    answer = await asking.post({"method": "GET", "url": "/"}, ("authorization", "Bearer x"))
    assert (answer.status, fields(answer)["www-authenticate"]) == (401, "Bearer")
    twice = (("authorization", "Bearer kubernetes"), ("authorization", "Bearer kubernetes"))
    assert (await asking.post({"method": "GET", "url": "/"}, *twice)).status == 400
    assert (await asking.post({}, method="GET")).status == 405
    assert (await asking.post(b" " * 5000)).status == 413


async def test_an_unknown_client_and_an_unknown_id_are_404(asking: Asking) -> None:
    assert (await asking.post({"method": "GET", "url": "/", "client": "nobody"})).status == 404
    assert (await asking.post({"requestId": "none"})).status == 404


async def test_nothing_is_explained_before_the_rules_are_loaded() -> None:
    assert (await Asking(loaded=False).post({"method": "GET", "url": "/"})).status == 503


async def test_a_denial_is_found_by_its_id_with_the_reason_and_what_it_would_come_to_now(asking: Asking) -> None:
    asking.denied(BEARER)
    answer = await asking.post({"requestId": "req-1"})
    body = content(answer)
    (denial,) = body["denials"]
    told = {name: denial[name] for name in ("status", "reason", "rule", "route", "clientId", "method", "path")}
    assert told == {
        "status": 403,
        "reason": "MissingPermission",
        "rule": "team/keyturn",
        "route": "/orders",
        "clientId": "team.app",
        "method": "POST",
        "path": "/orders/7",
    }
    assert denial["cause"] == "Missing: orders:admin"
    assert body["now"]["grants"] == [{"permission": "orders:admin", "clients": [], "count": 0}]
    assert access_token().decode() not in str(body)
    assert "q=1" not in str(body)


async def test_a_denial_of_nobody_and_one_of_a_client_that_is_gone_are_found_too(asking: Asking) -> None:
    asking.denied(request_id="nobody")
    asking.denied(("authorization", "Bearer junk"), request_id="junk")
    asking.denied(BEARER, request_id="gone")
    asking.world.change((Kind.CLIENT, "c1", None))
    found = content(await asking.post({"requestId": "nobody"}))
    assert (found["denials"][0]["reason"], found["now"]["caller"]["kind"]) == ("NoCredentials", "anonymous")
    junk = content(await asking.post({"requestId": "junk"}))
    assert (junk["denials"][0]["caller"], junk["now"]["caller"]["kind"]) == ("unknown", "unknown")
    assert content(await asking.post({"requestId": "gone"}))["now"] is None


@pytest.mark.parametrize(
    ("token", "change", "reason"),
    [
        pytest.param({}, {"suspended": True}, "client_suspended", id="a client that is suspended"),
        pytest.param({}, {"revoke_before": NOW}, "revoked", id="a token that is revoked"),
        pytest.param({"exp": NOW - 1}, {}, "expired", id="a token that has expired"),
        pytest.param({"aud": ["elsewhere"]}, {}, "wrong_audience", id="a token for something else"),
    ],
)
async def test_of_a_refused_token_of_our_own_the_client_is_told_and_logged(
    asking: Asking, token: dict[str, Any], change: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asking.world.change_client(**change)
    raw = access_token(**token)
    asking.denied(("authorization", b"Bearer " + raw))
    assert "client_id=team.app" in capsys.readouterr().out
    (denial,) = content(await asking.post({"requestId": "req-1"}))["denials"]
    assert (denial["status"], denial["reason"], denial["clientId"]) == (401, reason, "team.app")
    explained = await asking.explain(token=raw.decode())
    assert (explained["caller"]["problem"]["reason"], explained["caller"]["object"]) == (reason, "team/keyturn")


async def test_whoever_wrote_a_token_that_we_did_not_sign_is_nobody_we_know(asking: Asking) -> None:
    head, claims, _ = access_token().split(b".")
    asking.denied(("authorization", b"Bearer " + b".".join((head, claims, b"AAAA"))))
    (denial,) = content(await asking.post({"requestId": "req-1"}))["denials"]
    assert (denial["caller"], denial["clientId"]) == ("unknown", None)


async def test_what_a_denial_would_come_to_now_goes_by_what_its_token_permitted(asking: Asking) -> None:
    asking.world.change_client(permissions=("orders:admin", "orders:read"))
    asking.denied(("authorization", b"Bearer " + access_token(permissions=["orders:read"])))
    now = content(await asking.post({"requestId": "req-1"}))["now"]
    # Its client holds what is missing; the token was made for less.
    assert (now["decision"]["outcome"], now["caller"]["permissions"]) == ("Forbidden", ["orders:read"])
    assert now["grants"] == [{"permission": "orders:admin", "clients": ["team/keyturn"], "count": 1}]


async def test_what_it_would_come_to_now_asks_the_client_of_now(asking: Asking) -> None:
    asking.world.change_client(suspended=True)
    asking.denied(("authorization", b"Bearer " + access_token(permissions=["orders:admin"])))
    for changes, outcome, reason in (
        ({"suspended": True, "permissions": ("orders:admin",)}, "Unauthenticated", "client_suspended"),
        ({"permissions": ("orders:admin",)}, "Allow", None),
        ({"permissions": ("orders:read",)}, "Forbidden", None),
        ({"permissions": ("orders:admin",), "audiences": ("elsewhere",)}, "Unauthenticated", "wrong_audience"),
    ):
        asking.world.change_client(**changes)
        now = content(await asking.post({"requestId": "req-1"}))["now"]
        assert (now["decision"]["outcome"], now["caller"].get("problem", {}).get("reason")) == (outcome, reason)


async def test_of_a_user_nothing_is_kept_and_so_nothing_is_said_of_now() -> None:
    class Somebody:
        def identify(self, scope: Any, question: Any, now: float, *, public: bool) -> Caller:
            return Caller(Subject(groups=frozenset({"ops"})), user_id=b"ann")

    asking = Asking(others=(Somebody(),))
    asking.denied(("authorization", "Bearer opaque"))
    body = content(await asking.post({"requestId": "req-1"}))
    assert (body["denials"][0]["status"], body["denials"][0]["caller"], body["now"]) == (403, "user", None)
    assert "ann" not in str(body)


async def test_a_path_that_is_too_long_to_keep_is_not_asked_for_again(asking: Asking) -> None:
    asking.denied(BEARER, path="/orders/" + "x" * 300)
    assert content(await asking.post({"requestId": "req-1"}))["now"] is None


async def test_another_replica_finds_what_was_written_and_each_denial_once(asking: Asking) -> None:
    asking.denied(BEARER)
    asking.now += 1
    asking.denied()
    await asking.denials.flush()
    other = Asking()
    other.store = asking.store
    other.denials._store = asking.store
    for each in (asking, other):
        found = content(await each.post({"requestId": "req-1"}))["denials"]
        assert [one["reason"] for one in found] == ["NoCredentials", "MissingPermission"]


async def test_a_flood_is_kept_and_written_in_bounds() -> None:
    asking = Asking(kept=50)
    for number in range(200):
        asking.denied(request_id=f"r{number}")
    await asking.denials.flush()
    written = [number for number in range(200) if await asking.store.denials(f"r{number}")]
    assert written == list(range(STORED_PER_SECOND))
    known = [number for number in range(200) if await asking.denials.find(f"r{number}")]
    assert known == [*range(STORED_PER_SECOND), *range(150, 200)]


async def test_with_the_store_down_a_denial_is_found_in_memory_and_another_one_is_503(asking: Asking) -> None:
    asking.denied(BEARER)
    asking.store.available = False
    await asking.denials.flush()
    assert (await asking.post({"requestId": "req-1"})).status == 200
    assert (await asking.post({"requestId": "other"})).status == 503


async def test_nothing_is_written_where_that_is_switched_off() -> None:
    asking = Asking(stored=False)
    asking.denied(BEARER)
    await asking.denials.flush()
    assert await asking.store.denials("req-1") == []
    assert (await asking.post({"requestId": "req-1"})).status == 200
    asking.store.available = False
    assert (await asking.post({"requestId": "other"})).status == 404
