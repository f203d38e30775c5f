"""The tables of docs/logs.md as data."""

import re

from tests.documents import PROJECT

PAGE = PROJECT / "docs" / "logs.md"
_CODE = re.compile(r"`([^`]+)`")


def _rows(begin: str, end: str) -> list[list[str]]:
    text = PAGE.read_text(encoding="utf-8")
    _, found, rest = text.partition(f"<!-- {begin} -->\n")
    assert found, begin
    lines = rest.partition(f"<!-- {end} -->")[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def fields(of: str) -> set[str]:
    """The fields of one of the tables of fields."""
    return {_CODE.findall(row[0])[0] for row in _rows(f"fields of {of}", "end of fields")}


def audit_events() -> dict[str, tuple[str, set[str]]]:
    """For each event its program, and the fields that it has besides those of all."""
    found = {}
    for row in _rows("audit events", "end of audit events"):
        found[_CODE.findall(row[0])[0]] = (row[1], set(_CODE.findall(row[2])))
    return found
