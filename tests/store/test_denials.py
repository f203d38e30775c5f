"""Why requests were denied: any process finds what another one wrote, for a while."""

import time

import pytest

from keyturn.records import Denial
from keyturn.store import retention
from keyturn.store.interface import Store

NOW = time.time()


def denial(request_id: str = "a", at: float = NOW, **body: object) -> Denial:
    return Denial(request_id, at, {"reason": "MissingPermission", **body})


async def test_what_one_process_writes_another_finds_by_its_id(store: Store, other: Store) -> None:
    await store.record_denials([denial("a", path="/x"), denial("b")])
    assert await other.denials("a") == [denial("a", path="/x")]
    assert await other.denials("c") == []


async def test_of_one_id_there_may_be_several_and_the_newest_come_first(store: Store) -> None:
    many = [denial("a", NOW + number) for number in range(retention.DENIALS_OF_ONE_ID + 5)]
    await store.record_denials(many)
    assert await store.denials("a") == many[: -retention.DENIALS_OF_ONE_ID - 1 : -1]


async def test_what_is_there_already_stays_as_it_is(store: Store) -> None:
    await store.record_denials([denial(path="/x")])
    await store.record_denials([denial(path="/y"), denial(path="/z")])
    assert await store.denials("a") == [denial(path="/x")]
    await store.record_denials([])


async def test_what_is_older_than_an_hour_is_forgotten(store: Store) -> None:
    await store.record_denials([denial("old", NOW - retention.DENIAL_SECONDS - 1), denial("young")])
    assert await store.trim_denials(now=NOW) == 1
    assert await store.denials("old") == []
    assert await store.denials("young") == [denial("young")]


async def test_beyond_the_bound_the_oldest_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_DENIALS", 3)
    monkeypatch.setattr(retention, "PRUNE_STEP", 2)
    await store.record_denials([denial(str(number), NOW + number) for number in range(8)])
    assert await store.trim_denials(now=NOW + 10) == 5
    assert [bool(await store.denials(str(number))) for number in range(8)] == [False] * 5 + [True] * 3


async def test_denials_take_no_revision(store: Store) -> None:
    before = (await store.changes(None)).position
    await store.record_denials([denial()])
    assert (await store.changes(None)).position == before
