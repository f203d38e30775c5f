"""What an API server's structural validation finds wrong with an object: fields, types, bounds and patterns (not the CEL rules)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crd_schemas import Schema

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_BOUNDS = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))


def faults(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """One sentence for each fault, with its path."""
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path} is none of {schema['enum']}"
    if isinstance(value, str | list | dict):
        for least, most in _BOUNDS:
            if not schema.get(least, 0) <= len(value) <= schema.get(most, len(value)):
                yield f"{path} is too short or too long"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path} does not match {schema['pattern']}"
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from faults(schema["items"], item, f"{path}[{number}]")
    if isinstance(value, dict) and ("properties" in schema or path):
        yield from _members(schema, value, path)


def _members(schema: Schema, value: dict[str, Any], path: str) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path} lacks {name}"
    for name, member in value.items():
        place = f"{path}.{name}".lstrip(".")
        if name in known:
            # The API server knows the object's own metadata.
            yield from () if place == "metadata" else faults(known[name], member, place)
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from faults(schema["additionalProperties"], member, place)
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{place} is not known"
