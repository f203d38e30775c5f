"""What was measured, and what the table says of it: arithmetic only."""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Run:
    """One run. CPU in ms a request, memory in MiB; `base` is the yardstick beside it, `foreign` cores that others used.

    `database` and `database_memory` are None where no database server is involved (or it is on another machine).
    """

    rate: float
    p50: float
    p99: float
    api: float
    database: float | None
    generator: float
    base: float
    memory: float
    largest: float
    database_memory: float | None
    foreign: float
    failed: int

    @property
    def total(self) -> float:
        """CPU ms a request of API and database."""
        return self.api + (self.database or 0.0)

    @property
    def multiple(self) -> float:
        """The total as a multiple of the yardstick taken beside this very run."""
        return self.total / self.base


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is to be reached.

    CPU of API and database together: as a `multiple` of the yardstick where signatures make most of it, else in ms
    (`cpu`). Requests a second (`rate`) and `p99` in ms count at so many `workers`.
    """

    multiple: float | None = None
    cpu: float | None = None
    rate: float | None = None
    p99: float | None = None
    workers: int | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """All runs of one measurement."""

    work: str
    store: str
    workers: int
    connections: int
    runs: tuple[Run, ...]
    goal: Goal | None = None

    def median(self, of: Callable[[Run], float]) -> float:
        return statistics.median(of(run) for run in self.runs)

    def optional(self, of: Callable[[Run], float | None]) -> float | None:
        values = [value for run in self.runs if (value := of(run)) is not None]
        return statistics.median(values) if values else None


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that was to be reached, and what was."""

    work: str
    goal: str
    measured: str
    met: bool


_HEAD = (
    "work", "store", "workers", "connections", "requests/s (min to max)", "p50 ms", "p99 ms", "API CPU ms",
    "database CPU ms", "sum", "x base", "generator CPU ms", "API MiB (largest process)", "database MiB",
    "foreign cores", "failed",
)  # fmt: skip
_TEXT_COLUMNS = 2


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table of medians, aligned for reading as it is."""
    return markdown(_HEAD, [_cells(row) for row in rows], text_columns=_TEXT_COLUMNS)


def _cells(row: Row) -> tuple[str, ...]:
    rates = [run.rate for run in row.runs]
    database = row.optional(lambda run: run.database)
    database_memory = row.optional(lambda run: run.database_memory)
    return (
        row.work,
        row.store,
        str(row.workers),
        str(row.connections),
        f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
        f"{row.median(lambda run: run.p50):.1f}",
        f"{row.median(lambda run: run.p99):.1f}",
        _with_base(row, lambda run: run.api),
        "" if database is None else _with_base(row, lambda run: run.database or 0.0),
        f"{row.median(lambda run: run.total):.3f}",
        f"{row.median(lambda run: run.multiple):.2f}",
        f"{row.median(lambda run: run.generator):.3f}",
        f"{row.median(lambda run: run.memory):.0f} ({row.median(lambda run: run.largest):.0f})",
        "" if database_memory is None else f"{database_memory:.0f}",
        f"{max(run.foreign for run in row.runs):.1f}",
        str(sum(run.failed for run in row.runs)),
    )


def _with_base(row: Row, of: Callable[[Run], float]) -> str:
    return f"{row.median(of):.3f} ({row.median(lambda run: of(run) / run.base):.2f} x)"


def summary(row: Row) -> str:
    """Return the row's medians in a few words, for whoever waits for the others."""
    return (
        f"{row.median(lambda run: run.rate):,.0f} requests/s, p99 {row.median(lambda run: run.p99):.1f} ms,"
        f" CPU {row.median(lambda run: run.total):.3f} ms ({row.median(lambda run: run.multiple):.2f} x base)"
    )


def goals(rows: Sequence[Row], findings: Sequence[Finding] = ()) -> str:
    """Return a table of what was to be reached and what was; empty when there is no goal."""
    lines = [line for row in rows if row.goal is not None for line in _against(row, row.goal)]
    lines += [(each.work, each.goal, each.measured, _met(each.met)) for each in findings]
    return markdown(("work", "goal", "measured", ""), lines, text_columns=4) if lines else ""


def _against(row: Row, goal: Goal) -> list[tuple[str, str, str, str]]:
    name = (
        f"{row.work}, {row.store}, {row.workers} worker{'s' if row.workers > 1 else ''}, {row.connections} connections"
    )
    lines: list[tuple[str, str, str, str]] = []
    if goal.multiple is not None:
        multiple = row.median(lambda run: run.multiple)
        lines.append((name, f"CPU ≤ {goal.multiple:g} x base", f"{multiple:.2f} x", _met(multiple <= goal.multiple)))
    if goal.cpu is not None:
        cpu = row.median(lambda run: run.total)
        lines.append((name, f"CPU ≤ {goal.cpu:g} ms", f"{cpu:.3f} ms", _met(cpu <= goal.cpu)))
    if goal.workers == row.workers:
        if goal.rate is not None:
            rate = row.median(lambda run: run.rate)
            lines.append((name, f"≥ {goal.rate:,.0f} requests/s", f"{rate:,.0f}", _met(rate >= goal.rate)))
        if goal.p99 is not None:
            p99 = row.median(lambda run: run.p99)
            lines.append((name, f"p99 ≤ {goal.p99:g} ms", f"{p99:.1f} ms", _met(p99 <= goal.p99)))
    return lines


def _met(met: bool) -> str:
    return "met" if met else "missed"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]], *, text_columns: int) -> str:
    """Return a Markdown table with columns as wide as their widest cell; all but the first `text_columns` are numbers."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if place < text_columns else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * width) if place < text_columns else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, lines)])
