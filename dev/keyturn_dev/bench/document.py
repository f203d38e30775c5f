"""The section of docs/benchmarks.md that a run writes."""

from __future__ import annotations

from keyturn_dev.errors import DevError
from keyturn_dev.paths import PROJECT

DOCUMENT = PROJECT / "docs" / "benchmarks.md"
BEGIN = "<!-- figures: written by `make bench WRITE=1` -->"
END = "<!-- end of figures -->"


def with_figures(document: str, figures: str) -> str:
    """Return the document with other figures between its two marks; raise `DevError` if it lacks them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DevError(f"{DOCUMENT.name} lacks the lines between which the figures stand")
    return f"{before}{BEGIN}\n\n{figures.strip()}\n\n{END}{after}"


def write(figures: str) -> None:
    """Put the figures into the document."""
    DOCUMENT.write_text(with_figures(DOCUMENT.read_text(encoding="utf-8"), figures), encoding="utf-8")
