"""What the chart gives to the Prometheus Operator: alerts about the release itself, and targets whose labels hide none of ours."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.rendering import CHARTS, ISSUER, objects, run_helm
from tests.people.metrics.alert_cases import ABSENT, CASES, installed, judge, promtool, told
from tests.people.metrics.service_monitor import OPERATORS_LABELS
from tests.unit.docs.test_metrics_page import PROGRAMS, described

# The first one waits for Helm where that has to be built.
pytestmark = pytest.mark.timeout(1500)


def monitoring(*settings: str, namespace: str = "shop") -> list[dict[str, Any]]:
    """The release's objects of the Prometheus Operator's kinds."""
    switches = ",".join(
        [f"issuer={ISSUER['issuer']}", "prometheusRule.enabled=true", "serviceMonitor.enabled=true", *settings]
    )
    done = run_helm("template", "keyturn", str(CHARTS / "keyturn"), "--namespace", namespace, "--set", switches)
    assert done.returncode == 0, done.stderr
    return [one for one in objects(done.stdout) if one["apiVersion"] == "monitoring.coreos.com/v1"]


def the_rule(*settings: str, namespace: str = "shop") -> dict[str, Any]:
    (rule,) = (one for one in monitoring(*settings, namespace=namespace) if one["kind"] == "PrometheusRule")
    spec = rule["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The alerts of two releases that one Prometheus looks at."""
    folder = tmp_path_factory.mktemp("rules")
    files = []
    for namespace in ("team-a", "team-b"):
        files.append(folder / f"{namespace}.yaml")
        files[-1].write_text(yaml.safe_dump(the_rule(namespace=namespace)), encoding="utf-8")
    return files


def test_promtool_accepts_the_rules_that_are_installed(rules: list[Path]) -> None:
    for file in rules:
        assert f"{len(CASES)} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(file))


def test_every_question_of_an_alert_is_about_the_release_itself() -> None:
    for group in the_rule(namespace="team-a")["groups"]:
        for rule in group["rules"]:
            asked = re.findall(r"keyturn_(?:api|operator)_\w+(?:{([^,}]*))?", rule["expr"])
            assert asked
            assert set(asked) == {'namespace="team-a"'}


@pytest.mark.parametrize("name", CASES)
def test_one_of_two_installations_is_ill_and_one_alert_says_which(name: str, rules: list[Path], tmp_path: Path) -> None:
    ill, well = installed(name, "team-b"), installed(name, "team-a")
    judge(tmp_path, name, ill.fires | well.silent, ill.minutes, [told(name, ill)], rules)


@pytest.mark.parametrize("name", ABSENT)
def test_an_installation_that_is_gone_is_missed_though_another_is_well(
    name: str, rules: list[Path], tmp_path: Path
) -> None:
    well = installed(name, "team-a")
    judge(tmp_path, name, well.silent, 60, [told(name, installed(name, "team-b"))], rules)


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        pytest.param([], "https://keyturn.dev/docs/runbooks/", id="the project's"),
        pytest.param(
            ["prometheusRule.runbookUrl=https://wiki.example/keyturn/"],
            "https://wiki.example/keyturn/",
            id="an operator's own",
        ),
    ],
)
def test_each_alert_links_to_the_runbooks_at(settings: list[str], base: str) -> None:
    found = [rule for group in the_rule(*settings)["groups"] for rule in group["rules"]]
    assert {rule["annotations"]["runbook_url"] for rule in found} == {f"{base}{name}.md" for name in CASES}


def test_no_label_of_a_target_takes_the_place_of_a_metrics_label() -> None:
    """Prometheus would rename ours to `exported_…`, and every question for it would be answered with nothing."""
    ours = {label for program in PROGRAMS for _, _, labels, _ in described(program) for label in labels}
    monitors = [one for one in monitoring() if one["kind"] == "ServiceMonitor"]
    assert len(monitors) == 2
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["endpoints"]
        dropped = [one["regex"] for one in endpoint["relabelings"] if one["action"] == "labeldrop"]
        assert set(dropped) == OPERATORS_LABELS & ours
