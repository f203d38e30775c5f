"""The project's documents as data: their blocks, commands, links, and the objects that they show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *(PROJECT / "docs").rglob("*.md")]
)
API_VERSION = "keyturn.dev/v1alpha1"
# The comment in front of a block that says which test runs it.
RUN_BY = re.compile(r"<!-- run by (\S+) -->")

_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_INDENTED = re.compile(r"(?<=\n\n)(?:    \S.*\n)+")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is the comment right in front of it."""

    document: Path
    language: str
    text: str
    mark: str


def name_of(document: Path) -> str:
    return document.relative_to(PROJECT).as_posix()


def blocks(document: Path) -> list[Block]:
    return [
        Block(document, found["language"], found["text"], f"<!-- {found['mark']} -->" if found["mark"] else "")
        for found in _FENCE.finditer(document.read_text(encoding="utf-8"))
    ]


def commands(document: Path) -> list[str]:
    """Each shell command of a document that no test runs as it stands: indented lines, `sh` blocks, and `make …` inside a sentence."""
    text = document.read_text(encoding="utf-8")
    prose = _FENCE.sub("", text)
    lines = [line for found in _INDENTED.findall(prose) for line in found.splitlines()]
    for block in blocks(document):
        if block.language in ("sh", "bash", "console") and not RUN_BY.fullmatch(block.mark):
            lines += block.text.splitlines()
    inline = [
        code for code in _INLINE.findall(_INDENTED.sub("", prose)) if re.match(r"([A-Z_]+=\S+ )*(make|keyturn) ", code)
    ]
    stripped = (re.sub(r"\s+#.*$", "", line).strip() for line in [*lines, *inline])
    return [line for line in stripped if line]


def links(document: Path) -> list[str]:
    """The targets of its relative links, without their fragments."""
    found = _LINK.findall(_FENCE.sub("", document.read_text(encoding="utf-8")))
    return [target.partition("#")[0] for target in found if "://" not in target and not target.startswith("#")]


def shown_objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of our kinds in the documents and in `examples`, with the place where it stands."""
    sources = [
        (name_of(block.document), block.text)
        for document in DOCUMENTS
        for block in blocks(document)
        if block.language == "yaml"
    ]
    sources += [
        (name_of(path), path.read_text(encoding="utf-8")) for path in sorted((PROJECT / "examples").glob("*.yaml"))
    ]
    for place, text in sources:
        for shown in yaml.safe_load_all(text):
            if isinstance(shown, dict) and shown.get("apiVersion") == API_VERSION:
                yield f"{place}: {shown['kind']} {shown['metadata']['name']}", shown
