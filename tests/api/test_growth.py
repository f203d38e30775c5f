"""Token requests without end: what they leave in the store is forgotten, and forgetting holds up none of them."""

import asyncio
import time

import pytest
from sqlalchemy import func, select

from keyturn.store import schema
from keyturn.store.sql import SqlStore
from tests.api.conftest import OTHER_KEYS
from tests.api.installation import Installation, assertion, form
from tests.api.test_replicas import client

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUNDS = 3
REQUESTS = 160
AT_ONCE = 16
SLOWEST = 5.0


async def rows(installation: Installation) -> dict[str, int]:
    """How many rows each table holds."""
    assert isinstance(installation.store, SqlStore)
    async with installation.store._engine.connect() as connection:
        return {
            table.name: int(await connection.scalar(select(func.count()).select_from(table)) or 0)
            for table in schema.metadata.sorted_tables
        }


async def test_the_store_does_not_grow_with_the_number_of_token_requests(on_each_engine: Installation) -> None:
    installation = on_each_engine
    # Each round forgets what the last one left, as the operator does when these assertions have expired.
    later = time.time() + 7200
    slowest = 0.0
    most = 0
    async with client(await installation.start().ready()) as http:
        before = await rows(installation)

        async def requests(number: int) -> None:
            nonlocal slowest
            for _ in range(number):
                began = time.monotonic()
                answer = await http.post("/oauth/token", data=form(assertion(OTHER_KEYS["ES256"], "team.es256")))
                slowest = max(slowest, time.monotonic() - began)
                assert answer.status_code == 200, answer.text

        for _ in range(ROUNDS):
            load = asyncio.gather(*(requests(REQUESTS // AT_ONCE) for _ in range(AT_ONCE)))
            while not load.done():
                most = max(most, (await rows(installation))[schema.used_jtis.name])
                await installation.store.prune(now=later, epoch=installation.epoch)
                await asyncio.sleep(0.05)
            await load
        await installation.store.prune(now=later, epoch=installation.epoch)
        after = await rows(installation)
    assert after[schema.used_jtis.name] == 0
    # One use of a client and its key is remembered an hour; replicas that the forgetting "from later" took away write themselves anew.
    grown = {name: count - before[name] for name, count in after.items() if count > before[name]}
    assert set(grown) <= {schema.activity.name, schema.replicas.name}
    assert max(grown.values(), default=0) <= 2
    assert most < ROUNDS * REQUESTS / 2, "nothing was forgotten beside the load"
    assert slowest < SLOWEST, "a request waited for the forgetting"
