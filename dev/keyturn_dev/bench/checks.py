"""The gateway check from close by: with many routes, by gRPC, behind gateways, and beside another product."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
from typing import TYPE_CHECKING

from keyturn_dev.bench import opa, wire, world
from keyturn_dev.bench.api import running_api
from keyturn_dev.bench.behind import Added, measure_added
from keyturn_dev.bench.figures import Finding, Goal, Row, markdown
from keyturn_dev.bench.generator import send_checks
from keyturn_dev.bench.measure import FORGETFUL, NEVER_SEEN
from keyturn_dev.bench.wire import write_requests
from keyturn_dev.loopback import LOOPBACK, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from keyturn_dev.bench.measure import Bench

FEW, MANY = 10, 10_000
# More targets than a replica remembers the decisions' routes of, so that each is looked up.
_TARGETS = 10_000
_NAMES = {FEW: f"/auth, {FEW} routes", MANY: f"/auth, {MANY:,} routes"}
_GRPC = "/auth by gRPC, token seen before"
_GRPC_NEW = "/auth by gRPC, token never seen"
_BESIDE = "/auth, beside OPA"
_GOAL_GRPC = Goal(cpu=0.25)


class Checks:
    """What of these the options ask for. Everything is on SQLite, in one worker process: only the check itself is of interest."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._works = bench.options.works

    def rows(self) -> Iterator[Row]:
        """Measure one row after the other."""
        if "routes" in self._works:
            for routes in (FEW, MANY):
                yield self._routes(routes)
        if "grpc" in self._works:
            yield self._grpc(_GRPC, self._bench.sign_tokens(), {})
            yield self._grpc(_GRPC_NEW, self._bench.sign_tokens(NEVER_SEEN), FORGETFUL)
        if "opa" in self._works:
            yield from self._opa()

    def added(self) -> Iterator[Added]:
        """Measure what the check adds behind each gateway."""
        if "gateways" in self._works:
            yield from measure_added(self._bench, self._store(world.ROUTES))

    def _store(self, routes: int) -> tuple[str, Path]:
        """A store with that many routes, and the directory of signing keys."""
        folder = self._bench.folder / f"checks-{routes}"
        url, keys = f"sqlite://{folder / 'store.sqlite'}", folder / "keys"
        if not folder.exists():
            folder.mkdir()
            filled = dataclasses.replace(self._bench.world, rules=world.make_rules(routes))
            self._bench.progress.begin(f"filling sqlite with {routes:,} routes")
            asyncio.run(world.fill_store(url, filled.records()))
            self._bench.progress.end(f"filling sqlite with {routes:,} routes")
            world.write_signing_keys(keys, self._bench.world.ring)
        return url, keys

    def _routes(self, routes: int) -> Row:
        requests = world.gateway_requests(self._bench.sign_tokens(), count=_TARGETS, routes=routes)
        return self._auth(_NAMES[routes], routes, requests)

    def _auth(self, name: str, routes: int, requests: list[bytes]) -> Row:
        url, keys = self._store(routes)
        with running_api(store_url=url, keys=keys, workers=1, folder=self._bench.folder) as api:
            return self._bench.row(api, name, self._file(name, requests))

    def _grpc(self, name: str, tokens: Sequence[bytes], settings: Mapping[str, str]) -> Row:
        url, keys = self._store(world.ROUTES)
        (port,) = free_ports(1)
        extra = {**settings, "KEYTURN_GATEWAY_PROFILE": "envoy-grpc", "KEYTURN_GRPC_PORT": str(port)}
        messages = [
            wire.grpc_check(token, method="GET", uri=target)
            for token, target in zip(tokens, world.targets(len(tokens)), strict=True)
        ]
        with running_api(store_url=url, keys=keys, workers=1, folder=self._bench.folder, extra=extra) as api:
            path = self._file(name, messages)
            return self._bench.row(api, name, path, address=f"{LOOPBACK}:{port}", sender=send_checks, goal=_GOAL_GRPC)

    def _opa(self) -> Iterator[Row]:
        tokens = self._bench.sign_tokens()
        yield self._auth(_BESIDE, world.ROUTES, world.gateway_requests(tokens))
        queries = [
            wire.decision_query(token, method="GET", path=target.partition("?")[0])
            for token, target in zip(tokens, world.targets(len(tokens)), strict=True)
        ]
        path = self._file("opa", queries)
        for cached in (True, False):
            with opa.running_opa(
                self._bench.world,
                cached=cached,
                folder=self._bench.folder,
                progress=self._bench.progress,
                probe=queries[0],
            ) as peer:
                yield self._bench.row(peer, opa.NAMES[cached], path)

    def _file(self, name: str, requests: Sequence[bytes]) -> Path:
        path = self._bench.folder / f"{abs(hash(name))}.requests"
        write_requests(path, requests)
        return path


def findings(rows: Sequence[Row], added: Sequence[Added]) -> list[Finding]:
    """Hold what was measured against each other, where that is the goal."""
    cpu = {row.work: row.median(lambda run: run.total) for row in rows}
    found = []
    if _NAMES[MANY] in cpu and _NAMES[FEW] in cpu:
        share = cpu[_NAMES[MANY]] / cpu[_NAMES[FEW]]
        found.append(Finding(_NAMES[MANY], f"CPU ≤ 1.2 x that with {FEW}", f"{share:.2f} x", share <= 1.2))
    for name in opa.NAMES.values():
        if name in cpu and _BESIDE in cpu:
            times = cpu[name] / cpu[_BESIDE]
            found.append(
                Finding(_BESIDE, f"≥ 3 decisions for one of {name} per CPU second", f"{times:.1f}", times >= 3)
            )
    for each in added:
        # The goal is set at half of what the gateway does by itself; the other rate stands beside it.
        behind = f"behind {each.gateway}, {each.tokens}, {each.rate:,.0f} requests/s, half of its capacity {each.of}"
        if each.rate > each.capacity:
            behind += ": more than it can do with the check"
        for of, most, value in (("p50", 1.0, each.p50), ("p99", 5.0, each.p99)):
            found.append(Finding(behind, f"adds ≤ {most:g} ms at {of}", f"{value:.2f} ms", value <= most))
    return found


def table(added: Sequence[Added]) -> str:
    """Return the Markdown table of what the check adds behind gateways; empty for nothing."""
    head = (
        *("gateway", "tokens", "its capacity alone", "with the check", "sent", "half of its capacity"),
        *("p50 ms alone", "with", "p99 ms alone", "with", "failed"),
    )
    lines = [
        (
            each.gateway,
            each.tokens,
            f"{each.alone:,.0f}/s",
            f"{each.capacity:,.0f}/s",
            f"{each.rate:,.0f}/s",
            each.of,
            f"{statistics.median(run.p50 for run in each.without):.2f}",
            f"{statistics.median(run.p50 for run in each.checked):.2f}",
            f"{statistics.median(run.p99 for run in each.without):.2f}",
            f"{statistics.median(run.p99 for run in each.checked):.2f}",
            str(sum(run.failed for run in (*each.without, *each.checked))),
        )
        for each in added
    ]
    return markdown(head, lines, text_columns=2) if lines else ""
