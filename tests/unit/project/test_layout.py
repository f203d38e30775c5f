"""What holds for the project's files as a whole."""

import importlib.metadata
import operator
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyturn_dev.node_images import DEBIAN_PACKAGES

PROJECT = Path(__file__).parents[3]
ROOTS = ("core", "operator", "api", "cli", "dev")
# Made on this machine, not part of the project.
MADE = {"__pycache__", "dist", "node_modules"}
KEPT_HIDDEN = {".ci", ".gitignore", ".github"}
# Written by tools, which name registries in them.
LOCK_FILES = {"uv.lock", "go.sum"}
# In pieces, so that this file does not match itself.
HOSTS = ("pypi" + r"\.org", "python" + r"hosted\.", "proxy" + r"\.golang", "npm" + r"js\.", "deb" + r"ian\.org")
FOLDERS = ("/wo" + "rk/", "/ro" + "ot/", "/bash_" + "jobs")


def own_files(folder: Path = PROJECT) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        if entry.name in MADE or (entry.name.startswith(".") and entry.name not in KEPT_HIDDEN):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from own_files(Path(entry.path))
        else:
            yield Path(entry.path)


def test_no_two_packages_bring_the_same_file() -> None:
    """Which of the two an environment or an image gets would be a matter of chance."""
    owners: dict[str, set[str]] = {}
    for package in importlib.metadata.distributions():
        for path in package.files or ():
            if path.suffix in (".py", ".so"):
                owners.setdefault(str(path), set()).add(package.name)
    assert len(owners) > 1000
    assert {path: names for path, names in owners.items() if len(names) > 1} == {}


def test_no_source_root_is_a_package() -> None:
    assert [root for root in ROOTS if (PROJECT / root / "__init__.py").exists()] == []
    assert not (PROJECT / "operator.py").exists()


def test_the_module_operator_is_the_standard_librarys() -> None:
    assert operator.__file__ is not None
    assert Path(operator.__file__).parent == Path(sysconfig.get_path("stdlib"))


@pytest.mark.parametrize(
    "pattern",
    [pytest.param(one, id=f"host {number}") for number, one in enumerate(HOSTS)]
    + [pytest.param(one, id=f"folder {number}") for number, one in enumerate(FOLDERS)],
)
def test_the_project_names_no_registry_and_no_folder_of_the_machine_it_was_written_on(pattern: str) -> None:
    sought = re.compile(pattern.encode())
    files = [path for path in own_files() if path.name not in LOCK_FILES]
    assert Path(__file__) in files
    assert [str(path.relative_to(PROJECT)) for path in files if sought.search(path.read_bytes())] == []


def test_ci_runs_the_commands_that_the_readme_names() -> None:
    script = (PROJECT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## Work on it") :]
    named = re.findall(r"^    (make .*)$", section, re.MULTILINE)
    assert re.findall(r"^make .*$", script, re.MULTILINE) == named
    assert named == ["make check", "make test-node", "make test"]


def test_ci_installs_what_the_readme_names() -> None:
    script = (PROJECT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    named = {
        name
        for line in re.findall(r"apt-get install -y --no-install-recommends (.*)$", readme, re.MULTILINE)
        for name in line.split()
    }
    listed = re.search(r"packages=\(\n(.*?)\n\)", script, re.DOTALL)
    assert listed is not None
    assert {name for line in listed[1].splitlines() if "#" not in line for name in line.split()} == named
    assert set(DEBIAN_PACKAGES) <= named


def test_the_layers_are_checked_by_make_check() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    for tool in ("uv", "ruff format", "ruff check", "mypy", "lint_imports"):
        assert tool.replace("uv", "$(UV) lock") in recipe[1]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs/architecture.md"])
def test_a_newcomer_finds(name: str) -> None:
    assert (PROJECT / name).stat().st_size > 0
