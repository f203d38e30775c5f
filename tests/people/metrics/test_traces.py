"""Traces of running programs, as a collector gets them: from the gateway's span to the decision, and each reconcile."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import httpx2
import pytest

from keyturn_dev.cluster import Cluster
from keyturn_dev.installation import Installation
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import ASSERTION_TYPE, World, needs, route, world_of
from tests.installations import StartWorld, signing_key
from tests.people.metrics.collector import Collector, Received, collecting

SPAN = "b7ad6b7169203331"
QUERY = "a-secret-in-the-query"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as one:
        yield one


@pytest.fixture(scope="module")
def traced(crds: Cluster, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An installation whose programs send traces, and whose metric of tokens names one client."""
    settings = {"KEYTURN_TRACES_URL": collector.url, "KEYTURN_TRACES_RATIO": "1", "KEYTURN_METRICS_CLIENTS": "1"}
    own = Installation(crds, "traced", tmp_path_factory.mktemp("traced") / "state", settings=settings)
    try:
        own.start()
        own.apply([signing_key(own.namespace)])
        own.wait_ready()
        with world_of(own, replicas=1) as one:
            yield one
    finally:
        own.stop()


def context(*, kept: bool = True) -> tuple[str, dict[str, str]]:
    """A trace that the gateway has begun: its id, and the headers that say so (W3C Trace Context)."""
    trace = secrets.token_hex(16)
    return trace, {"traceparent": f"00-{trace}-{SPAN}-0{int(kept)}"}


def arrived(collector: Collector, count: int = 1, **wanted: str) -> list[Received]:
    wait_until(lambda: len(collector.spans(**wanted)) >= count, f"{count} spans with {wanted}", seconds=20)
    return collector.spans(**wanted)


def ask(world: World, path: str, **headers: str) -> httpx2.Response:
    question = {"Original-Request-Method": "GET", "Original-Request-Uri": f"{path}?q={QUERY}"}
    return httpx2.get(f"{world.replicas[0].url}/auth", headers={**question, **headers}, trust_env=False)


def test_one_trace_leads_from_the_gateway_over_the_token_to_the_decision(traced: World, collector: Collector) -> None:
    client = traced.client("traced").apply(permissions=["traced:read"])
    traced.rule(
        "traced", route("/traced/read", **needs("traced:read")), route("/traced/write", **needs("traced:write"))
    )
    trace, headers = context()
    url = traced.replicas[0].url
    form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
    signed = client.assertion()
    answer = httpx2.post(
        f"{url}/oauth/token", data={**form, "client_assertion": signed}, headers=headers, trust_env=False
    )
    token = answer.json()["access_token"]
    bearer = {**headers, "authorization": f"Bearer {token}"}
    assert httpx2.get(f"{url}/tokeninfo", headers=bearer, trust_env=False).status_code == 200
    assert ask(traced, "/traced/read", **bearer).status_code == 200
    assert ask(traced, "/traced/write", **bearer).status_code == 403

    spans = arrived(collector, 4, trace=trace)
    assert {one.service for one in spans} == {"keyturn-api"}
    assert {one.parent for one in spans} == {SPAN}
    told = [(one.name, one.attributes["keyturn.outcome"], one.attributes["http.response.status_code"]) for one in spans]
    assert told == [
        ("/oauth/token", "ok", 200),
        ("/tokeninfo", "ok", 200),
        ("/auth", "allowed", 200),
        ("/auth", "forbidden", 403),
    ]
    decided = [
        (one.attributes["keyturn.rule"], one.attributes["keyturn.reason"]) for one in spans if one.name == "/auth"
    ]
    rule = f"{traced.namespace}/traced"
    assert decided == [(rule, "Allowed"), (rule, "MissingPermission")]
    for one in spans:
        for secret in (token, token.rpartition(".")[2], signed, QUERY, "/traced/"):
            assert secret not in one.text
    assert collector.paths == {"/v1/traces"}


@pytest.mark.parametrize(
    "traceparent", ["", "00-nonsense", f"00-{'0' * 32}-{SPAN}-01"], ids=["none", "no context", "zeros"]
)
def test_a_request_without_a_good_context_begins_a_trace(traceparent: str, traced: World, collector: Collector) -> None:
    before = len(collector.spans(name="/auth", parent=""))
    assert ask(traced, "/unknown", **({"traceparent": traceparent} if traceparent else {})).status_code == 403
    found = arrived(collector, before + 1, name="/auth", parent="")
    assert found[-1].attributes["keyturn.reason"] == "UnknownRoute"


def test_what_the_gateway_does_not_keep_is_not_sent(traced: World, collector: Collector) -> None:
    dropped, headers = context(kept=False)
    assert ask(traced, "/unknown", **headers).status_code == 403
    kept, headers = context()
    assert ask(traced, "/unknown", **headers).status_code == 403
    # Spans leave in their order: once the later one is there, the earlier would be.
    arrived(collector, trace=kept)
    assert collector.spans(trace=dropped) == []


def test_each_reconcile_is_a_trace_of_its_own(traced: World, collector: Collector) -> None:
    client = traced.client("reconciled").apply()

    def of_client() -> list[Received]:
        spans = collector.spans(service="keyturn-operator", name="reconcile")
        return [one for one in spans if one.attributes["keyturn.name"] == "reconciled"]

    wait_until(lambda: bool(of_client()), "a span of the reconcile", seconds=20)
    first = of_client()[0]
    assert first.parent == ""
    assert first.attributes == {
        "k8s.namespace.name": traced.namespace,
        "keyturn.kind": "ClientCredential",
        "keyturn.name": "reconciled",
        "keyturn.outcome": "done",
    }
    before = len(of_client())
    client.patch(description="another")
    wait_until(lambda: len(of_client()) > before, "a span of the change", seconds=20)
    assert len({one.trace for one in of_client()}) == len(of_client())


def test_a_collector_that_is_gone_delays_nothing(start_world: StartWorld) -> None:
    with collecting() as one:
        gone = one.url
    world = start_world(settings={"KEYTURN_TRACES_URL": gone, "KEYTURN_TRACES_RATIO": "0"})
    client = world.client("untold").apply()
    for _ in range(20):
        answer = client.request()
        assert answer.status_code == 200, answer.text
        assert answer.elapsed.total_seconds() < 5


def test_one_client_is_named_by_the_metric_and_the_rest_are_others(traced: World) -> None:
    for name in ("named-first", "named-second"):
        traced.client(name).apply().token()
    port = traced.installation.apis[0].metrics
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    issued = [line for line in text.splitlines() if line.startswith("keyturn_api_tokens_issued_total{")]
    assert len(issued) == 2
    assert any(line.startswith('keyturn_api_tokens_issued_total{client="other"}') for line in issued)
