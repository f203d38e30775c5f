"""Processes under measurement: each ends with this one, whatever happens to it."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, ClassVar

from keyturn_dev.errors import DevError
from keyturn_dev.keeper import end_keeper
from keyturn_dev.loopback import LOOPBACK
from keyturn_dev.process import log_tail, read_stat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# Waits on its standard input, whose other end this process holds: when that closes, even by a kill, the process is ended.
_KEEPER = """
log=$1; shift
"$@" </dev/null >"$log" 2>&1 &
kept=$!
echo "$kept"
read -r end
kill -TERM "$kept" 2>/dev/null
wait "$kept"
"""


@contextlib.contextmanager
def kept(command: Sequence[str], *, log: Path, folder: Path, environ: Mapping[str, str]) -> Iterator[int]:
    """Start a program, yield its pid, the root of its process tree, and end it. Its output goes to `log`."""
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "keeper", str(log), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=dict(environ),
        # Ctrl-C at the terminal reaches this process alone, which then ends the others in order.
        start_new_session=True,
    )
    try:
        assert keeper.stdout is not None
        yield int(keeper.stdout.readline())
    finally:
        end_keeper(keeper)


class Program:
    """A running program under measurement. `pid` is the root of its process tree."""

    name: ClassVar[str]

    def __init__(self, pid: int, port: int, log: Path) -> None:
        self.pid = pid
        self.port = port
        self.log = log

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def check_alive(self) -> None:
        """Raise `DevError` with the end of its log when it has ended."""
        stat = read_stat(self.pid)
        if stat is None or stat.state in ("Z", "X"):
            raise DevError(f"{self.name} has ended. The end of its log:\n{log_tail(self.log)}")
