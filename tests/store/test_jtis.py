"""Single use of assertions."""

import asyncio
import hashlib
import signal
import subprocess
import sys

from keyturn.records import UsedJti
from keyturn.store.interface import Store

from .conftest import Backend
from .samples import NOW


def jti(name: str) -> UsedJti:
    return UsedJti(hashlib.sha256(name.encode()).digest(), NOW)


async def test_a_jti_is_new_once(store: Store, other: Store) -> None:
    assert await store.consume([jti("a")]) == [True]
    assert await store.consume([jti("a")]) == [False]
    assert await other.consume([jti("b"), jti("a")]) == [True, False]
    assert await store.consume([]) == []


async def test_of_two_equal_jtis_in_one_batch_the_first_is_new(store: Store) -> None:
    await store.consume([jti("z")])
    batch = [jti("b"), jti("z"), jti("a"), jti("b"), jti("a")]
    assert await store.consume(batch) == [True, False, True, False, False]


async def test_two_stores_that_consume_the_same_jtis_at_once_share_them(store: Store, other: Store) -> None:
    names = [f"j{i}" for i in range(40)]
    for turn in range(5):
        forth = [jti(f"{turn}{name}") for name in names]
        back = list(reversed(forth))
        one, two, three = await asyncio.gather(store.consume(forth), other.consume(back), store.consume(back))
        for a, b, c in zip(one, reversed(two), reversed(three), strict=True):
            assert [a, b, c].count(True) == 1


async def test_a_jti_takes_no_revision(store: Store) -> None:
    await store.consume([jti("a")])
    assert (await store.changes(None)).position.revision == 0


CONSUME = """
import asyncio, os, signal, sys
from keyturn.records import UsedJti
from keyturn.store.factory import open_store
async def main():
    print(await open_store(sys.argv[1]).consume([UsedJti(b"a", 2e9)]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_jti_that_was_answered_for_outlives_the_process_killed_at_that_moment(durable: Backend) -> None:
    command = [sys.executable, "-c", CONSUME, durable.url]
    killed = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (killed.stdout, killed.returncode) == ("[True]\n", -signal.SIGKILL)
    store = durable.connect()
    assert await store.consume([UsedJti(b"a", NOW)]) == [False]
    await store.close()
