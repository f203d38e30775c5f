"""`kubectl_complete-keyturn`: what kubectl asks for the words that may follow `kubectl keyturn …`."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys

import typer

from .main import app

# Cobra's directive: these words and no names of files.
NO_FILES = ":4"


def main() -> None:
    """kubectl gives the words so far, the last of which is being typed. Prints a word a line, then the directive."""
    words = sys.argv[1:] or [""]
    # The way in which a shell asks: kubectl has no other to offer for programs that are not written in Go.
    os.environ.update(
        _KEYTURN_COMPLETE="complete_bash", COMP_WORDS=shlex.join(["keyturn", *words]), COMP_CWORD=str(len(words))
    )
    with contextlib.suppress(SystemExit):
        app(prog_name="keyturn")
    typer.echo(NO_FILES)
