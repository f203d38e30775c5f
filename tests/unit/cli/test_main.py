"""What holds for the whole command: version, help, and examples that are true."""

from __future__ import annotations

import shlex
from importlib.metadata import entry_points, version

import pytest
import typer
from typer.core import TyperGroup

from keyturn_cli.main import app, main

from .command import keyturn

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)
WITH_EXAMPLES = sorted(set(GROUP.commands) - {"version"})


def examples_of(command: str) -> list[str]:
    """The lines after a `$` in the command's help, as a person sees them."""
    result = keyturn(command, "--help")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.mark.parametrize("arguments", [["--version"], ["version"]], ids=" ".join)
def test_the_version_is_the_distributions(arguments: list[str]) -> None:
    result = keyturn(*arguments)
    assert (result.exit_code, result.stdout) == (0, f"keyturn {version('keyturn')}\n")


def test_the_console_script_is_this_command() -> None:
    (script,) = entry_points(group="console_scripts", name="keyturn")
    assert script.load() is main


def test_help_names_every_command() -> None:
    result = keyturn("--help")
    assert result.exit_code == 0
    for command in ("keygen", "token", "version"):
        assert command in result.stdout


@pytest.mark.parametrize("command", WITH_EXAMPLES)
def test_every_example_in_the_help_parses(command: str) -> None:
    assert isinstance(GROUP, TyperGroup)
    examples = examples_of(command)
    assert examples
    for example in examples:
        program, name, *arguments = shlex.split(example)
        assert (program, name) == ("keyturn", command)
        GROUP.commands[name].make_context(name, arguments)


def test_the_exit_codes_stand_in_the_help() -> None:
    text = " ".join(keyturn("token", "--help").stdout.split())
    assert "0 done; 1 the server refused; 2 the command line or the key can't be used; 3 the server can't be" in text


def test_an_unknown_command_is_a_usage_error() -> None:
    assert keyturn("tokens").exit_code == 2
