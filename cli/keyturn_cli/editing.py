"""How a command edits an object: the difference is shown, the person is asked, and what is managed elsewhere is left alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from . import change as changes
from .client_view import managed_by
from .errors import CommandError, Exit
from .listing import Output, print_objects
from .output import printable, say

if TYPE_CHECKING:
    from .change import Change
    from .kube import Kube, Object

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Change it without asking.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Change even what Argo CD, Flux or Helm manages, which may undo it.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; stdout holds the manifest as it would be, for Git.")
]
EditOutputOption = Annotated[
    Output | None,
    typer.Option("--output", "-o", help="Write the changed object to stdout.", show_default=False),
]
CODES: Final = (
    "\n\nExit codes: 0 done, or nothing to do; 1 refused, changed by somebody else meanwhile, or not agreed to; 2 the command line or the "
    "kubeconfig can't be used, or there is nobody to ask; 3 the API server can't be reached."
)
_STYLES: Final = {"+": "green", "-": "red", "@": "cyan"}


def edit(
    kube: Kube,
    change: Change,
    *,
    question: str,
    done: str,
    yes: bool = False,
    force: bool = False,
    dry_run: bool = False,
    output: Output | None = None,
) -> None:
    """Shows the change, asks, applies it and says that it is done. Says so when there is nothing to do.

    Raises:
        CommandError: refused, managed elsewhere, changed meanwhile (what was changed has been shown then), or not agreed to.
    """
    name = printable(change.before["metadata"]["name"])
    if change.changes_nothing and not dry_run:
        say(f"{name} is so already; nothing was changed.")
        _show(change.before, output)
        return
    for line in change.difference():
        say(line, style=_STYLES.get(line[0], ""))
    if dry_run:
        typer.echo(change.to_yaml(), nl=False)
        return
    if (tool := managed_by(change.before)) is not None and not force:
        raise CommandError(
            f"{name} is managed by {tool}, which may undo a change that is made here; nothing was changed.",
            "Change it at its source (--dry-run prints the manifest), or give --force.",
            Exit.REFUSED,
        )
    confirm(question, yes=yes)
    try:
        after = changes.apply(kube, change)
    except changes.Conflict as conflict:
        say("Meanwhile:")
        for line in conflict.difference:
            say(line, style=_STYLES.get(line[0], ""))
        raise
    say(done)
    _show(after, output)


def confirm(question: str, *, yes: bool) -> None:
    """Returns when a person agrees, or has agreed with --yes. Raises CommandError."""
    if yes:
        return
    if not is_interactive():
        raise CommandError(
            "There is nobody to ask; nothing was changed.", "Look at the difference, then add --yes.", Exit.USAGE
        )
    # By hand: other ways of asking write a part of the question to stdout, which programs read.
    typer.echo(f"{printable(question)} [y/N] ", err=True, nl=False)
    if sys.stdin.readline(100).strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was changed.", "", Exit.REFUSED)


def confirm_on_terminal(question: str, *, yes: bool) -> None:
    """Asks where there is somebody to ask; a script has said what it wants. Raises CommandError when a person does not agree."""
    if is_interactive():
        confirm(question, yes=yes)


def is_interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _show(obj: Object, output: Output | None) -> None:
    if output is Output.TABLE:
        output = Output.NAME
    if output is not None:
        print_objects([obj], output, single=True)
