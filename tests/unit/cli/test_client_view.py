"""What people see of a client: its state, its keys, what it asked for, who manages it, and which filters take it."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.timestamps import format_rfc3339
from keyturn_cli.client_view import DAY, Comparison, Filter, ago, chosen, managed_by, span, until, view

NOW = 1_900_000_000.0
Obj = dict[str, Any]


def client(
    name: str = "billing", *, labels: Obj | None = None, ready: str = "True", generation: int = 3, **more: Any
) -> Obj:
    status = {
        "clientId": f"shop.{name}",
        "conditions": [
            {"type": "Ready", "status": ready, "reason": "Accepted", "message": "In force.", "observedGeneration": 3},
            *more.pop("conditions", []),
        ],
        **more.pop("status", {}),
    }
    metadata = {
        "name": name,
        "namespace": "shop",
        "generation": generation,
        "creationTimestamp": format_rfc3339(NOW - 100 * DAY),
        "labels": labels or {},
        **more.pop("metadata", {}),
    }
    return {"kind": "ClientCredential", "metadata": metadata, "spec": more, "status": status}


def key(**times: float) -> Obj:
    return {"kid": "k1", "algorithm": "RS256", "size": 2048, "source": "publicKeys"} | {
        name: format_rfc3339(at) for name, at in times.items()
    }


PENDING = {"keyturn.dev/registered": "true", "keyturn.dev/approval": "pending"}
EXPIRING = {"type": "KeysExpiring", "status": "True", "reason": "KeyEndsSoon", "message": "k1 ends soon."}


@pytest.mark.parametrize(
    ("obj", "state"),
    [
        pytest.param(client(), "Ready", id="in force"),
        pytest.param(client(ready="False"), "Accepted", id="the reason where it is not ready"),
        pytest.param(client(generation=4), "Unknown", id="an edit that the operator has not seen"),
        pytest.param(client(suspended=True), "Suspended", id="suspended"),
        pytest.param(client(expiresAt=format_rfc3339(NOW - 1)), "Expired", id="expired"),
        pytest.param(client(labels=PENDING), "Waiting", id="waiting for approval"),
        pytest.param(client(labels=PENDING, permissions=["a"]), "Ready", id="granted something, label not yet renewed"),
        pytest.param(
            {"metadata": {"name": "x"}, "spec": None, "status": {"conditions": "?"}}, "Unknown", id="malformed"
        ),
    ],
)
def test_a_list_shows_one_word(obj: Obj, state: str) -> None:
    assert view(obj).state(NOW) == state


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        pytest.param(Filter(), {"old", "new", "waits", "stopped"}, id="nothing set"),
        pytest.param(Filter(text="SHOP.ol"), {"old"}, id="text in the client id, in any case"),
        pytest.param(Filter(pending=True), {"waits"}, id="waiting"),
        pytest.param(Filter(suspended=True), {"stopped"}, id="suspended"),
        pytest.param(Filter(expiring=True), {"new"}, id="expiring"),
        pytest.param(Filter(unused_for=30 * DAY), {"old", "waits"}, id="unused for 30 days"),
        pytest.param(Filter(unused_for=30 * DAY, pending=True), {"waits"}, id="two at once"),
    ],
)
def test_filters_take_what_fits_all_of_them(wanted: Filter, takes: set[str]) -> None:
    recent = format_rfc3339(NOW - DAY)
    objects = [
        client("old", status={"lastTokenIssuedAt": format_rfc3339(NOW - 31 * DAY)}),
        client("new", status={"lastTokenIssuedAt": recent, "keys": [key(expiresAt=NOW + 3 * DAY)]}),
        client("waits", labels=PENDING),
        client("stopped", suspended=True, status={"lastTokenIssuedAt": recent, "keys": [key(expiresAt=NOW - DAY)]}),
    ]
    found = [one.name for _, one in chosen(objects, wanted, NOW)]
    assert set(found) == takes
    assert found == sorted(found)


def test_the_operators_warning_counts_as_expiring_too() -> None:
    assert view(client(conditions=[EXPIRING])).is_expiring(NOW)
    assert not view(client(conditions=[{**EXPIRING, "status": "False"}])).is_expiring(NOW)


def test_a_client_of_yesterday_is_not_unused_for_thirty_days() -> None:
    young = client(metadata={"creationTimestamp": format_rfc3339(NOW - DAY)})
    assert not view(young).is_unused(NOW, 30 * DAY)


def test_the_last_use_is_the_latest_of_tokens_and_keys_and_the_next_expiry_the_first_end() -> None:
    shown = view(
        client(
            status={
                "keys": [key(lastUsedAt=NOW - 10, expiresAt=NOW + 50)],
                "lastTokenIssuedAt": format_rfc3339(NOW - 5),
            },
            expiresAt=format_rfc3339(NOW + 20),
        )
    )
    assert (shown.last_use(), shown.next_expiry()) == (NOW - 5, NOW + 20)
    assert shown.credentials[0].size == 2048


def test_what_was_asked_for_stands_beside_what_is_granted() -> None:
    registration = {"requested": {"permissions": ["a", "b"]}}
    both = view(client(permissions=["b", "c"], registration=registration)).permissions
    assert both == Comparison(granted=("b", "c"), asked=("a", "b"))
    assert (both.missing, both.beyond) == (("a",), ("c",))


@pytest.mark.parametrize(
    ("metadata", "tool"),
    [
        pytest.param(
            {"annotations": {"argocd.argoproj.io/tracking-id": "shop:x"}}, "Argo CD", id="Argo CD's annotation"
        ),
        pytest.param({"labels": {"argocd.argoproj.io/instance": "shop"}}, "Argo CD", id="Argo CD's label"),
        pytest.param({"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}, "Flux", id="Flux's kustomization"),
        pytest.param({"labels": {"helm.toolkit.fluxcd.io/name": "shop"}}, "Flux", id="Flux's Helm release"),
        pytest.param({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "Helm", id="Helm's label"),
        pytest.param({"managedFields": [{"manager": "argocd-controller"}]}, "Argo CD", id="a field manager"),
        pytest.param({"managedFields": [{"manager": "kubectl-edit"}]}, None, id="a person"),
        pytest.param({"labels": {"app.kubernetes.io/managed-by": "team-a"}}, None, id="another value of Helm's label"),
        pytest.param({}, None, id="no mark"),
    ],
)
def test_the_tool_that_manages_an_object_is_known_by_its_marks(metadata: Obj, tool: str | None) -> None:
    assert managed_by({"metadata": metadata}) == tool


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (-3, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (7200, "2h"),
        (172_799, "47h"),
        (172_800, "2d"),
    ],
)
def test_a_length_of_time_is_written_as_kubectl_writes_it(seconds: float, written: str) -> None:
    assert span(seconds) == written


def test_times_before_and_after_now() -> None:
    assert (ago(None, NOW), ago(NOW - 300, NOW)) == ("never", "5m")
    assert (until(None, NOW), until(NOW + 300, NOW), until(NOW - 300, NOW)) == ("-", "in 5m", "5m ago")
