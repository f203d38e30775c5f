"""What others read of the API and of the programs' metrics, as golden files: a change of any of it is seen before it is made."""

import json
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry

from keyturn.tokens.claims import encode_access_claims, grant
from keyturn_api.callers import Callers
from keyturn_api.client_secrets import invalid_client
from keyturn_api.errors import invalid_request, unavailable
from keyturn_api.gateway import Gateway
from keyturn_api.http import Response, oauth_error
from keyturn_api.metadata import oauth_metadata, openid_configuration
from keyturn_api.metrics import Metrics as ApiMetrics
from keyturn_api.profiles.original_request import original_request
from keyturn_api.tokeninfo import TokenInfo
from keyturn_operator.metrics import Metrics as OperatorMetrics
from tests.golden import assert_golden
from tests.unit.api.test_application import client
from tests.unit.api.worlds import World, access_token, metrics, scope, settings
from tests.unit.tokens.worlds import ISSUER, NOW, client_state


def golden(name: str, value: Any) -> None:
    assert_golden(name, json.dumps(value, indent=2, sort_keys=True) + "\n")


def shown(answer: Response) -> dict[str, Any]:
    """An answer as its reader gets it."""
    headers = {name.decode(): value.decode() for name, value in answer.start["headers"]}
    headers.pop("content-length", None)
    body = answer.body["body"]
    return {"status": answer.status, "headers": headers, "body": json.loads(body) if body else None}


def test_the_metadata_documents() -> None:
    world = World()
    golden("api/oauth-authorization-server.json", oauth_metadata(settings()))
    golden("api/openid-configuration.json", openid_configuration(oauth_metadata(settings()), world.snapshot))


async def test_the_openapi_document() -> None:
    async with client() as http:
        golden("api/openapi.json", (await http.get("/openapi.json")).json())


def test_the_claims_of_an_access_token() -> None:
    state = client_state(allowed_custom_claims=("tenant",))
    payload = encode_access_claims(
        client=state,
        granted=grant(state, audiences=(), scope=None, issuer=ISSUER),
        issuer=ISSUER,
        jti="an-identifier",
        now=int(NOW),
        lifetime=900,
        assertion_claims={"tenant": "north", "sub": "somebody-else"},
    )
    golden("api/access-token-claims.json", json.loads(payload))


def test_the_errors_of_the_oauth_endpoints() -> None:
    errors = [
        invalid_request("grant_type is missing"),
        invalid_client("the client did not authenticate", reason="no_credentials"),
        unavailable("no signing key is ready", reason="no_signing_key", retry_after=5),
    ]
    golden("api/oauth-errors.json", [shown(oauth_error(error)) for error in errors])


def test_the_answers_to_gateways_and_to_those_who_look_at_a_token() -> None:
    world = World()
    gateway = Gateway(
        world.snapshot,
        Callers(world.tokens()),
        metrics(),
        profile=original_request,
        is_stale=lambda _: False,
        clock=lambda: NOW,
    )
    info = TokenInfo(world.snapshot, world.tokens(), metrics(), clock=lambda: NOW)
    bearer = ("authorization", b"Bearer " + access_token())

    def asked(method: str, path: str, *more: tuple[str, str | bytes]) -> dict[str, Any]:
        question = [("original-request-method", method), ("original-request-uri", path), ("x-request-id", "req-1")]
        answer = gateway(scope("GET", "/auth", *question, *more))
        assert isinstance(answer, Response)
        return shown(answer)

    golden(
        "api/gateway-answers.json",
        {
            "allowed": asked("GET", "/orders", bearer),
            "public route": asked("GET", "/open"),
            "nobody is logged in": asked("GET", "/orders"),
            "bad token": asked("GET", "/orders", ("authorization", "Bearer x")),
            "missing permission": asked("POST", "/orders", bearer),
            "unknown route": asked("GET", "/elsewhere", bearer),
        },
    )
    golden(
        "api/tokeninfo-answers.json",
        {
            "good token": shown(info(scope("GET", "/tokeninfo", bearer))),
            "no token": shown(info(scope("GET", "/tokeninfo"))),
            "bad token": shown(info(scope("GET", "/tokeninfo", ("authorization", "Bearer x")))),
        },
    )


def described(registry: CollectorRegistry) -> dict[str, str]:
    """Each metric with its kind, meaning and labels."""

    def labels(collector: Any) -> Iterable[str]:
        return getattr(collector, "_labelnames", ())

    found = {}
    for collector in registry._collector_to_names:
        names = registry._collector_to_names[collector]
        for metric in collector.collect() if names else ():
            found[metric.name] = f"{metric.type}: {metric.documentation} [{', '.join(labels(collector))}]"
    return found


def test_the_names_of_the_metrics() -> None:
    api, operator = CollectorRegistry(), CollectorRegistry()
    ApiMetrics(api)
    OperatorMetrics(operator)
    golden("metrics.json", {"api": described(api), "operator": described(operator)})
