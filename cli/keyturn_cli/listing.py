"""Objects on stdout: a table for people, and what programs read."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
import yaml
from rich.console import Console
from rich.text import Text

from .kube import GROUP
from .manifest import ManifestDumper
from .output import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

GAP: Final = "   "
STYLES: Final = {"Ready": "green", "Waiting": "yellow", "Suspended": "red", "Expired": "red", "ok": "green"} | {
    "wrong": "red",
    "warning": "yellow",
}


class Output(StrEnum):
    """How objects are written to stdout."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to write what is found to stdout.")]


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, indent: str = "") -> None:
    """Columns as kubectl aligns them. Foreign text in them is made harmless; known states have a colour on a terminal."""
    lines = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    console = Console(highlight=False)
    for number, line in enumerate(lines):
        text = Text(indent)
        for column, cell in enumerate(line):
            last = column == len(line) - 1
            text.append(cell if last else cell.ljust(widths[column]) + GAP, STYLES.get(cell, "") if number else "")
        console.print(text, soft_wrap=True)


def print_objects(objects: Sequence[Mapping[str, Any]], output: Output, *, single: bool = False) -> None:
    """Whole objects as JSON or YAML (several: as a List), or their names as kubectl writes them. `output` is not TABLE."""
    if output is Output.NAME:
        for one in objects:
            typer.echo(reference(one))
        return
    kept = [without_field_managers(one) for one in objects]
    print_value(kept[0] if single else {"apiVersion": "v1", "kind": "List", "items": kept}, output)


def print_value(value: Any, output: Output) -> None:
    """Any value as JSON or YAML."""
    if output is Output.YAML:
        written = yaml.dump(value, Dumper=ManifestDumper, sort_keys=False, width=2**16, allow_unicode=True)
        typer.echo(written, nl=False)
    else:
        typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def reference(obj: Mapping[str, Any]) -> str:
    """`clientcredential.keyturn.dev/billing`."""
    return f"{str(obj.get('kind', '')).lower()}.{GROUP}/{obj['metadata']['name']}"


def without_field_managers(obj: Mapping[str, Any]) -> dict[str, Any]:
    """As kubectl prints it."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": metadata}
