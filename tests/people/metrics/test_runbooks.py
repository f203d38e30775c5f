"""The commands of the alerts' runbooks, read out of the pages and run as they stand against a running installation."""

import pytest

from tests.cluster.clients import World
from tests.documents import PROJECT, RUN_BY, blocks

RUNBOOKS = sorted((PROJECT / "docs" / "runbooks").glob("*.md"))
COMMANDS = sorted(
    {
        line
        for page in RUNBOOKS
        for block in blocks(page)
        if RUN_BY.fullmatch(block.mark)
        for line in block.text.splitlines()
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_runbooks_command_does_what_the_page_says(command: str, world: World) -> None:
    program, *arguments = command.split()
    assert program == "kubectl"
    assert "'" not in command
    # Nothing in a runbook's first look changes anything.
    assert arguments[0] in ("get", "describe", "logs")
    world.kubectl(*arguments)


def test_each_page_has_something_to_look_at() -> None:
    assert len(RUNBOOKS) > 20
    assert all(blocks(page) for page in RUNBOOKS)
