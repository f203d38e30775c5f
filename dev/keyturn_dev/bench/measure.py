"""The measurements: what is started, what is sent, and what is read off."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from typing import TYPE_CHECKING, Protocol

from keyturn_dev.bench import accounting, world
from keyturn_dev.bench.api import running_api
from keyturn_dev.bench.database import database
from keyturn_dev.bench.figures import Goal, Row, Run
from keyturn_dev.bench.generator import send
from keyturn_dev.bench.options import STORE_WORKS
from keyturn_dev.bench.wire import write_requests
from keyturn_dev.errors import DevError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from keyturn_dev.bench.accounting import Usage
    from keyturn_dev.bench.api import Api
    from keyturn_dev.bench.baseline import Baseline
    from keyturn_dev.bench.generator import Load
    from keyturn_dev.bench.options import Options
    from keyturn_dev.bench.world import World
    from keyturn_dev.progress import Progress

# What a token costs is mostly signatures, so its goal is a multiple of theirs; the other work is the interpreter's.
GOALS = {
    "token": Goal(multiple=1.7, rate=2_200, p99=30, workers=2),
    "basic": Goal(multiple=1.7),
    "tokeninfo": Goal(cpu=0.06),
    "auth": Goal(cpu=0.05, rate=20_000, p99=4, workers=1),
    "auth-new": Goal(cpu=0.12),
}
NAMES = {
    "token": "token, private_key_jwt",
    "basic": "token, client_secret_basic, repeated secret",
    "tokeninfo": "/tokeninfo, token seen before",
    "auth": "/auth, token seen before",
    "auth-new": "/auth, token never seen",
}
# With fewer places for tokens than there are tokens, each has been forgotten when its turn comes again.
FORGETFUL = {"KEYTURN_TOKEN_CACHE": "100"}
# Half the tokens that are forgotten must outnumber the places of each worker by far.
NEVER_SEEN = world.TOKENS * 4
_WARM_SECONDS = 1.0
_MOST_ASSERTIONS = 200_000


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all measurements share. `folder` is thrown away in the end."""

    options: Options
    world: World
    folder: Path
    generator: Path
    baseline: Baseline
    progress: Progress

    def rows(self) -> Iterator[Row]:
        """Measure all that the options ask for, one row at a time."""
        stored = [work for work in self.options.works if work in STORE_WORKS]
        if stored and "sqlite" in self.options.stores:
            url = f"sqlite://{self.folder / 'store.sqlite'}"
            yield from self._on_store("sqlite", url, None, stored)
        # Only tokens touch the database while they are asked for: the rest costs the same on both.
        works: Sequence[str] = stored if "sqlite" not in self.options.stores else ("token",)
        if "postgresql" in self.options.stores and set(works) & set(stored):
            with database(self.progress) as (url, pid):
                yield from self._on_store("postgresql", url, pid, [w for w in works if w in stored])

    def _on_store(self, store: str, url: str, server: int | None, works: Sequence[str]) -> Iterator[Row]:
        self.progress.begin(f"filling {store} with {world.CLIENTS} clients and {world.ROUTES} routes")
        asyncio.run(world.fill_store(url, self.world.records()))
        self.progress.end(f"filling {store}")
        keys = self.folder / f"keys-{store}"
        world.write_signing_keys(keys, self.world.ring)
        for workers in self.options.workers:
            for extra, some in (
                ({}, [w for w in works if w != "auth-new"]),
                (FORGETFUL, [w for w in works if w == "auth-new"]),
            ):
                if not some:
                    continue
                with running_api(store_url=url, keys=keys, workers=workers, folder=self.folder, extra=extra) as api:
                    for work in some:
                        for connections in self.options.levels:
                            yield self._row(api, work, store, server, workers, connections)

    def _row(self, api: Api, work: str, store: str, server: int | None, workers: int, connections: int) -> Row:
        name = (
            f"{NAMES[work]}; {store}, {workers} worker process{'es' if workers > 1 else ''}, {connections} connections"
        )
        self.progress.begin(name)
        source = _Requests(self, work)
        warm = self._warm(api, work, source, connections)
        runs = []
        for number in range(self.options.runs):
            self.progress.update(f"{name}: run {number + 1}")
            runs.append(self._run(api, source, server, connections, warm))
        self.progress.end(name)
        return Row(NAMES[work], store, workers, connections, tuple(runs), GOALS[work])

    def _warm(self, api: Api, work: str, source: _Requests, connections: int) -> float:
        """Fill caches and pools, and return the requests a second that are to be expected."""
        if work == "basic":
            # Few at a time: hashing is slow and its queue bounded. Connections fall on the workers by chance, hence several passes.
            for _ in range(4):
                self._send(api, source, connections=8, seconds=2.0, expected=200)
        load: Load | None = None
        for _ in range(2):
            load = self._send(api, source, connections=connections, seconds=_WARM_SECONDS, expected=3_000)
        assert load is not None
        if not load.answered or load.failed > load.answered // 2:
            raise DevError(f"{work}: the API does not answer as expected:\n{load.sample}")
        return load.answered / load.seconds

    def row(
        self,
        process: Measured,
        name: str,
        path: Path,
        *,
        address: str | None = None,
        sender: Sender = send,
        goal: Goal | None = None,
    ) -> Row:
        """Measure one worker process with the requests of a file, which may be sent any number of times."""
        connections = self.options.levels[0]
        self.progress.begin(name)

        def some(seconds: float) -> Load:
            to = address or process.address
            return sender(self.generator, to, path, connections=connections, seconds=seconds, once=False)

        for _ in range(2):
            load = some(_WARM_SECONDS)
        if not load.answered or load.failed > load.answered // 2:
            raise DevError(f"{name}: the answers are not as expected:\n{load.sample}")
        runs = []
        for number in range(self.options.runs):
            self.progress.update(f"{name}: run {number + 1}")
            runs.append(self._observed(process, None, lambda: some(self.options.seconds)))
        self.progress.end(name)
        return Row(name, "sqlite", 1, connections, tuple(runs), goal)

    def sign_tokens(self, count: int | None = None) -> list[bytes]:
        """Return access tokens of all clients."""
        return world.sign_tokens(self.world, count or world.TOKENS, time.time())

    def _run(self, api: Api, source: _Requests, server: int | None, connections: int, rate: float) -> Run:
        seconds = self.options.seconds
        path = source.prepare(int(rate * seconds * 1.5) + 1_000)
        return self._observed(
            api,
            server,
            lambda: send(self.generator, api.address, path, connections=connections, seconds=seconds, once=source.once),
        )

    def _observed(self, api: Measured, server: int | None, work: Callable[[], Load]) -> Run:
        base = [self.baseline.sample()]
        before = (accounting.usage(api.pid), accounting.usage(server), accounting.busy(), time.monotonic())
        load = work()
        after = (accounting.usage(api.pid), accounting.usage(server), accounting.busy(), time.monotonic())
        base.append(self.baseline.sample())
        api.check_alive()
        if not load.answered:
            raise DevError("not one request was answered")
        return make_run(load, before, after, sum(base) / len(base))

    def _send(self, api: Api, source: _Requests, *, connections: int, seconds: float, expected: int) -> Load:
        path = source.prepare(expected)
        return send(self.generator, api.address, path, connections=connections, seconds=seconds, once=source.once)


