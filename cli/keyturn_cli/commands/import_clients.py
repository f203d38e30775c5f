"""`keyturn import`: the reference's client collection as ClientCredentials."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from keyturn.jose.strict_json import InvalidJson, parse_object

from ..client_import import Import, import_clients
from ..errors import CommandError, Exit
from ..files import NewFile, write_all
from ..help import examples
from ..manifest import to_yaml
from ..output import say
from ..progress import working
from .convert import check_namespace

EPILOG: Final = examples(
    "keyturn import clients.json -o clients.yaml --secrets secrets.yaml --report differences.json",
    "keyturn import clients.json --namespace shop",
    "keyturn import -",
) + (
    "\n\nExit codes: 0 everything was imported; 1 something was left out (the report tells what); "
    "2 the command line or the file can't be used."
)
MAX_BYTES: Final = 64 * 1024 * 1024
OutputFile = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write here instead of stdout; replaces the file.", show_default=False
    ),
]


def import_collection(
    collection: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="The collection in JSON: a list, or an object a line, as mongoexport writes it; - reads stdin.",
            show_default=False,
        ),
    ],
    output: OutputFile = None,
    secrets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the Secrets with the hashes of the clients' secrets here, readable by you alone; replaces the file.",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", callback=check_namespace, help="The objects' namespace.", show_default=False),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report here too, in JSON.", show_default=False)
    ] = None,
) -> None:
    """Turn the reference's client collection into ClientCredentials.

    Every client keeps its id, its key or its secret, and its permissions. What differs is reported on stderr. The hashes of secrets
    stand in a file of their own, since they belong into no repository.
    """
    with working("Reading the clients"):
        imported = import_clients(read_records(collection), namespace=namespace)
    for finding in imported.findings:
        say(str(finding), style="red" if finding.lost else "")
    if report is not None:
        text = json.dumps(report_body(imported), ensure_ascii=False, indent=2)
        write_all([NewFile(report, f"{text}\n".encode())], overwrite=True)
    if not imported.clients:
        raise CommandError("Nothing was written: no client could be imported.", "See the report.", Exit.REFUSED)
    if imported.secrets and secrets is not None:
        write_all([NewFile(secrets, _documents(imported.secrets), private=True)], overwrite=True)
        say(f"Wrote {len(imported.secrets)} Secret(s) to {secrets}; apply them with the clients.")
    elif imported.secrets:
        say(
            f"{len(imported.secrets)} client(s) wait for their Secret: write those with --secrets FILE.", style="yellow"
        )
    with working("Writing the manifests"):
        manifests = _documents(imported.clients)
    if output is None:
        typer.echo(manifests.decode(), nl=False)
    else:
        write_all([NewFile(output, manifests)], overwrite=True)
        say(f"Wrote {len(imported.clients)} ClientCredential(s) to {output}.")
    if not imported.complete:
        raise typer.Exit(Exit.REFUSED)


def read_records(name: str) -> list[object]:
    """The records of a file. Raises CommandError where it can't be read in only one way."""
    try:
        if name == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unusable(name, error.strerror or "it can't be read") from None
    if len(content) > MAX_BYTES:
        raise _unusable(name, f"it is longer than {MAX_BYTES} bytes")
    content = content.removeprefix(b"\xef\xbb\xbf").strip()
    if content.startswith(b"["):
        # As a member, so that the strict reader, which takes objects, reads the list.
        return _list(name, b'{"clients":' + content + b"}")
    lines = [line for line in content.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}") for line in lines):
        return [_object(name, line) for line in lines]
    record = _object(name, content)
    return _list(name, content) if "clients" in record else [record]


def _list(name: str, content: bytes) -> list[object]:
    records = _object(name, content).get("clients")
    if not isinstance(records, list):
        raise _unusable(name, "its member clients is no list")
    return records


def _object(name: str, content: bytes) -> dict[str, Any]:
    try:
        return parse_object(content)
    except InvalidJson as error:
        raise _unusable(name, str(error)) from None


def _unusable(name: str, cause: str) -> CommandError:
    shown = "The collection on stdin" if name == "-" else name
    return CommandError(f"{shown} can't be used: {cause}.", "A JSON list of clients is needed.", Exit.USAGE)


def report_body(imported: Import) -> dict[str, Any]:
    return {
        "complete": imported.complete,
        "read": imported.read,
        "clients": len(imported.clients),
        "secrets": len(imported.secrets),
        "findings": [finding.to_body() for finding in imported.findings],
    }


def _documents(objects: list[dict[str, Any]]) -> bytes:
    return "---\n".join(to_yaml(one) for one in objects).encode()
