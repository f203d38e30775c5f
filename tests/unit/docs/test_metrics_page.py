"""The page of metrics says what the programs show, no more and no less."""

import os
import re
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from keyturn_api.metrics import Metrics as ApiMetrics
from keyturn_operator.metrics import Metrics as OperatorMetrics
from tests.documents import PROJECT

PAGE = PROJECT / "docs" / "metrics.md"
END = "<!-- end of metrics -->"
PROGRAMS: dict[str, Any] = {"keyturn-api": ApiMetrics, "keyturn-operator": OperatorMetrics}
# https://prometheus.io/docs/practices/naming: base units, and what a counter ends with.
NAME = re.compile(r"keyturn_(api|operator)_[a-z]+(_[a-z]+)*")


def described(program: str) -> list[tuple[str, str, tuple[str, ...], str]]:
    """Name, kind, labels and meaning of each metric."""
    registry = CollectorRegistry()
    PROGRAMS[program](registry)
    found = []
    for collector, names in registry._collector_to_names.items():
        for metric in collector.collect() if names else ():
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            labels = tuple(getattr(collector, "_labelnames", ()))
            found.append((name, metric.type, labels, metric.documentation))
    return sorted(found)


def table(program: str) -> str:
    lines = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |\n"
        for name, kind, labels, meaning in described(program)
    ]
    return "".join(["| metric | kind | labels | meaning |\n", "| --- | --- | --- | --- |\n", *lines])


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_page_holds_the_current_table_of(program: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, begin, rest = page.partition(f"<!-- metrics of {program} -->\n")
    _, end, after = rest.partition(END)
    assert begin
    assert end
    current = f"{before}{begin}{table(program)}{end}{after}"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        PAGE.write_text(current, encoding="utf-8")
        page = current
    assert page == current, "docs/metrics.md differs from the programs' metrics: make golden"


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_metric_is_named_by_the_conventions_and_described_in_a_sentence(program: str) -> None:
    metrics = described(program)
    assert len(metrics) > 10
    for name, kind, _, meaning in metrics:
        assert NAME.fullmatch(name)
        assert name.endswith("_seconds") or kind != "histogram", name
        assert name.endswith("_total") == (kind == "counter"), name
        assert meaning.endswith("."), name
        assert "|" not in meaning, name
