"""A lock between processes that a dead holder never keeps."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextlib.contextmanager
def exclusive(path: Path, what: str, *, seconds: float, on_wait: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock file `path` and yield its descriptor; raise `DevError` naming its holder after `seconds`.

    The lock belongs to the open file (flock(2)): a child that gets the descriptor keeps the lock as long as it lives,
    and the kernel lets go of it when the last holder is gone, however it ended. The file itself stays: removing it
    would let two processes hold locks on two files of one name.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DevError(f"{path} cannot be used for {what}: {error.strerror}") from error
    try:
        if not _try_lock(descriptor):
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            on_wait(f"process {holder} is busy with {what}; waiting for it to finish")
            deadline = time.monotonic() + seconds
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise DevError(f"waited {seconds:g} s in vain for process {holder} to finish with {what} ({path})")
                time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
