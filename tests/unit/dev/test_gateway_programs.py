"""The gateways' programs: what their cache is keyed by, and a clear word where one is missing."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest

from keyturn_dev import gateway_programs
from keyturn_dev.errors import DevError
from keyturn_dev.gateway_programs import GO_GATEWAYS, ensure_gateway, go_gateway
from keyturn_dev.progress import Progress
from tests.unit.dev.programs import write_program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", GO_GATEWAYS)
def test_a_gateway_built_from_a_module_is_keyed_by_its_version(name: str) -> None:
    assert re.fullmatch(rf"{name}-v\d+\.\d+\.\d+-[0-9a-f]{{16}}", go_gateway(name).key)


def test_another_pin_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = go_gateway("caddy")
    copy = tmp_path / "caddy"
    copy.mkdir()
    for file in ("go.mod", "go.sum"):
        (copy / file).write_text((real.module / file).read_text())
    monkeypatch.setattr(gateway_programs, "GATEWAYS", tmp_path)
    assert go_gateway("caddy").key == real.key
    (copy / "go.sum").write_text("other sums")
    assert go_gateway("caddy").key != real.key


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_a_gateway_of_the_system_is_found_on_the_path(name: str, tmp_path: Path) -> None:
    program = write_program(tmp_path, name, "exit 0")
    assert ensure_gateway(name, {"PATH": str(tmp_path)}, Progress(io.StringIO())) == program


def test_a_gateway_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_programs, "_SYSTEM_FOLDERS", ())
    with pytest.raises(DevError, match="nginx is not installed; on Debian: apt-get install nginx"):
        ensure_gateway("nginx", {"PATH": str(tmp_path)}, Progress(io.StringIO()))
