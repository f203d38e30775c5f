"""The long tests: many clients, many changes, nothing at all, and a way to the API server that goes silent. No test suite runs them.

python -m keyturn_dev.soak                                  # all parts, about an hour and three quarters
python -m keyturn_dev.soak scale --clients 2000             # one part, shorter
python -m keyturn_dev.soak --write                          # puts the figures into docs/benchmarks.md

It starts an API server of its own and, for each part, the real operator and API as processes, on SQLite.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from keyturn_dev import process
from keyturn_dev.bench.accounting import usage
from keyturn_dev.cluster import Cluster
from keyturn_dev.errors import DevError
from keyturn_dev.installation import Installation, apply_crds, status_of
from keyturn_dev.paths import PROJECT
from keyturn_dev.progress import Progress
from keyturn_dev.soak_world import SoakWorld, opened
from keyturn_dev.tcp_proxy import Outage
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DOCUMENT = PROJECT / "docs" / "benchmarks.md"
BEGIN = "<!-- soak: written by `python -m keyturn_dev.soak --write` -->"
END = "<!-- end of soak -->"

VALUES = PROJECT / "charts" / "keyturn" / "values.yaml"
SLOWER = 1.2
"""How much slower the slowest hundredth may be with all clients than with few."""
TOKENS = 10_000
"""What a worker remembers by default."""
FLAT_AFTER = 1 / 6
"""Ten minutes of an hour."""
GROWTH = 0.05
"""What memory may gain from then on and still count as flat."""
HANDLED_WITHIN = 60.0


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table. `kept`: whether it is within its limit; None where there is none."""

    part: str
    what: str
    value: str
    limit: str = ""
    kept: bool | None = None


def memory_of(world: SoakWorld) -> dict[str, float]:
    """MiB of the operator and of the API, all processes of each, shared pages counted once."""
    found = {}
    for record in world.installation.records():
        part, _, number = record.name.partition("-")
        if number and (used := usage(record.pid)) is not None:
            found[part] = used.memory
    return found


def memory_limits() -> dict[str, float]:
    """MiB: the limits that the chart sets by default."""
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    limits = {part: str(values[part]["resources"]["limits"]["memory"]) for part in ("operator", "api")}
    return {part: float(limit.removesuffix("Mi")) for part, limit in limits.items()}


def percentile(times: Sequence[float], part: float = 0.99) -> float:
    """Of measured seconds, the one that this part of them does not exceed."""
    return statistics.quantiles(times, n=1000, method="inclusive")[round(part * 1000) - 1]


def scale(world: SoakWorld, *, clients: int, base: int, requests: int) -> list[Figure]:
    """Few clients, then many: the time to Ready, memory, and how much slower requests are."""
    world.create(range(base))
    world.wait_ready(base, seconds=120 + base)
    before = world.measure(base, requests)
    began = time.monotonic()
    world.create(range(base, clients))
    created = time.monotonic() - began
    world.wait_ready(clients, seconds=300 + clients / 5)
    took = time.monotonic() - began
    after = world.measure(clients, requests)
    part = f"{clients:,} clients"
    figures = [
        Figure(part, f"created, the last one after ({clients - base:,} objects)", f"{created:,.0f} s"),
        Figure(part, "all Ready after", f"{took:,.0f} s"),
    ]
    for kind, times in after.items():
        slow, was = percentile(times) * 1000, percentile(before[kind]) * 1000
        limit = f"≤ {SLOWER:.1f} x ({base} clients: {was:.1f} ms)"
        figures.append(Figure(part, f"{kind}, p99", f"{slow:.1f} ms ({slow / was:.2f} x)", limit, slow <= was * SLOWER))
    limits = memory_limits()
    for name, mib in memory_of(world).items():
        most = limits[name]
        figures.append(Figure(part, f"memory of the {name}", f"{mib:.0f} MiB", f"≤ {most:.0f} MiB", mib <= most))
    return figures


