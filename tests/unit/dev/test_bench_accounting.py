"""CPU time and memory of process trees."""

import os
from pathlib import Path

import pytest

from keyturn_dev.bench import accounting


def stat_line(pid: int, parent: int, name: str = "api", ticks: tuple[int, int, int, int] = (0, 0, 0, 0)) -> str:
    """A line as proc(5) describes it."""
    return f"{pid} ({name}) S {parent} 1 1 0 -1 4194304 10 0 0 0 {' '.join(map(str, ticks))} 20 0 3 0 500 1000 200"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with an API of two workers and a stranger."""
    for pid, parent, ticks, pss in (
        (10, 1, (100, 50, 20, 30), 2048),
        (11, 10, (300, 0, 0, 0), 4096),
        (12, 11, (0, 100, 0, 0), 1024),
        (99, 1, (5000, 0, 0, 0), 90_000),
    ):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(stat_line(pid, parent, ticks=ticks))
        (folder / "smaps_rollup").write_text(
            f"5500-7ffe ---p 00 00:00 0 [rollup]\nRss: 1 kB\nPss: {pss} kB\nPss_Dirty: 7 kB\n"
        )
    (tmp_path / "self").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["api", "tmux: server", "a) S 4 (b", "((("], ids=repr)
def test_a_stat_line_is_read_whatever_the_programs_name(name: str) -> None:
    stat = accounting.parse_stat(stat_line(7, 3, name, (120, 30, 40, 10)), ticks=100)
    assert stat == accounting.Stat(pid=7, parent=3, cpu=2.0)


@pytest.mark.parametrize("line", ["", "7 (api) S 3", "x (api) S 3 " + "0 " * 20], ids=["empty", "cut off", "no pid"])
def test_anything_else_is_no_stat_line(line: str) -> None:
    with pytest.raises(ValueError):
        accounting.parse_stat(line)


def test_a_tree_is_the_root_with_all_descendants() -> None:
    assert accounting.tree([10], {1: 0, 10: 1, 11: 10, 12: 11, 99: 1}) == {10, 11, 12}


def test_a_root_that_is_gone_has_no_tree() -> None:
    assert accounting.tree([10], {1: 0, 11: 10}) == set()


def test_usage_sums_the_tree_with_children_that_ended(proc: Path) -> None:
    used = accounting.usage(10, proc=proc)
    assert used is not None
    assert used.cpu == pytest.approx(600 / os.sysconf("SC_CLK_TCK"))
    assert (used.memory, used.largest, used.processes) == (7.0, 4.0, 3)


@pytest.mark.parametrize("root", [None, 50], ids=["no process", "a process that is gone"])
def test_usage_of_nothing_is_none(proc: Path, root: int | None) -> None:
    assert accounting.usage(root, proc=proc) is None


def test_a_process_whose_memory_is_hidden_counts_with_its_time(proc: Path) -> None:
    (proc / "12" / "smaps_rollup").unlink()
    used = accounting.usage(10, proc=proc)
    assert used is not None
    assert (used.memory, used.processes) == (6.0, 3)


def test_idle_and_waiting_for_a_disk_are_no_work() -> None:
    assert accounting.parse_busy("cpu  100 10 200 99999 88888 5 6 7 0 0\ncpu0 1 1 1 1\n", ticks=100) == 3.28
