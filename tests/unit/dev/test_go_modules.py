"""Modules that are taken for their files: pinned by version and checksum, and a clear word where they can't be had."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from keyturn_dev.errors import DevError
from keyturn_dev.go_modules import module_folder, read_sums
from keyturn_dev.paths import GATEWAYS
from keyturn_dev.progress import Progress
from tests.unit.dev.programs import write_program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "schemas.sum"
    path.write_text("example.com/schemas v1.2.3 h1:good=\n")
    return path


def folder(sums: Path, answer: object, module: str = "example.com/schemas") -> Path:
    """What comes of a `go` that answers so."""
    told = answer if isinstance(answer, str) else json.dumps(answer)
    script = f"""[ "$1" = version ] && {{ echo go version go1.99.0 linux/amd64; exit; }}\ncat <<'END'\n{told}\nEND"""
    write_program(sums.parent, "go", script)
    environ = {"PATH": f"{sums.parent}:/usr/bin:/bin", "HOME": str(sums.parent)}
    return module_folder(module, sums, environ, Progress(io.StringIO()))


def test_the_folder_is_what_go_says(sums: Path, tmp_path: Path) -> None:
    assert folder(sums, {"Sum": "h1:good=", "Dir": str(tmp_path)}) == tmp_path


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param({"Sum": "h1:other=", "Dir": "/"}, "not the one that schemas.sum pins", id="another content"),
        pytest.param({"Error": "not found"}, "not found", id="an error"),
        pytest.param("no JSON", "go does not download example.com/schemas", id="no answer"),
    ],
)
def test_a_module_that_is_not_the_pinned_one_is_refused(sums: Path, answer: object, message: str) -> None:
    with pytest.raises(DevError, match=message):
        folder(sums, answer)


def test_a_module_that_is_not_pinned_is_refused(sums: Path) -> None:
    with pytest.raises(DevError, match=r"does not pin example\.com/else"):
        folder(sums, {}, module="example.com/else")


def test_our_list_pins_each_module_once() -> None:
    text = (GATEWAYS / "schemas.sum").read_text()
    assert len(read_sums(text)) == len(text.splitlines())
