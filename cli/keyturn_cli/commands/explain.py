"""`keyturn explain`: why a request would be allowed or denied."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import Annotated, Final

import typer

from ..explanation import lines_of
from ..help import examples
from ..output import say
from ..question import NoRequest, Question, parse_request
from ..rule_files import load_rules

EPILOG: Final = (
    examples(
        "keyturn explain GET https://shop.example/orders/7 --rules rules/ --permission orders:read",
        "keyturn explain POST /orders --rules rules/ --group support --backoffice",
        "keyturn explain GET '/info%2f..%2fprivate' --rules rules/ --anonymous -o json",
    )
    + "\n\nExit codes: 0 explained, whatever the decision; 2 the command line or a file can't be used."
)


class Format(StrEnum):
    """How an explanation is written to stdout."""

    TEXT = "text"
    JSON = "json"


def explain(
    method: Annotated[str, typer.Argument(help="The request's method.", show_default=False)],
    url: Annotated[str, typer.Argument(help="Its URL, or its path where the host is not known.", show_default=False)],
    rules: Annotated[
        list[Path],
        typer.Option(
            metavar="PATH", help="A file or folder with AccessRule manifests; may repeat.", show_default=False
        ),
    ],
    permission: Annotated[
        list[str] | None, typer.Option(help="A permission of the caller; may repeat.", show_default=False)
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A group of the caller; may repeat.", show_default=False)
    ] = None,
    audience: Annotated[
        list[str] | None, typer.Option(help="An audience of the caller's token; may repeat.", show_default=False)
    ] = None,
    client_type: Annotated[str, typer.Option(help="What the gateway says in Client-Type.", show_default=False)] = "",
    backoffice: Annotated[bool, typer.Option("--backoffice", help="The gateway says isbackoffice: 1.")] = False,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="The request has no token.")] = False,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The namespace of manifests that name none.")
    ] = "default",
    output: Annotated[Format, typer.Option("--output", "-o", help="How to write the explanation.")] = Format.TEXT,
) -> None:
    """Tell which rules decide a request, and what each part of them comes to for a caller.

    Shows every reading of the path, the rule and route that decide each, their conditions part by part, and the permission that is
    missing. It decides by the same code as the gateway's check.
    """
    if anonymous and (permission or group or audience):
        raise typer.BadParameter("goes with no permission, group or audience", param_hint="'--anonymous'")
    try:
        asked = parse_request(method, url)
    except NoRequest as error:
        raise typer.BadParameter(str(error), param_hint="METHOD URL") from None
    question = Question(
        *asked,
        permissions=frozenset(permission or ()),
        groups=frozenset(group or ()),
        audiences=tuple(audience or ()),
        client_type=client_type,
        backoffice=backoffice,
        anonymous=anonymous,
    )
    loaded = load_rules(rules, namespace=namespace)
    if loaded.invalid:
        say("Some rules are invalid and closed here; `keyturn test` tells which.", style="yellow")
    body = question.explain(loaded.table).to_body()
    if output is Format.JSON:
        typer.echo(json.dumps(body, ensure_ascii=False, indent=2))
        return
    for line in lines_of(body):
        typer.echo(line)
