"""The Grafana dashboard is what its program makes, and what Grafana's own library reads."""

import json
import os
import re

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import CollectorRegistry

from keyturn_api.metrics import Metrics as ApiMetrics
from keyturn_dev.dashboard import DASHBOARD, render
from keyturn_dev.dashboard_rows import ROWS, Chart, Number
from keyturn_operator.metrics import Metrics as OperatorMetrics

_METRIC = re.compile(r"keyturn_[a-z_]+")


def test_the_file_is_what_the_program_makes() -> None:
    made = render()
    if os.environ.get("UPDATE_GOLDEN") == "1":
        DASHBOARD.write_text(made, encoding="utf-8")
    assert DASHBOARD.read_text(encoding="utf-8") == made, (
        "the dashboard differs from keyturn_dev.dashboard: make golden"
    )


def test_grafanas_library_reads_the_file_and_writes_the_same() -> None:
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    read = Dashboard.from_json(document)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == document


def test_the_rows_are_those_that_readers_look_for() -> None:
    assert [row.title for row in ROWS] == ["Overview", "Token service", "Gateway", "Operator", "Keys"]
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert [one["title"] for one in document["panels"] if one["type"] == "row"] == [row.title for row in ROWS]


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def expressions() -> list[str]:
    panels = [panel for row in ROWS for panel in row.panels]
    return [
        one for panel in panels for one in (panel.curves.values() if isinstance(panel, Chart) else [panel.expression])
    ]


@pytest.mark.parametrize("expression", expressions())
def test_a_query_asks_for_metrics_that_there_are(expression: str) -> None:
    registry = CollectorRegistry()
    ApiMetrics(registry)
    OperatorMetrics(registry)
    names = {name for names in registry._collector_to_names.values() for name in names}
    asked = set(_METRIC.findall(expression))
    assert asked
    assert asked <= names


@pytest.mark.parametrize(
    "panel",
    [pytest.param(one, id=one.title) for row in ROWS for one in row.panels if isinstance(one, Number)],
)
def test_a_number_is_told_of_each_installation(panel: Number) -> None:
    """Else the replicas of one would hide that another has none."""
    together = re.findall(r"\b(?:sum|max|min)( by \([a-z, ]*\))? ?\(", panel.expression)
    assert together
    assert set(together) == {" by (namespace)"}
