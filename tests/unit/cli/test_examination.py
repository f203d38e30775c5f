"""What doctor makes of facts: each fault is found, named, and answered with what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from keyturn.timestamps import format_rfc3339
from keyturn_cli import examination
from keyturn_cli.examination import FIELDS, examine
from keyturn_cli.facts import Facts, _offset
from keyturn_cli.finding import Finding, Outcome
from keyturn_cli.gateway_probe import Probe, protected
from keyturn_cli.object_checks import PATIENCE
from keyturn_cli.rights import FORBIDDEN, NEEDED, Right, needed, review
from tests.crd_schemas import schema_of
from tests.documents import PROJECT

Obj = dict[str, Any]
PLURALS = {"ClientCredential": "clientcredentials", "SigningKey": "signingkeys", "AccessRule": "accessrules"}


NOW = 1_800_000_000.0


def at(offset: float) -> str:
    return format_rfc3339(NOW + offset)


def ready(status: str = "True", reason: str = "Accepted", message: str = "", *, generation: int = 2) -> Obj:
    condition = {"type": "Ready", "status": status, "reason": reason, "message": message}
    return {"observedGeneration": generation, "conditions": [condition]}


def obj(kind: str, name: str, status: Obj | None = None, *, edited: float = -3600.0) -> Obj:
    """The second of its generations, written so many seconds ago by a person, and just now by the operator."""
    managers = [{"time": at(edited)}, {"time": at(0), "subresource": "status"}]
    metadata = {"name": name, "generation": 2, "creationTimestamp": at(-7200.0), "managedFields": managers}
    return {"kind": kind, "metadata": metadata, "spec": {}, "status": status if status is not None else ready()}


def deployment(part: str, version: str = "1.0", ready: int = 2, replicas: int = 2, label: str = "1.0") -> Obj:
    labels = {"app.kubernetes.io/component": part, "app.kubernetes.io/version": label}
    container = {"name": part, "image": f"registry.example:5000/keyturn-{part}:{version}"}
    return {
        "metadata": {"name": f"keyturn-{part}", "labels": labels},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [container]}}},
        "status": {"readyReplicas": ready, "updatedReplicas": 2},
    }


def lease(renewed: float = -2.0, holder: str = "keyturn-operator-0_7_ab") -> Obj:
    return {"spec": {"holderIdentity": holder, "renewTime": at(renewed), "leaseDurationSeconds": 15}}


KEYS = {"keys": [{"kid": "k1", "state": "Active"}, {"kid": "k2", "state": "Next"}]}
HEALTHY = Facts(
    "shop",
    now=NOW,
    cli_version="1.0",
    schemas={kind: schema_of(plural) for kind, plural in PLURALS.items()},
    deployments=[deployment("operator"), deployment("api")],
    lease=lease(),
    signing_keys=[obj("SigningKey", "keyturn", ready() | KEYS)],
    clients=[obj("ClientCredential", "billing")],
    rules=[obj("AccessRule", "orders")],
    accounts={"operator": "keyturn-operator", "api": "keyturn-api"},
    rights={part: dict.fromkeys(NEEDED[part], True) | dict.fromkeys(FORBIDDEN.get(part, ()), False) for part in NEEDED},
    offsets={"the API server": 0.0, "the service": 0.0},
    service="https://tokens.example.org",
    ready=(200, ()),
    api_version="1.0",
    published=frozenset({"k1", "k2"}),
    probe=Probe("/orders", 401, 401),
    public_url="https://tokens.example.org",
    exposed={"/auth": 404, "/metrics": 302},
    revisions={"a": 7, "b": 7},
)


def of(facts: Facts, check: str) -> Finding:
    return next(one for one in examine(facts) if one.check == check)


def test_a_healthy_installation_has_nothing_but_ok() -> None:
    assert {(one.check, one.outcome, one.todo) for one in examine(HEALTHY)} == {
        (check, Outcome.OK, "")
        for check in (
            *("CRDs", "versions", "RBAC", "service", "store", "replicas", "revisions", "clocks", "signing key"),
            *("operator", "keys mounted", "objects", "gateway headers", "public paths"),
        )
    }


def without(part: str, right: Right) -> Facts:
    assert HEALTHY.rights is not None
    return replace(HEALTHY, rights={**HEALTHY.rights, part: {**HEALTHY.rights[part], right: False}})


def holding(part: str, right: Right) -> Facts:
    assert HEALTHY.rights is not None
    return replace(HEALTHY, rights={**HEALTHY.rights, part: {**HEALTHY.rights[part], right: True}})


def unready(reason: str, status: str = "Unknown") -> list[Obj]:
    return [obj("ClientCredential", "billing", ready(status, reason))]


FAULTS = [
    pytest.param("CRDs", replace(HEALTHY, schemas={}), "wrong", "ClientCredential", id="no CRDs"),
    pytest.param(
        "CRDs",
        replace(HEALTHY, schemas={**(HEALTHY.schemas or {}), "AccessRule": {"properties": {}}}),
        "wrong",
        "AccessRule spec.hosts",
        id="an older CRD",
    ),
    pytest.param(
        "versions",
        replace(HEALTHY, deployments=[deployment("operator", "0.9@sha256:0f")]),
        "wrong",
        "operator 0.9, this command",
        id="an upgrade half done",
    ),
    pytest.param(
        "versions",
        replace(HEALTHY, deployments=[deployment("operator", label="0.9"), deployment("api", "2.0")], api_version=None),
        "wrong",
        "api 2.0, operator 1.0",
        id="an image of another version than the chart's",
    ),
    pytest.param("versions", replace(HEALTHY, cli_version="2.0"), "warning", "this command 2.0", id="another command"),
    pytest.param(
        "RBAC", without("operator", NEEDED["operator"][0]), "wrong", "may not get", id="a right that is missing"
    ),
    pytest.param("RBAC", holding("api", FORBIDDEN["api"][0]), "warning", "may get secrets", id="a right too many"),
    pytest.param("service", replace(HEALTHY, ready=None), "wrong", "does not answer", id="no answer"),
    pytest.param("service", replace(HEALTHY, ready=(404, ())), "wrong", "has no /readyz", id="the public address"),
    pytest.param(
        "service",
        replace(HEALTHY, ready=None, barred="Type this.", unread={"service": "You may not."}),
        "unknown",
        "You may not.",
        id="no right to reach it",
    ),
    pytest.param("service", replace(HEALTHY, ready=(503, ("ending",))), "wrong", "ending", id="not ready"),
    pytest.param("store", replace(HEALTHY, clients=unready("StoreUnavailable")), "wrong", "billing", id="store away"),
    pytest.param("store", replace(HEALTHY, ready=(503, ("snapshot_stale",))), "wrong", "snapshot_stale", id="stale"),
    pytest.param(
        "replicas", replace(HEALTHY, deployments=[deployment("api", ready=1)]), "wrong", "1 of 2", id="a pod down"
    ),
    pytest.param(
        "replicas",
        replace(HEALTHY, deployments=[deployment("api"), deployment("operator", ready=0, replicas=0)]),
        "wrong",
        "operator is scaled to 0",
        id="no pod wanted",
    ),
    pytest.param(
        "replicas",
        replace(HEALTHY, deployments=[deployment("api")]),
        "wrong",
        "The Deployment of the operator is not there",
        id="a part that is not there",
    ),
    pytest.param("operator", replace(HEALTHY, lease={}), "wrong", "no Lease", id="no Lease"),
    pytest.param("operator", replace(HEALTHY, lease=lease(holder="")), "wrong", "Nobody", id="a Lease given up"),
    pytest.param("operator", replace(HEALTHY, lease=lease(-300)), "wrong", "5m ago", id="a Lease that nobody renews"),
    pytest.param(
        "objects",
        replace(HEALTHY, clients=[obj("ClientCredential", "billing", {})]),
        "wrong",
        "has not looked at: ClientCredential billing",
        id="a client that nobody has looked at",
    ),
    pytest.param(
        "objects",
        replace(HEALTHY, rules=[obj("AccessRule", "orders", ready(generation=1))]),
        "wrong",
        "has not looked at: AccessRule orders",
        id="a change that nobody has looked at",
    ),
    pytest.param(
        "signing key",
        replace(HEALTHY, signing_keys=[obj("SigningKey", "keyturn", ready(generation=1))]),
        "wrong",
        "the last change of keyturn",
        id="a change of the key that nobody has looked at",
    ),
    pytest.param("revisions", replace(HEALTHY, clients=unready("NoReplica")), "wrong", "billing", id="no replica"),
    pytest.param("revisions", replace(HEALTHY, revisions={"a": 7, "b": 6}), "warning", "b 6", id="one behind"),
    pytest.param(
        "clocks", replace(HEALTHY, offsets={"the service": -31.0}), "wrong", "31 s behind", id="a clock far off"
    ),
    pytest.param("clocks", replace(HEALTHY, offsets={"the service": 6.0}), "warning", "6 s ahead", id="a clock off"),
    pytest.param(
        "clocks",
        replace(HEALTHY, offsets={"the API server": 20.0, "the service": -20.0}),
        "wrong",
        "The API server's clock is 40 s ahead of the service's.",
        id="two clocks off to either side",
    ),
    pytest.param("signing key", replace(HEALTHY, signing_keys=[]), "wrong", "none", id="no SigningKey"),
    pytest.param(
        "signing key",
        replace(HEALTHY, signing_keys=[obj("SigningKey", "keyturn", ready("False", "SecretConflict", "A member."))]),
        "wrong",
        "A member.",
        id="one that is not Ready",
    ),
    pytest.param(
        "signing key",
        replace(HEALTHY, signing_keys=[obj("SigningKey", "keyturn", {})]),
        "wrong",
        "may not be running",
        id="no operator",
    ),
    pytest.param(
        "keys mounted",
        replace(HEALTHY, ready=(503, ("active_signing_key_missing",))),
        "wrong",
        "no active signing key",
        id="keys not mounted",
    ),
    pytest.param("keys mounted", replace(HEALTHY, published=frozenset({"k1"})), "wrong", "k2", id="not published"),
    pytest.param(
        "objects", replace(HEALTHY, clients=unready("WeakKey", "False")), "warning", "billing", id="a bad client"
    ),
    pytest.param(
        "gateway headers", replace(HEALTHY, probe=Probe("/x", 401, 200)), "wrong", "401 to 200", id="forged ones count"
    ),
    pytest.param(
        "gateway headers", replace(HEALTHY, probe=Probe("/x", 400, 400)), "wrong", "400", id="another profile"
    ),
    pytest.param(
        "gateway headers", replace(HEALTHY, probe=Probe("/x", 200, 200)), "warning", "mia-allowed", id="always 200"
    ),
    pytest.param("public paths", replace(HEALTHY, exposed={"/auth": 401}), "wrong", "/auth", id="/auth is public"),
]


@pytest.mark.parametrize(("check", "facts", "outcome", "said"), FAULTS)
def test_a_fault_is_found_and_answered(check: str, facts: Facts, outcome: str, said: str) -> None:
    finding = of(facts, check)
    assert finding.outcome == outcome
    assert said in finding.message
    assert finding.todo


def test_what_could_not_be_read_is_unknown_with_its_cause_and_never_ok() -> None:
    facts = Facts("shop", unread={"schemas": "The API server refused.", "deployments": "No right."})
    found = {one.check: one for one in examine(facts)}
    assert {one.outcome for one in found.values()} == {Outcome.UNKNOWN}
    assert found["CRDs"].message == "The API server refused."


def test_a_change_of_a_moment_ago_is_not_yet_overlooked() -> None:
    fresh = [obj("AccessRule", "orders", ready(generation=1), edited=2 - PATIENCE)]
    assert of(replace(HEALTHY, rules=fresh), "objects").outcome is Outcome.OK
    made = {"name": "new", "generation": 1, "creationTimestamp": at(-1)}
    assert of(replace(HEALTHY, rules=[{"metadata": made, "spec": {}}]), "objects").outcome is Outcome.OK


def test_where_the_private_paths_are_not_found_nothing_is_said_of_what_lies_behind() -> None:
    facts = replace(HEALTHY, ready=(404, ()), probe=None, published=None, unread={"gateway": "Not at that address."})
    for check in ("store", "keys mounted", "gateway headers"):
        assert of(facts, check).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        pytest.param({}, 6, id="as delivered"),
        pytest.param({"KEYTURN_ADMINISTRATION": "false"}, 4, id="no administration"),
        pytest.param({"KEYTURN_REGISTRATION": "disabled"}, 6, id="no registration"),
        pytest.param({"KEYTURN_ADMINISTRATION": "False", "KEYTURN_REGISTRATION": "disabled"}, 4, id="neither"),
    ],
)
def test_of_the_rights_only_those_count_that_the_settings_need(settings: dict[str, str], count: int) -> None:
    wanted = needed("api", settings)
    assert len(wanted) == count
    assert needed("operator", settings) == NEEDED["operator"]
    assert HEALTHY.rights is not None
    held = dict.fromkeys(wanted, True) | dict.fromkeys(FORBIDDEN["api"], False)
    assert of(replace(HEALTHY, rights={**HEALTHY.rights, "api": held}), "RBAC").outcome is Outcome.OK


@pytest.mark.parametrize("reason", ["Suspended", "Expired", "Paused"])
def test_what_people_stopped_is_in_order(reason: str) -> None:
    assert of(replace(HEALTHY, clients=unready(reason, "False")), "objects").outcome is Outcome.OK


def test_the_rights_are_those_that_the_chart_gives() -> None:
    file = yaml.safe_load((PROJECT / "charts/keyturn/files/rbac.yaml").read_text("utf-8"))
    given = {
        "operator": [*file["operator"]["rules"], *file["operator"]["homeRules"]],
        "api": [*file["api"]["rules"], *file["api"]["clusterRules"]],
    }
    for part, rules in given.items():
        every = {
            Right(group, resource, verb, name)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
            for name in rule.get("resourceNames", ("",))
        }
        # Events are in two groups, and either is as good.
        assert every == set(NEEDED[part])
        assert not every & set(FORBIDDEN.get(part, ()))


def test_every_field_that_is_looked_for_is_in_the_crds() -> None:
    for kind, paths in FIELDS.items():
        schema = schema_of(PLURALS[kind])
        assert [path for path in paths if not examination._has(schema, path)] == []


def test_a_review_asks_about_the_one_object_where_a_name_holds_the_right() -> None:
    named = next(right for right in NEEDED["operator"] if right.name and right.verb == "update")
    asked: Any = review("keyturn-operator", "shop", named)["spec"]
    assert asked["resourceAttributes"]["name"] == "keyturn-operator"
    assert str(named) == "update leases.coordination.k8s.io/keyturn-operator"


def test_a_review_asks_for_the_account_as_the_api_server_knows_it() -> None:
    asked: Any = review("keyturn-api", "shop", Right("keyturn.dev", "clientcredentials/status", "patch"))["spec"]
    assert asked["user"] == "system:serviceaccount:shop:keyturn-api"
    assert asked["resourceAttributes"] == {
        "namespace": "shop",
        "group": "keyturn.dev",
        "resource": "clientcredentials",
        "subresource": "status",
        "verb": "patch",
    }


@pytest.mark.parametrize(
    ("theirs", "offset"),
    [
        pytest.param(100.0, 0.0, id="the same second"),
        pytest.param(99.6, 0.0, id="cut to whole seconds"),
        pytest.param(90.0, -9.4, id="behind"),
        pytest.param(111.0, 10.0, id="ahead"),
    ],
)
def test_a_clock_is_compared_as_far_as_its_whole_seconds_allow(theirs: float, offset: float) -> None:
    assert _offset(theirs, 100.4, 101.0) == pytest.approx(offset)


def test_the_gateway_is_tried_on_a_path_that_needs_a_permission() -> None:
    rule = {
        "spec": {
            "hosts": ["shop.example"],
            "routes": [{"path": "/p", "public": True}, {"path": "/o r", "permissions": {"anyOf": ["x"]}}],
        }
    }
    assert protected([rule]) == ("/o%20r", "shop.example", "x")
    posted = {"spec": {"routes": [{"path": "/p", "methods": ["POST"], "permissions": {"anyOf": ["x"]}}]}}
    audited = {"spec": {**rule["spec"], "mode": "Audit"}}
    assert protected([posted, audited, rule])[0] == "/o%20r"
    assert protected([])[0].startswith("/keyturn-doctor-")
