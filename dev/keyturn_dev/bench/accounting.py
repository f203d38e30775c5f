"""CPU time and memory of process trees, from /proc."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Stat:
    """What counts here of a line of proc(5)'s /proc/PID/stat. CPU in seconds, children that were waited for included."""

    pid: int
    parent: int
    cpu: float


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a process tree has used so far (CPU in seconds) and holds now (MiB).

    Memory is proportional (Pss): a page that several processes share counts once in the sum. `largest` is that of the
    tree's largest process.
    """

    cpu: float
    memory: float
    largest: float
    processes: int


def parse_stat(line: str, *, ticks: int = _TICKS) -> Stat:
    """Read a line of /proc/PID/stat; raise ValueError if it is not one.

    The name in parentheses may hold blanks and parentheses of its own: the last one counts.
    """
    pid, _, rest = line.partition(" ")
    fields = rest.rpartition(")")[2].split()
    if len(fields) < 15:
        raise ValueError("not a line of /proc/PID/stat")
    # utime, stime, cutime, cstime: the last two keep the time of children that ended between two looks.
    return Stat(pid=int(pid), parent=int(fields[1]), cpu=sum(map(int, fields[11:15])) / ticks)


def parse_memory(text: str) -> float:
    """Return the MiB that /proc/PID/smaps_rollup calls proportional; 0 if it names none."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def parse_busy(text: str, *, ticks: int = _TICKS) -> float:
    """Return the seconds that all cores together have worked, from /proc/stat: all but idle and waiting for a disk."""
    fields = text.splitlines()[0].split()
    if fields[0] != "cpu" or len(fields) < 9:
        raise ValueError("not /proc/stat")
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) / ticks


def tree(roots: Iterable[int], parents: Mapping[int, int]) -> set[int]:
    """Return the roots and all that descends from them; `parents` maps each process to its parent."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in parents]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def usage(root: int | None, *, proc: Path = PROC) -> Usage | None:
    """Return what the tree below `root` uses; None for no root, or one that is gone."""
    if root is None:
        return None
    stats = {}
    for entry in proc.iterdir():
        if entry.name.isdigit() and (text := _read(entry / "stat")) is not None:
            stat = parse_stat(text)
            stats[stat.pid] = stat
    members = tree([root], {stat.pid: stat.parent for stat in stats.values()})
    if not members:
        return None
    memory = [parse_memory(_read(proc / str(pid) / "smaps_rollup") or "") for pid in members]
    return Usage(sum(stats[pid].cpu for pid in members), sum(memory), max(memory), len(members))


def busy(*, proc: Path = PROC) -> float:
    """Return the seconds that all cores together have worked since the start of the machine."""
    return parse_busy((proc / "stat").read_text(encoding="ascii"))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # Ended meanwhile (or, for its memory, another user's).
        return None
