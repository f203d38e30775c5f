"""What a chart's user may set: each value is described, in the README as in values.yaml, and typed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyturn_dev.chart_readme import described_values, values_table, with_table, write
from tests.crd_schemas import PROJECT

CHARTS = [PROJECT / "charts" / name for name in ("keyturn", "keyturn-crds")]
charts = pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)


@charts
def test_the_readme_shows_each_value_as_values_yaml_has_it(chart: Path) -> None:
    if os.environ.get("UPDATE_GOLDEN") == "1":
        write(chart)
    readme = (chart / "README.md").read_text(encoding="utf-8")
    assert readme == with_table(readme, (chart / "values.yaml").read_text(encoding="utf-8")), "make golden writes it"


@charts
def test_the_schema_knows_each_value_and_no_other(chart: Path) -> None:
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    assert paths_of_schema(schema) - {"global"} == paths_of_values(values, schema)


def paths_of_schema(schema: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, member in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        found |= paths_of_schema(member, f"{path}.") if "properties" in member else {path}
    return found


def paths_of_values(values: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        path, member = f"{prefix}{name}", schema["properties"][name]
        found |= paths_of_values(value, member, f"{path}.") if "properties" in member else {path}
    return found


def test_a_value_without_a_description_is_found() -> None:
    with pytest.raises(ValueError, match=r"outer\.second has no description"):
        list(described_values("outer:\n  # -- The first.\n  first: 1\n  second: 2\n"))


def test_a_described_object_covers_its_members() -> None:
    text = "# -- What it may use,\n# at most.\nresources:\n  limits: {memory: 1Mi}\n"
    assert list(described_values(text)) == [("resources", {"limits": {"memory": "1Mi"}}, "What it may use, at most.")]


def test_a_bar_in_a_description_does_not_end_its_cell() -> None:
    assert values_table("# -- One | other.\nkind: one\n").endswith('| `kind` | `"one"` | One \\| other. |')
