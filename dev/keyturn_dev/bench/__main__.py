"""`make bench`: measure, print, and with WRITE=1 keep the figures."""

from __future__ import annotations

import datetime
import itertools
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from keyturn_dev.bench import checks, document, machine
from keyturn_dev.bench.baseline import Baseline
from keyturn_dev.bench.figures import goals, summary, table
from keyturn_dev.bench.generator import ensure_generator
from keyturn_dev.bench.measure import Bench
from keyturn_dev.bench.options import Options, command, parse_options
from keyturn_dev.bench.world import make_world
from keyturn_dev.errors import DevError
from keyturn_dev.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn_dev.bench.behind import Added
    from keyturn_dev.bench.figures import Row

_QUIET = 0.3


def describe(rows: Sequence[Row], added: Sequence[Added] = (), *, ran: str, machine: str, date: str) -> str:
    """Return all that is to be said of a run: where, when and how, the tables, and how it stands against the goals."""
    parts = [f"Measured on {date} by `{ran}` on {machine}."]
    runs = [run for row in rows for run in row.runs]
    if runs:
        base = statistics.median(run.base for run in runs)
        seconds = f"{min(run.base for run in runs):.3f} to {max(run.base for run in runs):.3f}"
        parts.append(f"base = {base:.3f} ms of CPU ({seconds} over the run); medians of {_runs(len(rows[0].runs))}.")
        loudest = max(run.foreign for run in runs)
        if loudest > _QUIET:
            parts.append(
                f"**The machine was not quiet**: other programs used up to {loudest:.1f} cores. These figures are rough."
            )
        if any(run.failed for run in runs):
            parts.append("**Some requests failed**: the rows that say so measure something else than they should.")
        parts.append(table(rows))
    if added:
        parts.append(checks.table(added))
    if against := goals(rows, checks.findings(rows, added)):
        parts.append(against)
    return "\n\n".join(parts)


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def measure(options: Options, environ: Mapping[str, str], progress: Progress) -> str:
    """Run the benchmark and return its report."""
    generator = ensure_generator(environ, progress)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="keyturn-bench-") as name:
        progress.begin("making keys and clients")
        world = make_world(time.time())
        progress.end("making keys and clients")
        bench = Bench(options, world, Path(name), generator, Baseline(), progress)
        closer = checks.Checks(bench)
        for row in itertools.chain(bench.rows(), closer.rows()):
            rows.append(row)
            progress.say(f"    {summary(row)}")
        added = list(closer.added())
    if not rows and not added:
        raise DevError("nothing to measure: this work is measured on the other store")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return describe(rows, added, ran=command(environ), machine=machine.describe(), date=date)


def _on_signal(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(environ: Mapping[str, str] | None = None) -> int:
    """Run the command and return its exit status."""
    environ = os.environ if environ is None else environ
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    try:
        options = parse_options(environ)
        report = measure(options, environ, Progress())
        print(f"\n{report}")
        if options.write:
            document.write(report)
            print(f"\nThe figures are in {document.DOCUMENT}.", file=sys.stderr)
    except DevError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nStopped; everything that was started has ended.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
