"""What the alerts ask for, without a Prometheus."""

import re
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from tests.documents import PROJECT
from tests.unit.docs.test_metrics_page import PROGRAMS

RULES = PROJECT / "charts" / "keyturn" / "files" / "alerts.yaml"
ALERTS: dict[str, str] = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
RISES = {name: expression for name, expression in ALERTS.items() if "increase(" in expression}
_SELECTOR = r"(keyturn_(?:api|operator)_\w+)(?:{([^}]*)})?"


def samples() -> list[tuple[str, dict[str, str]]]:
    """What programs show that have just begun."""
    found = []
    for program in PROGRAMS.values():
        registry = CollectorRegistry()
        program(registry)
        found += [(sample.name, sample.labels) for metric in registry.collect() for sample in metric.samples]
    return found


@pytest.mark.parametrize("name", RISES)
def test_a_counter_is_there_before_its_first_rise(name: str) -> None:
    """Prometheus sees no increase in a series that begins with 1."""
    asked: list[Any] = re.findall(_SELECTOR, RISES[name])
    assert asked
    for metric, matchers in asked:
        labels = dict(re.findall(r'(\w+)="([^"]*)"', matchers))
        assert [own for shown, own in samples() if shown == metric and labels.items() <= own.items()]


@pytest.mark.parametrize("name", ALERTS)
def test_the_chart_finds_where_the_release_s_namespace_belongs(name: str) -> None:
    asked = re.findall(_SELECTOR, ALERTS[name])
    assert asked
    assert all(matchers.startswith('namespace=~".*"') for _, matchers in asked)


@pytest.mark.parametrize("name", ALERTS)
def test_no_alert_mixes_installations(name: str) -> None:
    assert not re.search(r"\b(sum|max|min|count|avg|topk) *\(|\b(scalar|vector)\(", ALERTS[name])
    together = re.findall(r"\b(?:by|on|without|ignoring) *\(([^)]*)\)", ALERTS[name])
    assert all("namespace" in labels.split(", ") for labels in together)
