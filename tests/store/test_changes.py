"""What a reader sees that follows the store."""

import asyncio
import shutil
from pathlib import Path

import pytest

from keyturn.records import Kind, Revocation, StoredRecord
from keyturn.store.factory import open_store
from keyturn.store.interface import Position, Store
from keyturn.store.memory import MemoryStore

from .conftest import Backend
from .samples import NOW, client, rule


async def test_a_reader_without_a_position_gets_all_that_lives(store: Store) -> None:
    await store.put(client("a"), epoch=0)
    await store.put(client("b"), epoch=0)
    await store.remove(Kind.CLIENT, "uid-a", epoch=0)
    changes = await store.changes(None)
    assert changes.reset
    assert changes.records == (StoredRecord(client("b"), 2),)
    assert changes.position.revision == 3


async def test_a_reader_gets_what_came_after_its_position_in_order(store: Store) -> None:
    await store.put(client("a"), epoch=0)
    position = (await store.changes(None)).position
    await store.put(client("b"), epoch=0)
    await store.put(rule("r"), epoch=0)
    await store.remove(Kind.CLIENT, "uid-a", epoch=0)
    await store.put(client("b", generation=2), epoch=0)
    changes = await store.changes(position)
    assert not changes.reset
    seen = [(row.record.name, row.revision, row.deleted, row.record.generation) for row in changes.records]
    assert seen == [("r", 3, False, 1), ("a", 4, True, 1), ("b", 5, False, 2)]
    assert changes.records[1].record.body == {}
    assert changes.records[1].record.client_id == "shop.a"


async def test_a_reader_that_is_up_to_date_gets_nothing(store: Store) -> None:
    await store.put(client("a"), epoch=0)
    first = await store.changes(None)
    again = await store.changes(first.position)
    assert (again.position, again.born_at, again.records, again.revocations, again.reset) == (
        first.position,
        first.born_at,
        (),
        (),
        False,
    )


async def test_a_new_store_has_a_position_of_its_own(store: Store) -> None:
    first = await store.changes(None)
    assert first.position.revision == 0
    assert not (await store.changes(first.position)).reset
    await store.put(client("a"), epoch=0)
    assert not (await store.changes(first.position)).reset


@pytest.mark.parametrize(
    "changed",
    [
        {"tag": "0123456789abcdef"},
        {"store_id": "another"},
        {"revision": 3, "tag": "0123456789abcdef"},
        {"revision": -1},
        {"revision": 1},
    ],
    ids=["tag", "store", "revision that is still to come", "revision below all", "revision with another's tag"],
)
async def test_a_reader_resets_whose_position_has_an_unknown(store: Store, changed: dict[str, object]) -> None:
    await store.put(client("a"), epoch=0)
    await store.put(client("b"), epoch=0)
    position = (await store.changes(None)).position
    values = {"revision": position.revision, "tag": position.tag, "store_id": position.store_id, **changed}
    changes = await store.changes(Position(**values))  # type: ignore[arg-type]
    assert changes.reset
    assert len(changes.records) == 2


async def test_a_reader_resets_after_an_older_copy_of_the_database_was_put_back(tmp_path: Path) -> None:
    path, copy = tmp_path / "keyturn.db", tmp_path / "copy.db"
    url = f"sqlite://{path}"
    writer, reader = open_store(url), open_store(url)
    await writer.put(client("a"), epoch=0)
    await writer.close()
    shutil.copy(path, copy)
    await writer.open()
    await writer.put(client("b"), epoch=0)
    await writer.put(client("c"), epoch=0)
    position = (await reader.changes(None)).position
    await writer.close()

    for journal in tmp_path.glob("keyturn.db-*"):
        journal.unlink()
    copy.replace(path)
    behind = await reader.changes(position)
    assert behind.reset
    assert [row.record.name for row in behind.records] == ["a"]
    assert behind.position.store_id == position.store_id
    # The numbers are reached again, by other changes.
    for name in ("d", "e"):
        await writer.put(client(name), epoch=0)
    again = await reader.changes(position)
    assert again.position.revision == position.revision
    assert again.reset
    assert [row.record.name for row in again.records] == ["a", "d", "e"]
    await writer.close()
    await reader.close()


async def test_a_reader_resets_when_the_store_was_lost() -> None:
    store = MemoryStore()
    await store.put(client("a"), epoch=0)
    position = (await store.changes(None)).position
    store.lose_everything()
    changes = await store.changes(position)
    assert (changes.reset, changes.records, changes.position.revision) == (True, (), 0)


async def test_a_database_file_that_is_lost_is_made_anew(tmp_path: Path) -> None:
    store = open_store(f"sqlite://{tmp_path}/keyturn.db")
    await store.put(client("a"), epoch=0)
    before = await store.changes(None)
    for file in tmp_path.glob("keyturn.db*"):
        file.unlink()
    after = await store.changes(before.position)
    assert after.reset
    assert after.records == ()
    assert after.position.store_id != before.position.store_id
    assert after.born_at >= before.born_at
    await store.close()


async def test_writers_at_once_get_consecutive_revisions_and_a_reader_misses_none(
    store: Store, other: Store, backend: Backend
) -> None:
    reader = backend.connect()
    position = (await reader.changes(None)).position
    seen: list[int] = []
    done = asyncio.Event()

    async def follow() -> None:
        nonlocal position
        while True:
            last = done.is_set()
            changes = await reader.changes(position)
            assert not changes.reset
            assert all(position.revision < row.revision <= changes.position.revision for row in changes.records)
            seen.extend(row.revision for row in changes.records)
            position = changes.position
            if last:
                return
            await asyncio.sleep(0)

    following = asyncio.create_task(follow())
    writers = [store, other]
    written = await asyncio.gather(*(writers[i % 2].put(client(f"c{i}"), epoch=0) for i in range(50)))
    done.set()
    await following
    assert sorted(w.revision for w in written) == list(range(1, 51))  # type: ignore[union-attr]
    assert seen == list(range(1, 51))
    await reader.close()


async def test_a_revocation_takes_a_revision_and_reaches_the_reader(store: Store) -> None:
    position = (await store.changes(None)).position
    await store.revoke([Revocation("h2", NOW + 2), Revocation("h1", NOW + 1)])
    changes = await store.changes(position)
    assert changes.position.revision == 1
    assert changes.revocations == (Revocation("h1", NOW + 1, 1), Revocation("h2", NOW + 2, 1))
    assert (await store.changes(None)).revocations == changes.revocations


async def test_a_revocation_that_is_there_already_stays_as_it_is(store: Store) -> None:
    await store.revoke([Revocation("h1", NOW), Revocation("h1", NOW + 9)])
    await store.revoke([Revocation("h1", NOW + 5)])
    await store.revoke([])
    assert (await store.changes(None)).position.revision == 1
    await store.revoke([Revocation("h1", NOW + 5), Revocation("h3", NOW)])
    changes = await store.changes(None)
    assert changes.revocations == (Revocation("h1", NOW, 1), Revocation("h3", NOW, 2))


async def test_a_change_of_the_same_object_by_two_stores_leaves_the_last(store: Store, other: Store) -> None:
    await store.put(client("a", generation=1), epoch=0)
    await other.put(client("a", generation=2), epoch=0)
    assert (await store.changes(None)).records == (StoredRecord(client("a", generation=2), 2),)
