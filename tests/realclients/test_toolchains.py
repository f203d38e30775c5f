"""What a machine lacks is said in one sentence, and what was built is built once."""

from pathlib import Path

import pytest

from keyturn_dev.errors import DevError
from tests.realclients.toolchains import find_java, find_node, kept_folder, version_of


def program(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize("says", [None, 'openjdk version "11.0.2"'], ids=["none", "an old one"])
def test_a_machine_without_a_java_that_is_recent_enough_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if says is not None:
        program(tmp_path, "java", says)
    with pytest.raises(DevError, match="default-jdk-headless and maven"):
        find_java()


def test_a_node_that_is_recent_enough_is_taken_from_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "npm", "10")
    program(tmp_path, "node", "v22.1.0")
    assert find_node() == tmp_path / "node"


def test_a_program_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    assert version_of([str(tmp_path / "nothing")]) == 0


def test_a_folder_is_filled_once_for_the_same_files_and_is_not_there_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lock = tmp_path / "lock"
    lock.write_text("1", encoding="utf-8")
    filled: list[Path] = []

    def fill(partial: Path) -> None:
        filled.append(partial)
        (partial / "program").touch()
        if len(filled) == 1:
            raise DevError("the registry is away")

    with pytest.raises(DevError, match="away"):
        kept_folder("x", [lock], fill)
    first = kept_folder("x", [lock], fill)
    assert kept_folder("x", [lock], fill) == first
    assert (first / "program").exists()
    assert len(filled) == 2
    lock.write_text("2", encoding="utf-8")
    assert kept_folder("x", [lock], fill) != first
    assert list(first.parent.glob("*.partial-*")) == []
