"""Examples in `--help`: one line each, as they would be typed."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """An epilog that lists `lines`, each after a `$`."""
    # \b keeps the help formatter from joining the lines.
    return "Examples:\n\n\b\n" + "\n".join(f"$ {line}" for line in lines)