def changes(
    world: SoakWorld, *, clients: int, seconds: float, among: int | None = None, tokens: int = TOKENS
) -> list[Figure]:
    """A change each second: each must count in time, and memory must stop growing. `among`: so many clients that are there already.

    `tokens` are shown first, as many as a replica remembers: what it remembers of them grows to its bound, and is no leak.
    """
    world.create(range(clients))
    clients = clients if among is None else among
    world.wait_ready(clients, seconds=120 + clients)
    for number in range(tokens):
        world.show_token(number % clients)
    samples: list[tuple[float, dict[str, float]]] = []
    late: list[float] = []
    began = time.monotonic()
    turn = 0
    while (passed := time.monotonic() - began) < seconds:
        late.append(world.change(turn % clients, turn))
        samples.append((passed, memory_of(world)))
        turn += 1
        time.sleep(max(0.0, began + turn - time.monotonic()))
    part = f"a change a second, {clients} clients, {seconds / 60:g} min"
    figures = [
        Figure(part, "changes", f"{turn:,}"),
        Figure(part, "in force after, p99", f"{percentile(late):.2f} s", "≤ 1 s", percentile(late) <= 1.0),
    ]
    for name in ("operator", "api"):
        settled = [used[name] for at, used in samples if at >= seconds * FLAT_AFTER and name in used]
        first, last = (statistics.median(some) for some in halves(settled))
        growth = last / first - 1
        limit = f"grows ≤ {GROWTH:.0%} after the first {seconds * FLAT_AFTER / 60:.1f} min"
        value = f"{first:.0f} MiB, then {last:.0f} MiB ({growth:+.1%})"
        figures.append(Figure(part, f"memory of the {name}", value, limit, growth <= GROWTH))
    return figures


def halves(values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """The first and the last tenth, of one value at least."""
    tenth = max(1, len(values) // 10)
    return values[:tenth], values[-tenth:]


def idle(world: SoakWorld, *, clients: int, seconds: float, settle: float = 30.0) -> list[Figure]:
    """Nothing happens: nothing may be written but the Lease and the replicas' heartbeats."""
    world.create(range(clients))
    world.wait_ready(clients, seconds=120 + clients)
    # What follows the last change, such as the status of the signing key, has its time.
    time.sleep(settle)
    kube, store = world.versions(), store_content(world.installation)
    time.sleep(seconds)
    moved = sorted(name for name, version in world.versions().items() if kube.get(name) != version)
    written = sorted(name for name, content in store_content(world.installation).items() if store.get(name) != content)
    part = f"idle, {clients} clients, {seconds / 60:g} min"
    return [
        Figure(part, "objects written besides the Lease", ", ".join(moved) or "none", "none", not moved),
        Figure(part, "tables written besides the heartbeats", ", ".join(written) or "none", "none", not written),
    ]


def store_content(installation: Installation) -> dict[str, int]:
    """By table, a number that changes with any row; the replicas' heartbeats are left out."""
    path = installation.state / "store.sqlite"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10) as database:
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        kept = [name for name in names if "replica" not in name and not name.startswith("sqlite_")]
        found = {name: hash(tuple(database.execute(f'SELECT * FROM "{name}"').fetchall())) for name in kept}
    database.close()
    return found


def black_hole(world: SoakWorld, way: Outage, *, seconds: float) -> list[Figure]:
    """The way to the API server swallows everything for a while. The operator is run as a kubelet runs it: restarted when it has ended
    or says that it should be.
    """
    world.create(range(10))
    world.wait_ready(10, seconds=120)
    way.silence()
    began = time.monotonic()
    world.create(range(10, 11))
    restarts, served = 0, 0
    while time.monotonic() - began < seconds:
        restarts += keep(world.installation)
        served += world.request(0) == 200
        time.sleep(2)
    way.swallow()
    way.resume()
    back = time.monotonic()

    def ready() -> bool:
        nonlocal restarts
        restarts += keep(world.installation)
        return world.ready() == 11

    wait_until(ready, "the change made meanwhile to be handled", seconds=HANDLED_WITHIN * 5, interval=1.0)
    took = time.monotonic() - back
    part = f"black hole, {seconds / 60:g} min"
    return [
        Figure(part, "restarts of the operator", str(restarts)),
        Figure(part, "tokens issued meanwhile", f"{served:,}", "> 0", served > 0),
        Figure(
            part, "a change made meanwhile is in force", f"{took:.0f} s after", f"≤ {HANDLED_WITHIN:.0f} s",
            took <= HANDLED_WITHIN,
        ),
    ]  # fmt: skip


def keep(installation: Installation) -> int:
    """What a kubelet does: start the operator again when it has ended, or when its liveness probe says so. Tell whether it did."""
    (record,) = [one for one in installation.records() if one.name == "operator-0"]
    alive = process.is_alive(record)
    probe = status_of(f"http://127.0.0.1:{installation.operator_port}/livez") if alive else None
    if probe == 200 or (alive and process.uptime_of(record) < 30):
        return 0
    process.stop(record)
    installation.start_operator()
    return 1


def table(figures: Sequence[Figure], now: datetime.datetime) -> str:
    """The figures as Markdown."""
    verdicts = {True: "met", False: "missed", None: ""}
    rows = [("part", "what", "measured", "goal", "")]
    rows += [(one.part, one.what, one.value, one.limit, verdicts[one.kept]) for one in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * max(3, width) for width in widths) + " |")
    return f"Measured on {now:%Y-%m-%d}.\n\n" + "\n".join(lines)


