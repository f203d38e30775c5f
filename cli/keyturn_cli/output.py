"""What people read goes to stderr, what programs read goes to stdout, so that `TOKEN=$(keyturn token …)` works."""

from __future__ import annotations

import unicodedata

from rich.console import Console
from rich.text import Text

MAX_FOREIGN_CHARACTERS = 300


def say(text: str, *, style: str = "") -> None:
    """Writes a line for people to stderr: unwrapped, so that a command in it can be copied."""
    # A console a call: stderr may have been replaced since the import.
    Console(stderr=True, highlight=False).print(Text(text, style=style), soft_wrap=True)


def report_failure(problem: str, next_step: str) -> None:
    say(f"{problem} {next_step}".strip(), style="red")


def printable(foreign: str) -> str:
    """A server's text on one bounded line: without control characters, which could rewrite what the terminal shows."""
    kept = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in foreign)
    kept = " ".join(kept.split())
    return kept if len(kept) <= MAX_FOREIGN_CHARACTERS else kept[: MAX_FOREIGN_CHARACTERS - 1] + "…"
