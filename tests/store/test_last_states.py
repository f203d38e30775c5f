"""What was in force last under a name is known for longer than its object."""

import time
from dataclasses import replace

import pytest

from keyturn.records import Kind, LastState, Record
from keyturn.store.interface import Fenced, Store

from .conftest import Backend
from .samples import DAY, client, rule, signing_key

ONE = signing_key("one")


def last(record: Record) -> LastState:
    return LastState(record.kind, record.namespace, record.name, record.body)


async def test_the_last_state_outlives_its_object_and_all_pruning(store: Store) -> None:
    await store.put(ONE, epoch=0)
    await store.remove(ONE.kind, ONE.uid, epoch=0)
    await store.put(client("a"), epoch=0)
    await store.prune(now=time.time() + 1_000 * DAY, epoch=0)
    assert await store.get(ONE.kind, ONE.uid) is None
    assert await store.last_states(Kind.SIGNING_KEY) == [last(ONE)]


async def test_each_name_has_the_state_that_was_written_last_whichever_uid_it_had(store: Store) -> None:
    anew, other = replace(ONE, uid="anew", body={"serial": 8}), signing_key("other")
    for record in (other, ONE, anew):
        await store.put(record, epoch=0)
    assert await store.last_states(Kind.SIGNING_KEY) == [last(anew), last(other)]


async def test_an_equal_write_changes_no_last_state(store: Store) -> None:
    await store.put(ONE, epoch=0)
    await store.put(replace(ONE, body=dict(reversed(list(ONE.body.items())))), epoch=0)
    assert await store.last_states(Kind.SIGNING_KEY) == [last(ONE)]


async def test_a_write_that_is_refused_leaves_the_last_state(store: Store) -> None:
    await store.put(ONE, epoch=2)
    with pytest.raises(Fenced):
        await store.put(replace(ONE, body={"serial": 9}), epoch=1)
    assert await store.last_states(Kind.SIGNING_KEY) == [last(ONE)]


@pytest.mark.parametrize("record", [client("a"), rule("a")], ids=["client", "rule"])
async def test_other_kinds_leave_nothing_behind(store: Store, record: Record) -> None:
    await store.put(record, epoch=0)
    assert await store.last_states(record.kind) == []


async def test_the_last_state_is_there_for_the_next_process(durable: Backend) -> None:
    store, other = durable.connect(), durable.connect()
    await store.put(ONE, epoch=0)
    await store.remove(ONE.kind, ONE.uid, epoch=0)
    await store.close()
    assert await other.last_states(Kind.SIGNING_KEY) == [last(ONE)]
    await other.close()
