"""The images: how they are built, and what is said of them."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from keyturn_dev.errors import DevError
from keyturn_dev.images import bill_of_materials, build_command, debian_components, find_engine, image_name, interpreter
from keyturn_dev.paths import PROJECT

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: the C library
 Package: not a field

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2025b-0+deb12u1
"""


def test_the_installed_debian_packages_become_components() -> None:
    components = debian_components(STATUS)
    assert [one["purl"] for one in components] == [
        "pkg:deb/debian/libc6@2.36-9+deb12u10?arch=amd64",
        "pkg:deb/debian/tzdata@2025b-0+deb12u1?arch=all",
    ]
    assert {one["type"] for one in components} == {"library"}
    assert debian_components("\n") == []


def test_the_interpreter_is_told_so_that_scanners_know_it() -> None:
    told = interpreter("3.13.9")
    assert (told["purl"], told["cpe"]) == ("pkg:generic/cpython@3.13.9", "cpe:2.3:a:python:python:3.13.9:*:*:*:*:*:*:*")


# An engine that runs nothing: it notes how it was called, and answers as the image's Python would.
ENGINE = """#!/bin/sh
echo "$@" >>"{calls}"
case "$1" in from) echo a-container ;; run) printf '3.13.9\\n'; cat "{status}" ;; esac
"""


@pytest.mark.parametrize("engine", ["docker", "buildah"])
@pytest.mark.parametrize(
    ("part", "own", "foreign"), [("api", "fastapi", "kopf"), ("operator", "kopf", "fastapi")], ids=["api", "operator"]
)
def test_a_bill_names_what_the_image_holds(engine: str, part: str, own: str, foreign: str, tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    program = tmp_path / engine
    program.write_text(ENGINE.format(calls=tmp_path / "calls", status=tmp_path / "status"))
    program.chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    image = image_name(part, "9.9.9")
    bill: dict[str, Any] = bill_of_materials(part, image, engine=engine, environ=environ)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["metadata"]["component"]["type"] == "container"
    assert bill["metadata"]["component"]["name"] == f"ghcr.io/keyturn/keyturn-{part}"
    versions = {one["name"]: one["version"] for one in bill["components"]}
    lock = tomllib.loads((PROJECT / "uv.lock").read_text(encoding="utf-8"))
    locked = {one["name"]: one.get("version") for one in lock["package"]}
    for name in (own, "cryptography", "sqlalchemy"):
        assert versions[name] == locked[name]
    assert versions["cpython"] == "3.13.9"
    assert versions["libc6"] == "2.36-9+deb12u10"
    assert not {foreign, "pytest", "mypy", "typer"} & versions.keys()
    references = [one["bom-ref"] for one in bill["components"]]
    assert len(set(references)) == len(references)
    assert image in (tmp_path / "calls").read_text()


def test_the_engine_that_is_there_builds_and_none_is_told(tmp_path: Path) -> None:
    program = tmp_path / "podman"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_engine(None, {"PATH": str(tmp_path)}) == "podman"
    with pytest.raises(DevError, match="docker is needed"):
        find_engine("docker", {"PATH": str(tmp_path)})
    command = build_command("podman", "api", "x/y:1", base="registry.example/python@sha256:0")
    assert command[:4] == ["podman", "build", "--build-arg", "BASE=registry.example/python@sha256:0"]
    assert command[-5:] == ["--target", "api", "--tag", "x/y:1", str(PROJECT)]


def test_what_builds_the_project_is_of_one_version_each() -> None:
    """Else `uv sync` in the Dockerfile would take the newest of the day: uv.lock names the build's packages as constraints alone."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = tomllib.loads((PROJECT / "uv.lock").read_text(encoding="utf-8"))
    constraints = {one["name"]: one["specifier"] for one in lock["manifest"]["build-constraints"]}
    assert all(specifier.startswith("==") for specifier in constraints.values())
    required = [one.partition("==") for one in project["build-system"]["requires"]]
    assert [(name, f"=={version}") for name, _, version in required] == [("hatchling", constraints["hatchling"])]
    assert {"packaging", "pathspec", "pluggy", "trove-classifiers"} <= constraints.keys()