def with_figures(document: str, figures: str) -> str:
    """Return the page with other figures between its two marks; raise `DevError` if it lacks them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DevError(f"{DOCUMENT.name} lacks the lines between which the soak's figures stand")
    return f"{before}{BEGIN}\n\n{figures.strip()}\n\n{END}{after}"


def run(options: argparse.Namespace, progress: Progress) -> list[Figure]:
    """Run the parts that were asked for, each with an installation of its own."""
    minutes = 60.0
    parts: dict[str, Callable[[SoakWorld], list[Figure]]] = {
        "scale": lambda world: scale(world, clients=options.clients, base=options.base, requests=options.requests),
        "changes": lambda world: changes(
            world, clients=options.changing, seconds=options.changes_minutes * minutes
        ),
        "idle": lambda world: idle(world, clients=options.changing, seconds=options.idle_minutes * minutes),
    }  # fmt: skip
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="keyturn-soak-") as folder:
        cluster = Cluster(Path(folder) / "cluster", progress=progress)
        try:
            cluster.up()
            apply_crds(cluster)
            for part in options.parts:
                progress.say(f"soak: {part}")
                state = Path(folder) / part
                if part == "black-hole":
                    way = Outage(str(cluster.status().server))
                    try:
                        with opened(cluster, f"soak-{part}", state, server=way.url) as world:
                            figures += black_hole(world, way, seconds=options.black_hole_minutes * minutes)
                    finally:
                        way.close()
                else:
                    with opened(cluster, f"soak-{part}", state) as world:
                        figures += parts[part](world)
        finally:
            cluster.down()
    return figures


PARTS = ("scale", "changes", "idle", "black-hole")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 1 when a goal was missed, or something did not work."""
    parser = argparse.ArgumentParser(prog="python -m keyturn_dev.soak", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--clients", type=int, default=10_000, help="clients of scale (default: %(default)s)")
    parser.add_argument("--base", type=int, default=100, help="clients to compare with (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=3000, help="requests of each kind (default: %(default)s)")
    parser.add_argument("--changing", type=int, default=500, help="clients of changes and idle (default: %(default)s)")
    parser.add_argument("--changes-minutes", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--idle-minutes", type=float, default=10.0, help="default: %(default)s")
    parser.add_argument("--black-hole-minutes", type=float, default=15.0, help="default: %(default)s")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {min(unknown)!r}")
    options.parts = options.parts or list(PARTS)
    try:
        figures = run(options, Progress())
        text = table(figures, datetime.datetime.now(datetime.UTC))
        print(text)
        if options.write:
            DOCUMENT.write_text(with_figures(DOCUMENT.read_text(encoding="utf-8"), text), encoding="utf-8")
    except DevError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 1 if any(one.kept is False for one in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
