"""Processes under measurement: each ends with this one, whatever happens to it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_STOP_SECONDS = 15.0
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
        _end(keeper)


def _end(keeper: subprocess.Popen[str]) -> None:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        keeper.stdin.close()
    try:
        keeper.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # The keeper leads a session of its own, in which the program and its children started.
        os.killpg(keeper.pid, signal.SIGKILL)
        keeper.wait()
    finally:
        keeper.stdout.close()
