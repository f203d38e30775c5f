import asyncio
import contextlib
import dataclasses

import pytest

from keyturn.clients.state import ClientState
from keyturn.records import Kind, Record, StoredRecord
from keyturn.store.interface import StoreUnavailable
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import Forbidden, Gone, KubeUnavailable
from keyturn_operator.queue import Key, Priority
from keyturn_operator.rows import Known, digest
from keyturn_operator.settings import API_VERSION, PLURALS
from keyturn_operator.sweep import Listed, Plan, Sweeper, plan
from tests.unit.operator.fakes import NAMESPACE, NOW, Stage, key

A = key(Kind.CLIENT, "a")
RULES = collection(API_VERSION, PLURALS[Kind.ACCESS_RULE], NAMESPACE)


def record(name: str = "a", *, uid: str | None = None, generation: int = 1, namespace: str = NAMESPACE) -> Record:
    client_id = f"{namespace}.{name}"
    body = ClientState(client_id, NOW - 100, permissions=("p",)).to_body()
    return Record(Kind.CLIENT, uid or f"uid-{name}", namespace, name, generation, NOW - 100, body, client_id)


def decided(
    rows: list[Record],
    listed: dict[Key, Listed],
    *,
    known: dict[Key, Known] | None = None,
    complete: bool = True,
    first: bool = False,
) -> Plan:
    stored = [StoredRecord(one, 1) for one in rows]
    return plan(stored, listed, (known or {}).get, watched=[NAMESPACE], complete=complete, first=first)


def test_a_row_whose_object_is_not_listed_is_suspected() -> None:
    assert decided([record()], {}).suspects == [record()]


def test_an_incomplete_list_removes_nothing() -> None:
    assert decided([record()], {}, complete=False).suspects == []


def test_an_object_made_anew_under_the_name_is_queued_and_the_old_row_suspected() -> None:
    result = decided([record()], {A: Listed("uid-new", 1)})
    assert result.suspects == [record()]
    assert A in result.queue


def test_an_object_without_a_row_is_queued() -> None:
    assert A in decided([], {A: Listed("uid-a", 1)}).queue


@pytest.mark.parametrize(
    ("listed", "known", "queued"),
    [
        pytest.param(Listed("uid-a", 1), Known("uid-a", 1, digest(record())), False, id="as it was written"),
        pytest.param(Listed("uid-a", 2), Known("uid-a", 1, digest(record())), True, id="another generation"),
        pytest.param(Listed("uid-a", 1, deleting=True), Known("uid-a", 1, digest(record())), True, id="being deleted"),
        pytest.param(
            Listed("uid-a", 1), Known("uid-a", 1, digest(dataclasses.replace(record(), body={}))), True, id="drifted"
        ),
        pytest.param(Listed("uid-a", 1), Known("uid-a", 1, None), True, id="never reconciled by this process"),
        pytest.param(Listed("uid-a", 1), None, True, id="unknown"),
    ],
)
def test_only_what_differs_is_queued(listed: Listed, known: Known | None, queued: bool) -> None:
    result = decided([record()], {A: listed}, known={A: known} if known else {})
    assert (A in result.queue) is queued
    assert result.suspects == []


def test_after_a_takeover_changed_objects_go_first_and_every_object_is_looked_at() -> None:
    changed, same, new = key(Kind.CLIENT, "changed"), key(Kind.CLIENT, "same"), key(Kind.CLIENT, "new")
    listed = {changed: Listed("uid-changed", 2), same: Listed("uid-same", 1), new: Listed("uid-new", 1)}
    result = decided([record("changed"), record("same")], listed, first=True)
    assert result.queue == {changed: Priority.RESTRICTION, new: Priority.CHANGE, same: Priority.RESYNC}


def test_a_row_of_a_namespace_that_is_not_watched_any_more_goes_without_being_read() -> None:
    foreign = record(namespace="elsewhere")
    result = decided([foreign], {})
    assert result.unwatched == [foreign]
    assert result.suspects == []


