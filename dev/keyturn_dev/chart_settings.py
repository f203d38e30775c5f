"""Which settings a chart's user may give under `api.settings` and `operator.settings`: the programs' own names, in the chart's schema."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_SET: Final = re.compile(r"^ *- name: (KEYTURN_[A-Z_]+)$", re.MULTILINE)
# What other objects of the chart stand on: ports, the mounted keys, the Lease that the operator's Role names.
_FIXED: Final = frozenset(
    {
        "KEYTURN_GRPC_PORT",
        "KEYTURN_HTTP_PORT",
        "KEYTURN_METRICS_PORT",
        "KEYTURN_OPERATOR_LEASE_NAME",
        "KEYTURN_OPERATOR_PROBE_PORT",
        "KEYTURN_SIGNING_KEY_DIRECTORY",
    }
)
# The chart sets them from other values unless they are given.
_EITHER_WAY: Final[Mapping[str, frozenset[str]]] = {
    "api": frozenset({"KEYTURN_SERVICE_PREFIX", "KEYTURN_TRUSTED_ISSUERS_FILE"})
}


def settable(chart: Path, part: str, variables: Iterable[str]) -> list[str]:
    """Those of a program's variables that the chart leaves to its user."""
    templates = (path.read_text(encoding="utf-8") for path in sorted((chart / "templates").glob("*")) if path.is_file())
    set_here = {name for text in templates for name in _SET.findall(text)} - _EITHER_WAY.get(part, frozenset())
    return sorted(set(variables) - set_here - _FIXED)


def with_settings(schema: str, chart: Path, variables: Mapping[str, Iterable[str]]) -> str:
    """The text of values.schema.json with the names of these parts' settings written anew: any other is refused."""
    document = json.loads(schema)
    document["$defs"] = {"setting": {"type": ["string", "number", "boolean"]}}
    for part, names in variables.items():
        known = {name: {"$ref": "#/$defs/setting"} for name in settable(chart, part, names)}
        document["properties"][part]["properties"]["settings"] = {
            "type": "object",
            "additionalProperties": False,
            "properties": known,
        }
    return json.dumps(document, indent=1) + "\n"
