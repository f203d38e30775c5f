"""What a chart's user may set: each value is described, in the README as in values.yaml, and typed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from keyturn.settings_table import variable
from keyturn_api.settings import ApiSettings
from keyturn_dev.chart_readme import described_values, values_table, with_table, write
from keyturn_dev.chart_settings import settable, with_settings
from keyturn_operator.settings import OperatorSettings
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


def variables(settings: type[BaseSettings]) -> list[str]:
    prefix = settings.model_config.get("env_prefix", "")
    return [variable(prefix, name, field) for name, field in settings.model_fields.items()]


VARIABLES = {"api": variables(ApiSettings), "operator": variables(OperatorSettings)}


def test_the_schema_knows_each_setting_that_is_left_to_the_user_and_no_other() -> None:
    path = CHARTS[0] / "values.schema.json"
    current = with_settings(path.read_text(encoding="utf-8"), CHARTS[0], VARIABLES)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(current, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == current, "make golden writes it"


def test_what_the_chart_sets_is_not_left_to_the_user() -> None:
    left = {part: set(settable(CHARTS[0], part, names)) for part, names in VARIABLES.items()}
    assert {"KEYTURN_ACCEPTED_AUDIENCES", "KEYTURN_SERVICE_PREFIX", "KEYTURN_LOG_LEVEL"} <= left["api"]
    assert {"KEYTURN_JWKS_URI_HOSTS", "KEYTURN_OPERATOR_SWEEP_INTERVAL", "KEYTURN_BCRYPT_COST"} <= left["operator"]
    # Else a variable would stand twice in a pod, or differ between the two programs.
    ours = {
        "KEYTURN_ISSUER",
        "KEYTURN_STORE_URL",
        "KEYTURN_HTTP_PORT",
        "KEYTURN_NAMESPACE",
        "KEYTURN_RELEASE_NAMESPACE",
    }
    assert not ours & (left["api"] | left["operator"])
    assert "KEYTURN_SERVICE_PREFIX" not in left["operator"]


def paths_of_schema(schema: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, member in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        found |= paths_of_schema(member, f"{path}.") if has_members(path, member) else {path}
    return found


def paths_of_values(values: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        path, member = f"{prefix}{name}", schema["properties"][name]
        found |= paths_of_values(value, member, f"{path}.") if has_members(path, member) else {path}
    return found


def has_members(path: str, member: dict[str, Any]) -> bool:
    """Whether values.yaml shows the members one by one. Settings are listed in docs/settings.md."""
    return "properties" in member and not path.endswith(".settings")


def test_a_value_without_a_description_is_found() -> None:
    with pytest.raises(ValueError, match=r"outer\.second has no description"):
        list(described_values("outer:\n  # -- The first.\n  first: 1\n  second: 2\n"))


def test_a_described_object_covers_its_members() -> None:
    text = "# -- What it may use,\n# at most.\nresources:\n  limits: {memory: 1Mi}\n"
    assert list(described_values(text)) == [("resources", {"limits": {"memory": "1Mi"}}, "What it may use, at most.")]


def test_a_bar_in_a_description_does_not_end_its_cell() -> None:
    assert values_table("# -- One | other.\nkind: one\n").endswith('| `kind` | `"one"` | One \\| other. |')
