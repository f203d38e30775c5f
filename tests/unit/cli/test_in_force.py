"""What a spec says is not always in force: the operator has refused it, has not seen it yet, or another namespace counts as well."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn_cli.in_force import NOT_YET, is_applied, permissions_in_force, unready, unseen

CLIENT_ID = "shop.billing"


def told(status: str, reason: str = "", generation: int = 2) -> list[dict[str, Any]]:
    return [{"type": "Ready", "status": status, "reason": reason, "observedGeneration": generation}]


def client(**status: Any) -> dict[str, Any]:
    return {"metadata": {"generation": 2}, "spec": {"permissions": ["orders:read", 7]}, "status": status}


@pytest.mark.parametrize(
    ("obj", "why", "applied", "permissions"),
    [
        pytest.param(
            client(clientId=CLIENT_ID, permissions=1, conditions=told("True", "Accepted")),
            "",
            True,
            ("orders:read",),
            id="ready",
        ),
        pytest.param(
            client(permissions=1, conditions=told("False", "ClientIdTaken")),
            "ClientIdTaken",
            False,
            (),
            id="its client id is another's",
        ),
        pytest.param(
            client(clientId=CLIENT_ID, permissions=0, conditions=told("False", "InvalidKey")),
            "InvalidKey",
            True,
            (),
            id="a mistake from the beginning",
        ),
        pytest.param(
            client(clientId=CLIENT_ID, permissions=1, conditions=told("False", "InvalidKey")),
            "InvalidKey",
            True,
            ("orders:read",),
            id="a mistake in an edit",
        ),
        pytest.param(
            client(clientId=CLIENT_ID, permissions=0, conditions=told("True", "Accepted", 1)),
            NOT_YET,
            True,
            ("orders:read",),
            id="edited since the operator looked",
        ),
        pytest.param(client(), NOT_YET, False, (), id="never looked at"),
        pytest.param({"status": None, "spec": None, "metadata": None}, NOT_YET, False, (), id="malformed"),
        pytest.param(
            client(clientId=CLIENT_ID, conditions=["x", {}, *told("Unknown", "Propagating")]),
            "Propagating",
            True,
            ("orders:read",),
            id="on its way",
        ),
    ],
)
def test_a_status_tells_what_is_in_force(
    obj: dict[str, Any], why: str, applied: bool, permissions: tuple[str, ...]
) -> None:
    assert (unready(obj), is_applied(obj), permissions_in_force(obj)) == (why, applied, permissions)


@pytest.mark.parametrize(
    ("watched", "said"),
    [
        pytest.param(("shop",), "", id="this one alone"),
        pytest.param(None, "If the installation watches others, theirs count as well.", id="not known"),
        pytest.param(("*",), "watches all namespaces", id="all"),
        pytest.param(("shop", "team-b", "team-a"), "also watches team-a, team-b:", id="a list"),
        pytest.param(tuple(f"n{number:02}" for number in range(30)), "n09 and 20 more:", id="a long list"),
    ],
)
def test_other_namespaces_that_count_are_named(watched: tuple[str, ...] | None, said: str) -> None:
    text = unseen("shop", watched)
    assert (said in text) if said else text == ""
