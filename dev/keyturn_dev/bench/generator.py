"""The load generator: built once into the user's cache, run with bounds on time and number."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.golang import build_environment, find_go, required_go
from keyturn_dev.locking import exclusive
from keyturn_dev.paths import PROJECT, cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from keyturn_dev.progress import Progress

SOURCE = PROJECT / "dev" / "loadgen"
_BUILD_SECONDS = 900
_FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
_GRACE = 30.0


@dataclasses.dataclass(frozen=True)
class Load:
    """What one run came to, as the generator saw it. Latencies in ms; `sample`: the beginning of the first bad answer."""

    answered: int
    unexpected: int
    broken: int
    seconds: float
    p50: float
    p99: float
    cpu: float
    ran_out: bool
    sample: str

    @property
    def failed(self) -> int:
        return self.unexpected + self.broken


def parse_load(text: str) -> Load:
    """Read the generator's line; raise `DevError` if it is none."""
    try:
        report = json.loads(text)
        return Load(
            answered=int(report["answered"]),
            unexpected=int(report["unexpected"]),
            broken=int(report["broken"]),
            seconds=float(report["seconds"]),
            p50=float(report["p50_ms"]),
            p99=float(report["p99_ms"]),
            cpu=float(report["cpu_seconds"]),
            ran_out=bool(report["ran_out"]),
            sample=str(report["sample"]),
        )
    except (ValueError, KeyError, TypeError):
        raise DevError(f"the load generator wrote no report: {text[:200]!r}") from None


def cache_key(sources: Mapping[str, bytes]) -> str:
    """Return the name under which the program is cached: a hash of all that decides it."""
    digest = hashlib.sha256("\0".join(_FLAGS).encode())
    for name in sorted(sources):
        content = sources[name]
        digest.update(b"\0%b\0%d\0%b" % (name.encode(), len(content), content))
    return f"loadgen-{digest.hexdigest()[:16]}"


def ensure_generator(environ: Mapping[str, str], progress: Progress) -> Path:
    """Return the program, building it if the cache lacks it; raise `DevError` with the compiler's words."""
    sources = {
        path.name: path.read_bytes() for path in SOURCE.iterdir() if path.name == "go.mod" or path.suffix == ".go"
    }
    program = cache_folder(environ) / "bin" / cache_key(sources)
    if program.exists():
        return program
    lock = program.with_name(program.name + ".lock")
    with exclusive(lock, "building the load generator", seconds=_BUILD_SECONDS, on_wait=progress.say):
        if not program.exists():
            go = find_go(required_go(sources["go.mod"].decode()), environ, progress)
            partial = program.with_name(program.name + ".partial")
            progress.begin("building the load generator")
            try:
                done = subprocess.run(
                    [str(go), "build", *_FLAGS, "-o", str(partial), "."],
                    cwd=SOURCE,
                    env=build_environment(environ),
                    capture_output=True,
                    text=True,
                    timeout=_BUILD_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise DevError("building the load generator took longer than 15 minutes") from None
            if done.returncode != 0:
                progress.abandon()
                raise DevError(f"building the load generator failed:\n{done.stderr[-3000:].strip()}")
            # It appears under its name at once, whole, or not at all.
            os.replace(partial, program)  # noqa: PTH105 - the name of the atomic operation
            progress.end("building the load generator")
    return program


def send(
    program: Path,
    address: str,
    requests: Path,
    *,
    connections: int,
    seconds: float,
    once: bool,
    limit: int | None = None,
    rate: float | None = None,
) -> Load:
    """Send the requests of a file and return what came of it; raise `DevError` if the server broke off too often.

    `rate`: requests a second, at even intervals; without it each connection sends the next one at once.
    """
    command = [str(program), *_arguments(address, requests, connections, seconds)]
    if once:
        command.append("-once")
    if limit is not None:
        command += ["-limit", str(limit)]
    if rate is not None:
        command += ["-rate", str(rate)]
    return _report(command, seconds)


def send_checks(
    program: Path, address: str, requests: Path, *, connections: int, seconds: float, once: bool = False
) -> Load:
    """Send the messages of a file by gRPC, as often as there is time; a call under way for each of `connections`."""
    del program
    assert not once
    module = [sys.executable, "-m", "keyturn_dev.bench.grpc_load"]
    return _report([*module, *_arguments(address, requests, connections, seconds)], seconds)


def _arguments(address: str, requests: Path, connections: int, seconds: float) -> list[str]:
    arguments = ["-address", address, "-requests", str(requests)]
    return [*arguments, "-connections", str(connections), "-seconds", str(seconds)]


def _report(command: list[str], seconds: float) -> Load:
    try:
        # `run` kills its child whichever way it is left; and the program ends by itself within its bounds.
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + _GRACE, check=False
        )
    except subprocess.TimeoutExpired:
        raise DevError("the load generator did not end in time") from None
    if done.returncode != 0:
        raise DevError(done.stderr.strip()[-2000:] or f"the load generator ended with {done.returncode}")
    return parse_load(done.stdout)
