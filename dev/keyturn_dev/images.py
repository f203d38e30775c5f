"""The container images `keyturn-operator` and `keyturn-api`, and what each holds as CycloneDX documents.

`python -m keyturn_dev.images` builds both with docker, podman or buildah, whichever is there. Nothing is pushed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from keyturn_dev.errors import DevError, UsageError
from keyturn_dev.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PARTS: Final = ("operator", "api")
ENGINES: Final = ("docker", "podman", "buildah")
REPOSITORY: Final = "ghcr.io/keyturn/keyturn"
_BUILD_SECONDS: Final = 1800
_READ_SECONDS: Final = 120
# Its version in the first line, then what dpkg says of its packages, if there is a dpkg.
_LOOK: Final = (
    "import pathlib, platform; p = pathlib.Path('/var/lib/dpkg/status'); "
    "print(platform.python_version()); print(p.read_text(encoding='utf-8') if p.exists() else '')"
)


def image_name(part: str, tag: str, repository: str = REPOSITORY) -> str:
    """The image's full name, `<repository>-<part>:<tag>`, as the chart's values have it."""
    return f"{repository}-{part}:{tag}"


def find_engine(named: str | None, environ: Mapping[str, str]) -> str:
    """The program that builds images: the one named, else the first that is there. Raises `DevError` when there is none."""
    for engine in ENGINES if named is None else (named,):
        if shutil.which(engine, path=environ.get("PATH")) is not None:
            return engine
    wanted = " or ".join(ENGINES) if named is None else named
    raise DevError(f"{wanted} is needed to build images, and not in the PATH")


def build_command(engine: str, part: str, image: str, *, base: str | None, options: Sequence[str] = ()) -> list[str]:
    """The command line that builds one target of the Dockerfile. `options`: further ones for this engine's build."""
    command = [engine, "build"] if engine != "buildah" else [engine, "build", "--layers"]
    if base is not None:
        command += ["--build-arg", f"BASE={base}"]
    return [*command, *options, "--target", part, "--tag", image, str(PROJECT)]


def build(
    part: str,
    image: str,
    *,
    engine: str,
    base: str | None = None,
    options: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> None:
    """Builds one image. Raises `DevError` with the end of the output when that fails."""
    _run(build_command(engine, part, image, base=base, options=options), _BUILD_SECONDS, environ)


def bill_of_materials(
    part: str, image: str, *, engine: str, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the image holds, CycloneDX 1.5: the Python packages of uv.lock for this part, the interpreter, and the base's Debian packages.

    A base of another distribution keeps its own list of packages, which scanners find in the image.
    """
    uv = PROJECT / ".tools" / "venv" / "bin" / "uv"
    exported = _run(
        [
            str(uv), "export", "--quiet", "--locked", "--no-default-groups", "--extra", part, "--extra", "tracing",
            "--format", "cyclonedx1.5", "--preview-features", "sbom-export", "--project", str(PROJECT),
        ],
        _READ_SECONDS,
        environ,
    )  # fmt: skip
    document: dict[str, Any] = json.loads(exported)
    document["metadata"]["component"] |= {"type": "container", "name": image.rpartition(":")[0]}
    version, _, status = _run_python(image, _LOOK, engine, environ).partition("\n")
    document["components"] += [interpreter(version.strip()), *debian_components(status)]
    return document


def interpreter(version: str) -> dict[str, Any]:
    """CPython as a CycloneDX component: the public images build it from source, so that no package stands for it."""
    purl = f"pkg:generic/cpython@{version}"
    name = f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"
    return {"type": "application", "bom-ref": purl, "name": "cpython", "version": version, "purl": purl, "cpe": name}


def debian_components(status: str) -> list[dict[str, Any]]:
    """The installed packages of dpkg's status file as CycloneDX components; an empty list for a base without dpkg."""
    components = []
    for stanza in re.split(r"\n{2,}", status):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.+)$", stanza, re.MULTILINE))
        if fields.get("Status") != "install ok installed":
            continue
        name, version = fields["Package"], fields["Version"]
        purl = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}"
        components.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    return components


def _run_python(image: str, code: str, engine: str, environ: Mapping[str, str] | None) -> str:
    if engine != "buildah":
        command = [engine, "run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", code]
        return _run(command, _READ_SECONDS, environ)
    container = _run([engine, "from", "--pull-never", image], _READ_SECONDS, environ).strip()
    try:
        return _run([engine, "run", container, "--", "python", "-c", code], _READ_SECONDS, environ)
    finally:
        _run([engine, "rm", container], _READ_SECONDS, environ)


def _run(command: Sequence[str], seconds: float, environ: Mapping[str, str] | None) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, env=environ or os.environ
        )
    except subprocess.TimeoutExpired as error:
        raise DevError(f"{' '.join(command[:2])} took longer than {seconds:.0f} s") from error
    if done.returncode:
        raise DevError(f"{' '.join(command[:2])} failed:\n{(done.stderr or done.stdout)[-3000:]}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds both images and writes their bills of materials; the exit status is 0, 1 (failed) or 2 (wrongly called)."""
    parser = argparse.ArgumentParser(prog="python -m keyturn_dev.images", description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, help="default: the first of these that is in the PATH")
    parser.add_argument("--base", help="the base image; default: the Dockerfile's")
    parser.add_argument(
        "--repository", default=REPOSITORY, help="what the images' names begin with (default: %(default)s)"
    )
    parser.add_argument("--tag", default="0.1.0", help="their tag (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=PROJECT / "dist", help="where the bills go (default: %(default)s)")
    parser.add_argument(
        "--option", action="append", default=[], help="a further option of the engine's build, as --option=…"
    )
    options = parser.parse_args(arguments)
    try:
        engine = find_engine(options.engine, os.environ)
        options.out.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            image = image_name(part, options.tag, options.repository)
            print(f"building {image} with {engine}", file=sys.stderr)
            build(part, image, engine=engine, base=options.base, options=options.option)
            bill = options.out / f"keyturn-{part}.cdx.json"
            bill.write_text(
                json.dumps(bill_of_materials(part, image, engine=engine), indent=1) + "\n", encoding="utf-8"
            )
            print(f"{image}\n{bill}")
    except (DevError, UsageError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
