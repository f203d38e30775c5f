"""The one text form of a record's body, in which two equal bodies are equal texts."""

from collections.abc import Mapping
from typing import Any, cast

import orjson

EMPTY = "{}"


def encode_body(body: Mapping[str, Any]) -> str:
    """Plain JSON with sorted members. Raises ValueError when the body is not plain JSON."""
    try:
        return orjson.dumps(dict(body), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise ValueError("a record's body must be plain JSON") from error


def decode_body(text: str) -> dict[str, Any]:
    return cast(dict[str, Any], orjson.loads(text))
