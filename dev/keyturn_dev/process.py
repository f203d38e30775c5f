"""Processes that outlive the command that started them, found again by an identity that is never another program's.

A process id alone comes round again, within minutes on a busy machine and certainly after a reboot. The identity here
is the boot, the process id and the time at which the process started in that boot.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.waiting import TimedOut, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# The child writes its own record before it becomes the program: a starter killed in between leaves none unrecorded. Its
# standard input is the lock of the starter, which therefore stays locked until the record stands.
_LAUNCH = 'cat "$1" "/proc/$$/stat" >"$2.new" && mv "$2.new" "$2" && shift 2 && exec "$@" </dev/null'

_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclasses.dataclass(frozen=True)
class ProcessRecord:
    """One process: a name for people, and what tells it from every other process.

    `boot` is the kernel's boot id; `started` is field 22 of proc(5)'s stat: clock ticks since that boot.
    """

    name: str
    pid: int
    started: int
    boot: str


@dataclasses.dataclass(frozen=True)
class ProcessStat:
    """The fields of /proc/PID/stat that matter here; `state` is proc(5)'s letter."""

    pid: int
    state: str
    started: int


def parse_stat(line: str) -> ProcessStat:
    """Read a line of /proc/PID/stat; raise `ValueError` if it is not one.

    The second field is the program's name in parentheses; it may hold blanks and parentheses: the last one counts.
    """
    pid, _, rest = line.partition(" ")
    fields = rest.rpartition(")")[2].split()
    if len(fields) < 20:
        raise ValueError("not a line of /proc/PID/stat")
    return ProcessStat(pid=int(pid), state=fields[0], started=int(fields[19]))


def parse_record(name: str, text: str) -> ProcessRecord:
    """Read a record as the launcher writes it: the boot id, then the stat line; raise `ValueError` if it is not one."""
    boot, _, line = text.partition("\n")
    if not boot:
        raise ValueError("not a process record")
    stat = parse_stat(line)
    return ProcessRecord(name=name, pid=stat.pid, started=stat.started, boot=boot)


def same_process(record: ProcessRecord, boot: str, stat: ProcessStat | None) -> bool:
    """Tell whether what /proc now shows for the record's pid is the recorded process, and it still runs."""
    return (
        stat is not None
        and record.boot == boot
        and record.pid == stat.pid
        and record.started == stat.started
        and stat.state not in ("Z", "X")
    )


def is_alive(record: ProcessRecord) -> bool:
    """Tell whether exactly the recorded process still runs (a zombie does not)."""
    return same_process(record, boot_id(), read_stat(record.pid))


def boot_id() -> str:
    """Return the running kernel's boot id."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def read_stat(pid: int) -> ProcessStat | None:
    """Return the process's stat, or None if there is none of that id."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None


def read_records(folder: Path) -> list[ProcessRecord]:
    """Return the records of a folder, oldest first; a file that a killed launcher left half written counts as none."""
    records = []
    for path in folder.glob("*.process") if folder.is_dir() else ():
        with contextlib.suppress(ValueError):
            records.append(parse_record(path.stem, path.read_text(encoding="utf-8", errors="replace")))
    return sorted(records, key=lambda record: record.started)


def spawn(
    name: str, command: Sequence[str], *, records: Path, log: Path, environ: Mapping[str, str], lock: int
) -> ProcessRecord:
    """Start a program in a session of its own and return its record, written to `records`/`name`.process.

    `lock` is the descriptor of the lock under which processes are started here. Output goes to `log`.
    """
    record = records / f"{name}.process"
    record.unlink(missing_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            ["/bin/sh", "-c", _LAUNCH, "launch", str(_BOOT_ID), str(record), *command],
            stdin=lock,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=records,
            start_new_session=True,
        )
    _children[child.pid] = child

    def started() -> bool:
        # The record stands an instant before the launcher becomes the program and lets the lock go.
        return child.poll() is not None or (record.exists() and not _has_as_input(child.pid, lock))

    wait_until(started, f"{name} to be started", seconds=10, interval=0.005)
    if not record.exists():
        raise DevError(f"{name} could not be started: {log_tail(log)}")
    return parse_record(name, record.read_text(encoding="utf-8", errors="replace"))


def _has_as_input(pid: int, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(Path(f"/proc/{pid}/fd/0").stat(), os.fstat(descriptor))
    return False


def stop(record: ProcessRecord, *, grace: float = 2.0) -> bool:
    """End the recorded process, by force after `grace` seconds, and tell whether it was there to be ended.

    Another process that has the same id by now is never signalled: the kernel's handle on the process (pidfd) is taken
    first and the identity checked after, so that the id cannot pass to another process in between.
    """
    try:
        handle = os.pidfd_open(record.pid)
    except ProcessLookupError:
        _reap()
        return False
    try:
        if not is_alive(record):
            return False
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            # A pidfd becomes readable when its process has ended.
            if select.select([handle], [], [], seconds)[0]:
                return True
        raise DevError(f"{record.name} (process {record.pid}) does not end, not even by force")
    finally:
        os.close(handle)
        _reap()


def settle(records: Sequence[ProcessRecord], *, seconds: float = 2.5) -> None:
    """Wait a moment until the init process has collected what ended, so that nothing shows in `ps` any more.

    An init process that never does is no failure: what is left then is an exit status, not a process.
    """
    with contextlib.suppress(TimedOut):
        wait_until(lambda: not any(map(_is_listed, records)), "ended processes to be collected", seconds=seconds)


def _is_listed(record: ProcessRecord) -> bool:
    stat = read_stat(record.pid)
    return stat is not None and stat.started == record.started


@atexit.register
def _reap() -> None:
    """Collect the exit status of each child of ours that has ended, so that none stays behind as a zombie.

    All of them, each time: a process with threads can look ended a moment before the kernel hands out its status.
    """
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]


def log_tail(log: Path, lines: int = 12, limit: int = 16_384) -> str:
    """Return the last lines of a log (at most `limit` bytes of it), or a note that there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - limit))
            text = file.read(limit).decode("utf-8", "replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(its log is empty)"


def uptime_of(record: ProcessRecord) -> float:
    """Return for how many seconds the recorded process has run."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0.0, now - record.started / os.sysconf("SC_CLK_TCK"))
