"""Progress is a rewritten line on a terminal and a few whole lines elsewhere."""

from __future__ import annotations

import io

from keyturn_dev.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_whole_lines_and_no_more_than_its_interval_allows() -> None:
    log = io.StringIO()
    progress = Progress(log, interval=3600)
    progress.begin("building etcd")
    for _ in range(100):
        progress.update("building etcd")
    progress.end("building etcd")
    assert log.getvalue().splitlines() == ["  building etcd …", "  building etcd: 0 s"]


def test_a_log_hears_of_a_long_step_between_its_ends() -> None:
    log = io.StringIO()
    progress = Progress(log, interval=0)
    progress.begin("building etcd")
    progress.update("building etcd: 7 packages compiled")
    assert log.getvalue().splitlines()[1] == "  building etcd: 7 packages compiled … 0 s"


def test_a_terminal_gets_one_line_that_is_rewritten_without_remains() -> None:
    terminal = Terminal()
    progress = Progress(terminal)
    progress.begin("a long description of a step")
    progress.end("short")
    last = terminal.getvalue().split("\r")[-1]
    assert last.rstrip() == "  short: 0 s"
    assert len(last.rstrip("\n")) >= len("  a long description of a step …")
    assert last.endswith("\n")


def test_an_error_after_an_unfinished_step_begins_on_a_line_of_its_own() -> None:
    terminal = Terminal()
    progress = Progress(terminal)
    progress.begin("building etcd")
    progress.abandon()
    assert terminal.getvalue().endswith("…\n")
