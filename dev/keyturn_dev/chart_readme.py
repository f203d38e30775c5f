"""The table of a chart's values, from the comments in its values.yaml: `# -- text` stands above the value that it describes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEGIN: Final = "<!-- values -->"
END: Final = "<!-- end of values -->"
_KEY: Final = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][\w-]*):")


def described_values(text: str) -> Iterator[tuple[str, Any, str]]:
    """Each described value: its path with dots, its default, its description. Raises ValueError for one without a description."""
    values = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    covered: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("# ") and comment:
            comment.append(stripped.removeprefix("# "))
        elif (found := _KEY.match(line)) is not None:
            indent = len(found["indent"])
            path = [(depth, key) for depth, key in path if depth < indent] + [(indent, found["key"])]
            name = ".".join(key for _, key in path)
            if comment:
                covered.append(name)
                yield name, _at(values, name), " ".join(comment)
                comment = []
            elif not isinstance(_at(values, name), dict) and not any(name.startswith(f"{one}.") for one in covered):
                raise ValueError(f"{name} has no description")


def _at(values: Any, name: str) -> Any:
    for key in name.split("."):
        values = values[key]
    return values


def values_table(text: str) -> str:
    """The Markdown table of a values.yaml."""
    lines = ["| value | default | meaning |", "| --- | --- | --- |"]
    for name, default, description in described_values(text):
        shown = json.dumps(default, ensure_ascii=False)
        lines.append(f"| `{name}` | `{shown}` | {description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def with_table(readme: str, values: str) -> str:
    """The README with its table written anew, between two marks."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{values_table(values)}\n{END}{tail}"


def write(chart: Path) -> None:
    """Writes a chart's README anew."""
    readme = chart / "README.md"
    values = (chart / "values.yaml").read_text(encoding="utf-8")
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), values), encoding="utf-8")
