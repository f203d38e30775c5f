"""What holds for the whole command: version, help, and examples that are true."""

from __future__ import annotations

import shlex
from importlib.metadata import entry_points, version

import pytest

from keyturn_cli.main import main
from tests.keyturn_words import check, every_command

from .command import keyturn


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


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_has_examples_in_its_help_and_each_can_be_meant(command: tuple[str, ...]) -> None:
    lines = [line.strip() for line in keyturn(*command, "--help").stdout.splitlines()]
    examples = [shlex.split(line)[1:] for line in lines if line.startswith("$ ")]
    assert examples
    for words in examples:
        assert words[0] in ("keyturn", "kubectl")
        arguments = words[words.index("keyturn") + 1 :]
        assert tuple(arguments[: len(command)]) == command
        check(arguments)


def test_the_exit_codes_stand_in_the_help() -> None:
    text = " ".join(keyturn("token", "--help").stdout.split())
    assert "0 done; 1 the server refused; 2 the command line or the key can't be used; 3 the server can't be" in text


def test_an_unknown_command_is_a_usage_error() -> None:
    assert keyturn("tokens").exit_code == 2
