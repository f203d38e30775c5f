"""The shell that keeps a program: it waits on its standard input, and ends the program when that closes, even by a kill of ours."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

_STOP_SECONDS = 15.0


def end_keeper(keeper: subprocess.Popen[str]) -> None:
    """Let the keeper end its program and clear up, and wait for both."""
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
