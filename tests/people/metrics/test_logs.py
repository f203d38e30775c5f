"""What running programs write is what docs/logs.md says: every field of every audit record, and denials on one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from keyturn_dev.cluster import Cluster
from keyturn_dev.installation import Installation
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import ASSERTION_TYPE, World, needs, route, world_of
from tests.cluster.portal import Portal, bearer
from tests.installations import StartWorld, signing_key
from tests.logs_page import audit_events, fields
from tests.sample_keys import sample_key

# How long nobody has approved a registration before it is deleted.
PENDING_SECONDS = "4"
ALWAYS = {"timestamp", "level", "event"}


def lines(world: World, name: str) -> list[dict[str, Any]]:
    """The lines of one process; what libraries print at the very end of a process is no line of ours."""
    text = world.installation.log(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def audit(world: World) -> list[dict[str, Any]]:
    return [
        one for name in ("api-0", "operator-0") for one in lines(world, name) if one.get("logger") == "keyturn.audit"
    ]


def act(world: World) -> None:
    """Has each audit record written once at least."""
    portal = Portal(world)
    registered = portal.with_key()
    registered.put(jwks={"keys": [dict(sample_key("ES256", 990).public.jwk)]})
    assert portal.with_key().delete().status_code == 204
    allowed = portal.caller("auditor", "create")
    made = portal.clients({"__STATE__": "PUBLIC"}, allowed)
    assert made.status_code == 201, made.text
    denied = portal.clients({}, portal.caller("nobody"))
    assert denied.status_code == 403, denied.text
    client = world.client("logged").apply(permissions=["logged:read"])
    token = client.token()
    form = {
        "token": token,
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": client.assertion(),
    }
    revoked = httpx2.post(f"{world.replicas[0].url}/oauth/revoke", data=form, trust_env=False)
    assert revoked.status_code == 200, revoked.text
    client.patch(permissions=["logged:read", "logged:write"])
    client.wait()
    client.delete()


@pytest.fixture(scope="module")
def logged(crds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An installation of its own, which is told to give registrations up soon."""
    settings = {"KEYTURN_REGISTRATION_PENDING_TTL": PENDING_SECONDS}
    own = Installation(crds, "logged", tmp_path_factory.mktemp("logged") / "state", settings=settings)
    try:
        own.start()
        own.apply([signing_key(own.namespace)])
        own.wait_ready()
        with world_of(own, replicas=1) as one:
            one.rule("logged", route("/logged", **needs("logged:read")))
            act(one)
            yield one
    finally:
        own.stop()


@pytest.mark.parametrize("event", audit_events())
def test_a_record_has_the_fields_that_the_page_says(event: str, logged: World) -> None:
    def found() -> list[dict[str, Any]]:
        return [one for one in audit(logged) if one["event"] == event]

    # Nobody approves in time: the API looks for that at intervals of its own.
    wait_until(lambda: bool(found()), f"an audit record {event}", seconds=60, interval=0.5)
    program, more = audit_events()[event]
    for one in found():
        assert one.keys() == fields("every audit record") | more
        assert one["level"] == "info"
    name = "api-0" if program == "API" else "operator-0"
    assert [one for one in lines(logged, name) if one["event"] == event and one.get("logger") == "keyturn.audit"]


def test_no_other_audit_record_is_written(logged: World) -> None:
    assert {one["event"] for one in audit(logged)} <= set(audit_events())


def test_a_denial_is_one_line_with_the_gateways_request_id(logged: World) -> None:
    token = logged.client("denied").apply().token()
    question = {
        "Original-Request-Method": "GET",
        "Original-Request-Uri": "/logged?secret=in-the-query",
        "X-Request-Id": "of-the-gateway-4711",
        **bearer(token),
    }
    answer = httpx2.get(f"{logged.replicas[0].url}/auth", headers=question, trust_env=False)
    assert answer.status_code == 403
    assert answer.json()["id"] == "of-the-gateway-4711"
    (line,) = [one for one in lines(logged, "api-0") if one.get("request_id") == "of-the-gateway-4711"]
    assert line.keys() == ALWAYS | fields("denied")
    assert (line["event"], line["status"], line["reason"]) == ("denied", 403, "MissingPermission")
    assert (line["rule"], line["route"], line["path"]) == (f"{logged.namespace}/logged", "/logged", "/logged")
    assert (line["client_id"], line["method"]) == (f"{logged.namespace}.denied", "GET")
    assert "logged:read" in line["cause"]


@pytest.mark.parametrize("name", ["api-0", "operator-0"])
def test_every_line_is_json_and_says_when_how_grave_and_what(name: str, logged: World) -> None:
    text = logged.installation.log(name).read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if not line.startswith("{")] == []
    for line in lines(logged, name):
        assert line.keys() >= ALWAYS, line


def test_as_text_lines_are_for_people_and_audit_records_stay_json(start_world: StartWorld) -> None:
    world = start_world(settings={"KEYTURN_LOG_FORMAT": "text", "KEYTURN_LOG_LEVEL": "ERROR"})
    client = world.client("readable").apply()
    form = {
        "token": client.token(),
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": client.assertion(),
    }
    assert httpx2.post(f"{world.replicas[0].url}/oauth/revoke", data=form, trust_env=False).status_code == 200
    told = {one["event"] for one in audit(world)}
    assert {"token_revoked", "grant_changed"} <= told
