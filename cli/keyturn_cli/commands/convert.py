"""`keyturn convert`: the reference's authorization configuration as AccessRules."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from keyturn.jose.strict_json import InvalidJson, parse_object

from ..access_rule import access_rule
from ..conversion import Conversion, split
from ..conversion import convert as convert_configuration
from ..errors import CommandError, Exit
from ..files import NewFile, write_all
from ..help import examples
from ..manifest import to_yaml
from ..output import say
from ..progress import working

EPILOG: Final = examples(
    "keyturn convert auth.json -o rules.yaml",
    "keyturn convert auth.json --name shop --namespace team-a --report differences.json",
    "keyturn convert - --name shop",
) + (
    "\n\nExit codes: 0 everything was converted; 1 something was left out or written closed (the report tells what); "
    "2 the command line or the file can't be used."
)

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_NAME: Final = 240
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_name(value: str) -> str:
    if len(value) > MAX_NAME or ".." in value or not _NAME.fullmatch(value):
        raise typer.BadParameter(f"is no object name: lower-case letters, digits, - and ., at most {MAX_NAME}")
    return value


def check_namespace(value: str | None) -> str | None:
    if value is not None and not _NAMESPACE.fullmatch(value):
        raise typer.BadParameter("is no namespace: lower-case letters, digits and -, at most 63")
    return value


def convert(
    configuration: Annotated[
        str,
        typer.Argument(metavar="FILE", help="The configuration in JSON; - reads stdin.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write here instead of stdout; replaces the file.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(callback=check_name, help="The objects' name; further ones are NAME-2, NAME-3 and so on.")
    ] = "converted",
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", callback=check_namespace, help="The objects' namespace.", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the report here too, in JSON.", show_default=False),
    ] = None,
) -> None:
    """Turn the reference's authorization configuration into AccessRules.

    Reads {path: {METHOD or ALL: {authorization: {expression, public}, backofficeAuthorization: {…}}}}. What means something else
    with Keyturn is reported on stderr. What can't be converted is left out or written closed, never opened; where leaving a
    path out would leave its requests to a wider one, nothing is written.
    """
    with working("Reading the rules"):
        conversion = convert_configuration(read_configuration(configuration))
    for difference in conversion.differences:
        say(str(difference), style="red" if difference.lost else "")
    parts = split(conversion.routes)
    if report is not None:
        text = json.dumps(report_body(conversion, len(parts)), ensure_ascii=False, indent=2)
        write_all([NewFile(report, f"{text}\n".encode())], overwrite=True)
    if conversion.would_open:
        raise CommandError(
            "Nothing was written: a path that can't be converted would be left to a wider one.",
            "Mend or remove the paths reported as WouldOpen.",
            Exit.REFUSED,
        )
    if not parts:
        raise CommandError("Nothing was written: no route could be converted.", "See the report.", Exit.REFUSED)
    with working("Writing the manifests"):
        manifests = "---\n".join(
            to_yaml(access_rule(name=name if index == 1 else f"{name}-{index}", namespace=namespace, routes=routes))
            for index, routes in enumerate(parts, start=1)
        )
    if output is None:
        typer.echo(manifests, nl=False)
    else:
        write_all([NewFile(output, manifests.encode())], overwrite=True)
        say(f"Wrote {len(conversion.routes)} route(s) in {len(parts)} AccessRule(s) to {output}.")
    if not conversion.complete:
        raise typer.Exit(Exit.REFUSED)


def read_configuration(name: str) -> dict[str, Any]:
    """Raises CommandError where the file can't be read or is no JSON object that can be read in only one way."""
    try:
        if name == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise unusable(name, error.strerror or "it can't be read") from None
    if len(content) > MAX_BYTES:
        raise unusable(name, f"it is longer than {MAX_BYTES} bytes")
    try:
        return parse_object(content.removeprefix(b"\xef\xbb\xbf"))
    except InvalidJson as error:
        raise unusable(name, str(error)) from None


def unusable(name: str, cause: str) -> CommandError:
    shown = "The configuration on stdin" if name == "-" else name
    return CommandError(f"{shown} can't be used: {cause}.", "A JSON object of paths is needed.", Exit.USAGE)


def report_body(conversion: Conversion, objects: int) -> dict[str, Any]:
    return {
        "complete": conversion.complete,
        "written": bool(objects) and not conversion.would_open,
        "routes": len(conversion.routes),
        "objects": objects,
        "differences": [difference.to_body() for difference in conversion.differences],
    }
