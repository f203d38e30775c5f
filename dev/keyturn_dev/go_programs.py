"""Programs built from a pinned Go module into the user's cache, each whole or not at all."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import re
import subprocess
import threading
from typing import IO, TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.golang import build_environment, find_go, required_go
from keyturn_dev.locking import exclusive
from keyturn_dev.paths import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from keyturn_dev.progress import Progress

BUILD_FLAGS = ("-trimpath", "-buildvcs=false", "-v")
_BUILD_SECONDS = 3600
# Without symbol table and debugging information.
_SMALL = "-s -w"


@dataclasses.dataclass(frozen=True)
class GoPrograms:
    """The programs of one module. `key` names their folder in the cache and must change with whatever decides the result.

    `what` names them to people ("the cluster's programs"); `cost` says what building them takes.
    """

    module: Path
    packages: Mapping[str, str]
    key: str
    link_flags: str
    what: str
    cost: str


def single_program(module: Path, name: str, package: str, pinned: str) -> GoPrograms:
    """Return how a module of our own builds one program of another's module, `pinned`; what it pins decides the key."""
    go_mod = (module / "go.mod").read_text(encoding="utf-8")
    go_sum = (module / "go.sum").read_text(encoding="utf-8")
    version = module_version(go_mod, pinned)
    decisive = [go_mod, go_sum, _SMALL, *BUILD_FLAGS, package]
    digest = hashlib.sha256("\0".join(decisive).encode()).hexdigest()
    return GoPrograms(
        module=module,
        packages={name: package},
        key=f"{name}-{version}-{digest[:16]}",
        link_flags=_SMALL,
        what=f"{name} {version}",
        cost="2 to 10 minutes and 3 GB of Go's caches",
    )


def module_version(go_mod: str, module: str) -> str:
    """Return the version at which a go.mod pins a module, such as `v1.34.4`."""
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise DevError(f"go.mod does not pin {module}")
    return found[1]


def ensure_programs(programs: GoPrograms, names: Iterable[str], environ: Mapping[str, str], progress: Progress) -> Path:
    """Return the folder with these programs, building those that it lacks; raise `DevError` with the compiler's words."""
    names = tuple(names)
    folder = cache_folder(environ) / "bin" / programs.key

    def missing() -> list[str]:
        return [name for name in names if not (folder / name).exists()]

    if not missing():
        return folder
    lock = folder.with_name(folder.name + ".lock")
    with exclusive(lock, f"building {programs.what}", seconds=_BUILD_SECONDS, on_wait=progress.say) as descriptor:
        if todo := missing():
            folder.mkdir(exist_ok=True)
            for stale in folder.glob("*.partial"):
                stale.unlink()
            go_mod = (programs.module / "go.mod").read_text(encoding="utf-8")
            go = find_go(required_go(go_mod), environ, progress)
            progress.say(
                f"Building {', '.join(todo)} ({programs.what}) with {go}: {programs.cost}, once. They are kept in {folder}."
            )
            for name in todo:
                _build(go, programs, name, folder, environ, progress, descriptor)
    return folder


def _build(
    go: Path,
    programs: GoPrograms,
    name: str,
    folder: Path,
    environ: Mapping[str, str],
    progress: Progress,
    lock: int,
) -> None:
    """Build one program; it appears under its name at once, whole, or not at all."""
    partial = folder / f"{name}.partial"
    command = [str(go), "build", *BUILD_FLAGS, f"-ldflags={programs.link_flags}"]
    command += ["-o", str(partial), programs.packages[name]]
    progress.begin(f"building {name}")
    # The compiler keeps the lock too: if this process is killed, the next one waits for it and starts cleanly.
    child = subprocess.Popen(
        command,
        cwd=programs.module,
        env=build_environment(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        pass_fds=(lock,),
    )
    try:
        assert child.stderr is not None
        output = _CompilerOutput(child.stderr)
        for _ in range(_BUILD_SECONDS):
            try:
                child.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                progress.update(f"building {name}: {output.doing()}")
        else:
            raise DevError(f"building {name} took longer than an hour")
        output.finish()
        if child.returncode != 0:
            raise DevError(f"building {name} failed:\n" + "\n".join(output.tail))
        os.replace(partial, folder / name)  # noqa: PTH105 - the name of the atomic operation
    except BaseException:
        progress.abandon()
        child.terminate()
        child.wait()
        partial.unlink(missing_ok=True)
        raise
    finally:
        if child.stderr is not None:
            child.stderr.close()
    progress.end(f"building {name}")


class _CompilerOutput:
    """What `go build -v` says: a line per module downloaded and per package compiled, and its errors."""

    def __init__(self, stream: IO[str]) -> None:
        self.tail: collections.deque[str] = collections.deque(maxlen=30)
        self._downloads = 0
        self._packages = 0
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def doing(self) -> str:
        if self._packages:
            return f"{self._packages} packages compiled"
        return f"{self._downloads} modules downloaded" if self._downloads else "looking at what is there"

    def finish(self) -> None:
        self._reader.join(timeout=10)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            text = line.rstrip()
            self.tail.append(text[:500])
            if text.startswith("go: downloading "):
                self._downloads += 1
            elif re.fullmatch(r"[a-z0-9][\w.\-~/]*", text):
                self._packages += 1
