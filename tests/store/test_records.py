"""What the operator's writes leave in the store."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from keyturn.records import Kind, Record, StoredRecord
from keyturn.store.interface import Fenced, Store, Taken, Written

from .samples import NOW, client, rule


async def test_a_record_is_read_back_as_it_was_written(store: Store) -> None:
    record = client(
        "a", body={"text": 'ü\u0000"', "n": [1, 2.5, None, True], "o": {"z": 1, "a": 2}}, created_at=NOW + 0.1
    )
    assert await store.put(record, epoch=0) == Written(1, changed=True)
    assert await store.get(Kind.CLIENT, record.uid) == StoredRecord(record, 1)
    assert await store.owner("shop.a") == StoredRecord(record, 1)
    assert await store.live() == [StoredRecord(record, 1)]


async def test_an_equal_record_takes_no_revision(store: Store) -> None:
    await store.put(client("a", body={"x": 1, "y": 2}), epoch=0)
    await store.put(client("b"), epoch=0)
    assert await store.put(client("a", body={"y": 2, "x": 1}), epoch=0) == Written(1, changed=False)
    assert (await store.changes(None)).position.revision == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"generation": 2},
        {"body": {"permissions": []}},
        {"client_id": "another"},
        {"created_at": NOW + 1},
        {"name": "renamed", "namespace": "elsewhere"},
    ],
    ids=lambda changed: " and ".join(changed),
)
async def test_a_record_that_differs_in_any_field_takes_the_next_revision(
    store: Store, changed: dict[str, Any]
) -> None:
    await store.put(client("a"), epoch=0)
    record = replace(client("a"), **changed)
    assert await store.put(record, epoch=0) == Written(2, changed=True)
    assert await store.live() == [StoredRecord(record, 2)]


async def test_a_body_that_is_no_json_is_refused_and_changes_nothing(store: Store) -> None:
    with pytest.raises(ValueError, match="plain JSON"):
        await store.put(client("a", body={"x": object()}), epoch=0)
    assert (await store.changes(None)).position.revision == 0


async def test_a_removed_record_is_gone_and_removing_it_again_changes_nothing(store: Store) -> None:
    await store.put(client("a"), epoch=0)
    assert await store.remove(Kind.CLIENT, "uid-a", epoch=0) == 2
    assert await store.remove(Kind.CLIENT, "uid-a", epoch=0) is None
    assert await store.get(Kind.CLIENT, "uid-a") is None
    assert await store.owner("shop.a") is None
    assert await store.live() == []
    assert (await store.changes(None)).position.revision == 2


async def test_removing_one_object_never_touches_its_namesake(store: Store) -> None:
    await store.put(client("a", uid="new"), epoch=0)
    assert await store.remove(Kind.CLIENT, "old", epoch=0) is None
    assert await store.remove(Kind.ACCESS_RULE, "new", epoch=0) is None
    assert [row.record.uid for row in await store.live()] == ["new"]


async def test_a_removed_record_can_be_written_again(store: Store) -> None:
    await store.put(client("a"), epoch=0)
    await store.remove(Kind.CLIENT, "uid-a", epoch=0)
    assert await store.put(client("a"), epoch=0) == Written(3, changed=True)
    assert await store.get(Kind.CLIENT, "uid-a") == StoredRecord(client("a"), 3)


async def test_a_record_made_anew_under_its_name_replaces_the_old_whatever_their_age(store: Store) -> None:
    await store.put(client("a", uid="old", created_at=NOW), epoch=0)
    anew = client("a", uid="new", created_at=NOW + 60)
    assert await store.put(anew, epoch=0) == Written(2, changed=True)
    assert await store.live() == [StoredRecord(anew, 2)]


OLDER = client("older", uid="1", client_id="wanted", created_at=NOW)
YOUNGER = client("younger", uid="2", client_id="wanted", created_at=NOW + 1)


async def test_the_older_object_keeps_the_client_id_when_the_younger_comes(store: Store) -> None:
    await store.put(OLDER, epoch=0)
    assert await store.put(YOUNGER, epoch=0) == Taken(OLDER)
    changes = await store.changes(None)
    assert changes.position.revision == 1
    assert changes.records == (StoredRecord(OLDER, 1),)


async def test_the_older_object_takes_the_client_id_when_it_comes_later(store: Store) -> None:
    await store.put(YOUNGER, epoch=0)
    before = await store.changes(None)
    assert await store.put(OLDER, epoch=0) == Written(2, changed=True, displaced=YOUNGER)
    after = await store.changes(before.position)
    assert after.records == (StoredRecord(replace(YOUNGER, body={}), 2, deleted=True), StoredRecord(OLDER, 2))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (client("b", namespace="aa", client_id="x"), client("a", namespace="bb", client_id="x")),
        (client("a", client_id="x"), client("b", client_id="x")),
    ],
    ids=["of the first namespace", "of the first name"],
)
async def test_of_two_objects_of_one_second_the_client_id_is_that(store: Store, first: Record, second: Record) -> None:
    await store.put(second, epoch=0)
    assert await store.put(first, epoch=0) == Written(2, changed=True, displaced=second)
    assert await store.put(second, epoch=0) == Taken(first)


async def test_a_client_id_is_free_again_once_its_owner_is_removed(store: Store) -> None:
    await store.put(OLDER, epoch=0)
    await store.remove(Kind.CLIENT, OLDER.uid, epoch=0)
    assert await store.put(YOUNGER, epoch=0) == Written(3, changed=True)


async def test_kinds_are_told_apart(store: Store) -> None:
    await store.put(client("same", uid="same"), epoch=0)
    await store.put(rule("same", uid="same"), epoch=0)
    assert [row.record.kind for row in await store.live()] == [Kind.CLIENT, Kind.ACCESS_RULE]
    assert [row.record.kind for row in await store.live(Kind.ACCESS_RULE)] == [Kind.ACCESS_RULE]


async def test_epochs_count_up(store: Store, other: Store) -> None:
    assert [await store.next_epoch("a"), await other.next_epoch("b"), await store.next_epoch("a")] == [1, 2, 3]


async def test_epochs_taken_at_once_are_all_different(store: Store, other: Store) -> None:
    taken = await asyncio.gather(*(s.next_epoch("x") for s in (store, other) * 10))
    assert sorted(taken) == list(range(1, 21))


async def test_a_writer_with_a_lower_epoch_changes_nothing(store: Store, other: Store) -> None:
    old = await store.next_epoch("old")
    await store.put(client("a"), epoch=old)
    new = await other.next_epoch("new")
    for record in (client("a"), client("a", generation=2), client("b")):
        with pytest.raises(Fenced):
            await store.put(record, epoch=old)
    for uid in ("uid-a", "uid-none"):
        with pytest.raises(Fenced):
            await store.remove(Kind.CLIENT, uid, epoch=old)
    with pytest.raises(Fenced):
        await store.prune(now=NOW, epoch=old)
    assert await store.live() == [StoredRecord(client("a"), 1)]
    assert await other.put(client("b"), epoch=new) == Written(2, changed=True)


async def test_an_epoch_that_the_store_forgot_is_still_lower_than_the_next(store: Store) -> None:
    await store.put(client("a"), epoch=7)
    assert await store.next_epoch("next") == 8
    with pytest.raises(Fenced):
        await store.put(client("b"), epoch=7)
