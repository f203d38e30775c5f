import asyncio
import contextlib
import dataclasses
from typing import Any

import pytest

from keyturn.records import Kind
from keyturn.rules.state import RuleState
from keyturn_operator.kube.client import Object
from keyturn_operator.queue import Done
from keyturn_operator.rules import Conflicts, RuleReconciler
from keyturn_operator.settings import PAUSED_ANNOTATION
from tests.unit.operator.fakes import Stage, key

ORDERS = {"path": "/orders", "methods": ["GET"], "permissions": {"anyOf": ["orders:read"]}}
OPEN = {"path": "/orders", "methods": ["GET"], "public": True}


class Rules(Stage):
    reconciler: RuleReconciler
    conflicts: Conflicts

    async def apply(self, name: str, *routes: Any, **metadata: Any) -> Done:
        obj = self.kube.put(Kind.ACCESS_RULE, name, {"routes": list(routes)}, **metadata)
        return await self.reconciler.reconcile(key(Kind.ACCESS_RULE, name), obj)

    async def settle(self) -> None:
        """Computes the contradictions and reconciles what that queues."""
        self.queued.clear()
        await self.conflicts.compute()
        for one in list(self.queued):
            await self.reconciler.reconcile(one, self.object(one.name))

    def object(self, name: str) -> Object:
        return next(obj for path, obj in self.kube.objects.items() if path.endswith(f"accessrules/{name}"))

    def conflicting(self, name: str) -> tuple[str, str] | None:
        for one in self.object(name)["status"]["conditions"]:
            if one["type"] == "Conflicting":
                return one["status"], one["message"]
        return None

    async def state(self, name: str) -> RuleState:
        row = await self.store.get(Kind.ACCESS_RULE, f"uid-{name}")
        assert row is not None
        return RuleState.from_body(row.record.body)


@pytest.fixture
async def stage() -> Rules:
    made = await Rules.make()
    assert isinstance(made, Rules)
    made.conflicts = Conflicts(made.context.enqueue)
    made.reconciler = RuleReconciler(made.context, made.conflicts)
    return made


async def test_a_rule_becomes_a_row_and_ready(stage: Rules) -> None:
    await stage.apply("one", ORDERS)
    await stage.settle()
    assert stage.ready(Kind.ACCESS_RULE, "one")[:2] == ("True", "Accepted")
    assert stage.object("one")["status"]["routes"] == 1
    assert [route.path for route in (await stage.state("one")).routes] == ["/orders"]
    conflicting = stage.conflicting("one")
    assert conflicting is not None
    assert conflicting[0] == "False"


async def test_two_rules_that_contradict_each_other_are_both_marked(stage: Rules) -> None:
    await stage.apply("one", ORDERS)
    await stage.settle()
    await stage.apply("two", OPEN)
    await stage.settle()
    for name, other in (("one", "shop/two"), ("two", "shop/one")):
        conflicting = stage.conflicting(name)
        assert conflicting is not None
        assert conflicting[0] == "True"
        assert other in conflicting[1]
        assert "GET /orders" in conflicting[1]


async def test_the_mark_goes_from_both_when_one_is_deleted(stage: Rules) -> None:
    await stage.apply("one", ORDERS)
    await stage.apply("two", OPEN)
    await stage.settle()
    await stage.reconciler.gone(key(Kind.ACCESS_RULE, "two"), {"uid-two"})
    await stage.settle()
    conflicting = stage.conflicting("one")
    assert conflicting is not None
    assert conflicting[0] == "False"


async def test_only_rules_whose_contradictions_have_changed_are_queued(stage: Rules) -> None:
    await stage.apply("one", ORDERS)
    await stage.apply("apart", {"path": "/apart", "public": True})
    await stage.settle()
    await stage.apply("two", OPEN)
    stage.queued.clear()
    await stage.conflicts.compute()
    assert set(stage.queued) == {key(Kind.ACCESS_RULE, "one"), key(Kind.ACCESS_RULE, "two")}


async def test_a_change_is_computed_by_itself(stage: Rules) -> None:
    task = asyncio.create_task(stage.conflicts.run())
    await stage.apply("one", ORDERS)
    await stage.apply("two", OPEN)
    async with asyncio.timeout(5):
        while not stage.queued:  # noqa: ASYNC110 - the queue of these tests is a plain list
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_the_place_of_an_expression_s_error_is_named(stage: Rules) -> None:
    await stage.apply("one", {"path": "/x", "expression": "1 +"})
    status, reason, message = stage.ready(Kind.ACCESS_RULE, "one")
    assert (status, reason) == ("False", "InvalidExpression")
    assert "spec.routes[0].expression" in message
    assert "column" in message
    (route,) = (await stage.state("one")).routes
    assert route.main.deny is not None


PAUSED = {"annotations": {PAUSED_ANNOTATION: "true"}}


async def test_while_paused_a_new_route_waits_and_an_absent_one_is_withdrawn(stage: Rules) -> None:
    await stage.apply("one", ORDERS, {"path": "/health", "public": True})
    await stage.apply("one", ORDERS, {"path": "/new", "public": True}, **PAUSED)
    state = await stage.state("one")
    open_paths = [route.path for route in state.routes if route.main.deny is None]
    assert open_paths == ["/orders"]
    assert stage.ready(Kind.ACCESS_RULE, "one")[:2] == ("False", "Paused")


async def test_while_paused_a_stricter_condition_holds_and_a_laxer_one_does_not(stage: Rules) -> None:
    await stage.apply("one", ORDERS)
    await stage.apply("one", OPEN, **PAUSED)
    assert not (await stage.state("one")).routes[0].main.open
    await stage.apply("two", OPEN)
    await stage.apply("two", ORDERS, **PAUSED)
    assert not (await stage.state("two")).routes[0].main.open


async def test_while_paused_a_mistake_is_named_as_its_author_counts(stage: Rules) -> None:
    await stage.apply("one", ORDERS)
    await stage.apply("one", ORDERS, {"path": "/x", "expression": "1 +"}, **PAUSED)
    assert "spec.routes[1].expression" in stage.ready(Kind.ACCESS_RULE, "one")[2]


async def test_a_damaged_row_is_no_last_valid_state(stage: Rules) -> None:
    await stage.apply("one", ORDERS)
    row = await stage.store.get(Kind.ACCESS_RULE, "uid-one")
    assert row is not None
    await stage.store.put(dataclasses.replace(row.record, body={"routes": [{"nothing": 1}]}), epoch=1)
    await stage.apply("one", ORDERS)
    assert [route.path for route in (await stage.state("one")).routes] == ["/orders"]
