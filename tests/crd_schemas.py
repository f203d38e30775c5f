"""The CRDs as data, and walks through their schemas."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
CRDS = {path.stem: path for path in sorted((PROJECT / "crds").glob("*.yaml"))}

Schema = Mapping[str, Any]


@cache
def load_crd(plural: str) -> dict[str, Any]:
    loaded = yaml.safe_load(CRDS[plural].read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def schema_of(plural: str) -> dict[str, Any]:
    """The root schema of the one version."""
    (version,) = load_crd(plural)["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    assert isinstance(schema, dict)
    return schema


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema below this one with its path, such as `spec.publicKeys[].jwk`."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def at(plural: str, path: str) -> Schema:
    return dict(walk(schema_of(plural)))[path]


def rules_at(plural: str, path: str) -> list[str]:
    """The CEL rules at a path, each on one line."""
    return [" ".join(rule["rule"].split()) for rule in at(plural, path).get("x-kubernetes-validations", [])]


def dearest_character(pattern: str | None) -> int:
    """How many bytes of JSON the dearest character takes that a pattern admits (none: a control character, written as \\u0000)."""
    if pattern is None:
        return 6
    # Go's `$` is the end of the text; Python's is also a place before a last line break.
    expression = re.compile(re.sub(r"\$$", r"\\Z", pattern))
    characters = [*map(chr, range(0x100)), "€", "😀"]
    admitted = [
        c for c in characters if any(expression.search(form) for form in (c, f"/{c}", f"a{c}", f"a{c}a", f"{c}s"))
    ]
    return max(len(json.dumps(c, ensure_ascii=False).encode()) - 2 for c in admitted)
