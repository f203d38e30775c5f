"""The command line's own words: which commands there are, the examples in their help, and whether a line can be meant."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import typer.main
from typer.core import TyperGroup

from keyturn_cli.main import app


def _whole() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


GROUP = _whole()


def every_command() -> list[tuple[str, ...]]:
    """Each command and each group of commands, by its words."""
    return list(_below(GROUP, ()))


def _below(group: TyperGroup, before: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, command in sorted(group.commands.items()):
        yield (*before, name)
        if isinstance(command, TyperGroup):
            yield from _below(command, (*before, name))


def check(arguments: list[str]) -> None:
    """Follows the words after `keyturn` down to the command that they name, which must take the rest. Nothing is run.

    A command alone is a mention of it, whatever it needs. Raises KeyError for a command that is not there, and click's own errors.
    """
    command: Any = GROUP
    name = "keyturn"
    while isinstance(command, TyperGroup) and arguments:
        name, *arguments = arguments
        if name.startswith("-"):
            assert any(name in option.opts for option in command.params)
            assert arguments == []
            return
        command = command.commands[name]
    if arguments:
        command.make_context(name, arguments).close()


def examples(command: tuple[str, ...]) -> list[str]:
    """The lines after `$ keyturn` in a command's help, as a person sees it on a wide terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "keyturn_cli.main", *command, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1"},
    )
    return re.findall(r"^\s*\$ keyturn (.*\S)\s*$", done.stdout, re.MULTILINE)
