"""Golden files: what a product file or an output looked like when somebody last agreed to it."""

import os
from pathlib import Path

GOLDEN = Path(__file__).with_name("golden")


def assert_golden(name: str, text: str) -> None:
    """Compares with `tests/golden/<name>`; with UPDATE_GOLDEN=1 in the environment it is written instead, to be read in the diff."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    agreed = path.read_text(encoding="utf-8") if path.exists() else ""
    assert text == agreed, f"{path} differs; if that is meant: UPDATE_GOLDEN=1, and read the diff"