class Swept:
    def __init__(self, stage: Stage) -> None:
        self.deleted: list[tuple[Key, str]] = []
        self.ended: list[bool] = []
        self.sweeper = Sweeper(
            stage.context,
            deleted=lambda one, uid: self.deleted.append((one, uid)),
            swept=lambda: self.ended.append(True),
            found=lambda _rows: None,
        )


async def test_a_deletion_that_no_event_told_of_is_found() -> None:
    stage = await Stage.make()
    await stage.store.put(record(), epoch=1)
    swept = Swept(stage)
    assert await swept.sweeper.sweep()
    assert swept.deleted == [(A, "uid-a")]


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(Forbidden("GET", 403), id="a right is missing"),
        pytest.param(Gone("GET", 410), id="the list breaks off"),
        pytest.param(KubeUnavailable("GET"), id="the API server does not answer"),
    ],
)
async def test_a_kind_that_cannot_be_listed_removes_nothing_of_any_kind(failure: Exception) -> None:
    stage = await Stage.make()
    await stage.store.put(record(), epoch=1)
    stage.kube.failures[("list", RULES)] = failure
    stage.kube.put(Kind.CLIENT, "new", {})
    swept = Swept(stage)
    assert not await swept.sweeper.sweep()
    assert swept.deleted == []
    assert key(Kind.CLIENT, "new") in stage.queued, "what can be done is done"


async def test_a_namespace_whose_rights_are_gone_keeps_its_rows_and_no_other_waits_for_it() -> None:
    stage = await Stage.make(namespaces=(NAMESPACE, "lost"))
    await stage.store.put(record(), epoch=1)
    await stage.store.put(record("b", namespace="lost"), epoch=1)
    for plural in PLURALS.values():
        stage.kube.failures[("list", collection(API_VERSION, plural, "lost"))] = Forbidden("GET", 403)
    swept = Swept(stage)
    assert await swept.sweeper.sweep(), "a restart would bring no right back"
    assert swept.deleted == [(A, "uid-a")]
    assert swept.sweeper.refused == {"lost"}


@pytest.mark.parametrize(
    ("failure", "counts"),
    [
        pytest.param(StoreUnavailable("away"), True, id="the store is away"),
        pytest.param(KubeUnavailable("GET"), False, id="the API server is away"),
    ],
)
async def test_liveness_is_held_against_the_operator_where_a_restart_may_help(failure: Exception, counts: bool) -> None:
    stage = await Stage.make()
    swept = Swept(stage)

    async def fail() -> bool:
        raise failure

    swept.sweeper.sweep = fail  # type: ignore[method-assign]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(swept.sweeper.run(), timeout=0.05)
    assert bool(swept.ended) is counts


async def test_an_object_that_is_there_after_all_keeps_its_row() -> None:
    stage = await Stage.make()
    await stage.store.put(record(), epoch=1)
    stage.kube.put(Kind.CLIENT, "a", {})
    swept = Swept(stage)

    async def empty(path: str, *, field_selector: str = "") -> tuple[list[Object], str]:
        return [], "1"

    stage.kube.list_metadata = empty  # type: ignore[method-assign]
    assert await swept.sweeper.sweep()
    assert swept.deleted == []


async def test_an_object_that_cannot_be_read_keeps_its_row() -> None:
    stage = await Stage.make()
    await stage.store.put(record(), epoch=1)
    stage.kube.failures[("get", f"{collection(API_VERSION, PLURALS[Kind.CLIENT], NAMESPACE)}/a")] = Forbidden(
        "GET", 403
    )
    swept = Swept(stage)
    await swept.sweeper.sweep()
    assert swept.deleted == []


async def test_the_store_is_read_before_the_lists() -> None:
    stage = await Stage.make()
    order: list[str] = []
    live, listing = stage.store.live, stage.kube.list_metadata

    async def watched_live(kind: Kind | None = None) -> list[StoredRecord]:
        order.append("store")
        return await live(kind)

    async def watched_list(path: str, *, field_selector: str = "") -> tuple[list[Object], str]:
        order.append("list")
        return await listing(path)

    stage.store.live = watched_live  # type: ignore[method-assign]
    stage.kube.list_metadata = watched_list  # type: ignore[method-assign]
    await Swept(stage).sweeper.sweep()
    assert order[0] == "store"
    assert order.count("list") == 3
