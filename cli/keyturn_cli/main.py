"""The `keyturn` command: its sub-commands put together, and what holds for all of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from keyturn import __version__

from .commands import (
    bundle,
    clients,
    console,
    convert,
    doctor,
    explain,
    import_clients,
    keygen,
    revoke,
    rotate,
    test,
    token,
)
from .errors import CommandError
from .help import examples
from .output import report_failure

if TYPE_CHECKING:
    from collections.abc import Callable


class Commands(TyperGroup):
    """Turns a command's failure into its sentence and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandError as error:
            report_failure(error.problem, error.next_step)
            raise typer.Exit(error.code) from None


app = typer.Typer(
    name="keyturn",
    cls=Commands,
    no_args_is_help=True,
    # Never a traceback with values in it: they may be keys.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def add(command: Callable[..., None], epilog: str, *, name: str | None = None) -> None:
    """`name` is the function's unless given."""
    app.command(name, epilog=epilog)(command)


def print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"keyturn {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """OAuth 2.0 client credentials as Kubernetes resources: keys, tokens and what becomes of them."""


add(keygen.keygen, keygen.EPILOG)
add(token.token, token.EPILOG)
add(test.try_rules, test.EPILOG, name="test")
add(explain.explain, explain.EPILOG)
add(convert.convert, convert.EPILOG)
add(import_clients.import_collection, import_clients.EPILOG, name="import")
add(doctor.doctor, doctor.EPILOG)
add(bundle.bundle, bundle.EPILOG)
app.add_typer(clients.clients)
add(revoke.revoke, revoke.EPILOG)
app.add_typer(rotate.rotate)
add(console.console, console.EPILOG)


@app.command(epilog=examples("keyturn version", "kubectl keyturn version"))
def version() -> None:
    """Print the version."""
    print_version(True)


def main() -> None:
    """The console script, by its own name and as kubectl's plugin."""
    plugin = Path(sys.argv[0]).name.removesuffix(".exe") == "kubectl-keyturn"
    app(prog_name="kubectl keyturn" if plugin else "keyturn")


if __name__ == "__main__":
    main()
