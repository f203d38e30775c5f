"""How a command fails: one sentence, the next step, and an exit code that scripts can rely on."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command; they stay as they are."""

    OK = 0
    REFUSED = 1
    """The server answered and said no, or a file is in the way."""
    USAGE = 2
    """The command line, or a file that it names, can't be used."""
    UNREACHABLE = 3
    """No answer, or the server can't serve now."""


class CommandError(Exception):
    """A failure that a person can act on. Neither part ever holds key material, an assertion or a token."""

    def __init__(self, problem: str, next_step: str, code: Exit) -> None:
        super().__init__(problem)
        self.problem = problem
        self.next_step = next_step
        self.code = code