class Measured(Protocol):
    """A process that answers requests. `pid` is the root of its tree."""

    @property
    def pid(self) -> int: ...
    @property
    def address(self) -> str: ...
    def check_alive(self) -> None:
        """Raise `DevError` when it has ended."""


class Sender(Protocol):
    """Sends the requests of a file."""

    def __call__(
        self, program: Path, address: str, requests: Path, *, connections: int, seconds: float, once: bool
    ) -> Load: ...


Look = tuple["Usage | None", "Usage | None", float, float]


def make_run(load: Load, before: Look, after: Look, base: float) -> Run:
    """Work out one run from what the generator reports and two looks at /proc: API, database, all of the machine, the clock."""
    per_request = 1000 / load.answered
    api = _spent(before[0], after[0])
    server = _spent(before[1], after[1])
    if api is None or after[0] is None:
        raise DevError("the API ended while it was measured")
    others = after[2] - before[2] - api - (server or 0.0) - load.cpu
    return Run(
        rate=load.answered / load.seconds,
        p50=load.p50,
        p99=load.p99,
        api=api * per_request,
        database=None if server is None else server * per_request,
        generator=load.cpu * per_request,
        base=base,
        memory=after[0].memory,
        largest=after[0].largest,
        database_memory=None if after[1] is None else after[1].memory,
        foreign=max(0.0, others / max(after[3] - before[3], 0.001)),
        failed=load.failed,
    )


def _spent(before: Usage | None, after: Usage | None) -> float | None:
    return None if before is None or after is None else after.cpu - before.cpu


class _Requests:
    """The requests of one kind of work, in a file. `once`: each may be sent once only, so that every run needs new ones."""

    def __init__(self, bench: Bench, work: str) -> None:
        self.once = work == "token"
        self._world = bench.world
        self._path = bench.folder / f"{work}-{os.urandom(4).hex()}.requests"
        if not self.once:
            write_requests(self._path, self._fixed(work))

    def prepare(self, count: int) -> Path:
        """Return the file, with at least `count` requests where each is good for one use."""
        if self.once:
            wanted = min(count, _MOST_ASSERTIONS)
            write_requests(self._path, world.token_requests(self._world, wanted, time.time()))
        return self._path

    def _fixed(self, work: str) -> list[bytes]:
        if work == "basic":
            return world.basic_requests(self._world)
        tokens = world.sign_tokens(self._world, NEVER_SEEN if work == "auth-new" else world.TOKENS, time.time())
        return world.tokeninfo_requests(tokens) if work == "tokeninfo" else world.gateway_requests(tokens)
