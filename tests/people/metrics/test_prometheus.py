"""A real Prometheus scrapes a running installation as the chart's objects tell the Prometheus Operator to, and answers each question
of an alert or a panel with data."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from keyturn.keys.state import KeyPhase
from keyturn_dev.loopback import free_ports
from keyturn_dev.waiting import wait_until
from tests.charts.rendering import objects, render
from tests.cluster.clients import World, needs, route
from tests.documents import PROJECT
from tests.people.metrics.alert_cases import alerts
from tests.people.metrics.picture import page
from tests.people.metrics.service_monitor import OPERATORS_LABELS, scrape_config
from tests.unit.docs.test_metrics_page import PROGRAMS, described

DASHBOARD = PROJECT / "charts" / "keyturn" / "files" / "dashboard.json"
PICTURE = PROJECT / "docs" / "images" / "dashboard.png"
ROUNDS = 4
# The labels by which each series says whose it is.
TARGET = OPERATORS_LABELS - {"endpoint", "node"}
# The first one waits for Helm where that has to be built.
pytestmark = pytest.mark.timeout(1500)


@dataclass(frozen=True)
class Delivered:
    """What the chart makes for the Prometheus Operator, in the namespace of the installation that runs."""

    rule: dict[str, Any]
    monitors: dict[str, dict[str, Any]]

    @classmethod
    def to(cls, namespace: str, folder: Path) -> Delivered:
        found = objects(render(folder, "everything", namespace=namespace))
        (rule,) = (one["spec"] for one in found if one["kind"] == "PrometheusRule")
        return cls(rule, {one["metadata"]["name"]: one for one in found if one["kind"] == "ServiceMonitor"})

    def expressions(self) -> dict[str, str]:
        return {rule["alert"]: rule["expr"] for group in self.rule["groups"] for rule in group["rules"]}


class Prometheus:
    """Debian's own, with the alerts, looking at every program once a second."""

    def __init__(self, folder: Path, rule: dict[str, Any], jobs: list[dict[str, Any]]) -> None:
        program = shutil.which("prometheus")
        assert program is not None, "prometheus is missing: Debian's package of this name has it"
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        rules = folder / "rules.yaml"
        rules.write_text(yaml.safe_dump(rule), encoding="utf-8")
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config = {"global": every, "rule_files": [str(rules)], "scrape_configs": jobs}
        path = folder / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={path}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        self._http = httpx2.Client(base_url=self.url, timeout=20, trust_env=False)

    def close(self) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=20)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._http.close()

    def ask(self, path: str, **parameters: str) -> Any:
        answer = self._http.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        assert document["status"] == "success"
        assert not document.get("warnings")
        return document["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        found = self.ask("query", query=expression)["result"]
        assert isinstance(found, list)
        return found

    def ready(self) -> bool:
        assert self._process.poll() is None, self.log.read_text(encoding="utf-8")[-2000:]
        with contextlib.suppress(httpx2.HTTPError):
            return self._http.get("/-/ready").status_code == 200
        return False

    def up(self) -> list[str]:
        return [one["health"] for one in self.ask("targets", state="active")["activeTargets"]]


@pytest.fixture(scope="module")
def delivered(world: World, tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    return Delivered.to(world.namespace, tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="module")
def watched(world: World, delivered: Delivered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, once it has seen traffic of every sort."""
    own = world.installation
    ports = {"keyturn-api": [one.metrics for one in own.apis], "keyturn-operator": [own.operator_port]}
    jobs = [
        scrape_config(
            monitor,
            world.namespace,
            f"{name}-metrics",
            {f"{name}-{number}": port for number, port in enumerate(ports[name])},
        )
        for name, monitor in delivered.monitors.items()
    ]
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), delivered.rule, jobs)
    try:
        wait_until(prometheus.ready, "Prometheus to be ready", seconds=60)
        wait_until(lambda: prometheus.up() == ["up"] * 3, "all three targets to be up", seconds=60)
        make_traffic(world)
        yield prometheus
    finally:
        prometheus.close()


def make_traffic(world: World) -> None:
    """Tokens, refusals, decisions of each sort and what a rule under Audit says, in more than one round: rates need a rise."""
    client = world.client("watched").apply(permissions=["watched:read"])
    world.rule(
        "watched",
        route("/watched/open"),
        route("/watched/read", **needs("watched:read")),
        route("/watched/write", **needs("watched:write")),
    )
    world.rule("watched-audit", route("/watched/read", **needs("watched:audit")), mode="Audit")
    token = client.token()
    for number in range(ROUNDS):
        client.patch(description=f"round {number}")
        client.wait()
        for replica in world.replicas:
            once = client.assertion()
            assert replica.grant(once).status_code == 200
            assert replica.grant(once).status_code == 401
            assert replica.token_info(token).status_code == 200
            assert replica.auth("/watched/open").status_code == 200
            assert replica.auth("/watched/read", token).status_code == 200
            assert replica.auth("/watched/write", token).status_code == 403
            assert replica.auth("/watched/read").status_code == 401
            assert replica.auth("/watched/unknown").status_code == 403
        time.sleep(1.2)


def asked(expression: str, world: World) -> str:
    """As Grafana asks, where this namespace is chosen."""
    return expression.replace("$namespace", world.namespace).replace("$__rate_interval", "30s")


def eventually(holds: Callable[[], bool], what: str) -> None:
    wait_until(holds, what, seconds=20, interval=0.5)


def test_all_targets_are_up_and_answer_in_time(watched: Prometheus) -> None:
    assert watched.up() == ["up"] * 3
    assert {one["value"][1] for one in watched.query("up")} == {"1"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_metric_of_the_table_is_there(program: str, watched: Prometheus) -> None:
    names = set(watched.ask("label/__name__/values"))
    for name, kind, labels, _ in described(program):
        shown = f"{name}_bucket" if kind == "histogram" else name
        assert shown in names, name
        for series in watched.query(shown):
            told = series["metric"].keys() - {"__name__", "le"}
            assert told == set(labels) | TARGET, name
    # And nothing that the table does not have.
    known = {name for name, _, _, _ in described(program)}
    ours = {one for one in names if one.startswith(f"keyturn_{program.removeprefix('keyturn-')}_")}
    stems = {re.sub(r"_(bucket|sum|count|created)$", "", one) for one in ours}
    assert {one for one in stems if one not in known and f"{one}_total" not in known} == set()


def test_prometheus_holds_every_alert_and_evaluates_it_without_error(watched: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [one for group in watched.ask("rules")["groups"] for one in group["rules"]]

    assert {one["name"] for one in rules()} == set(alerts())
    eventually(lambda: all(one["health"] == "ok" for one in rules()), "every rule to be evaluated")


@pytest.mark.parametrize("name", alerts())
def test_an_alerts_expression_is_answered(name: str, watched: Prometheus, delivered: Delivered) -> None:
    watched.query(delivered.expressions()[name])


@pytest.mark.parametrize("name", alerts())
def test_what_an_alert_looks_at_is_there(name: str, watched: Prometheus, delivered: Delivered) -> None:
    """All but the outcomes and reasons that there are none of while all is well."""
    selectors = set()
    for metric, matchers in re.findall(r"(keyturn_\w+){([^}]*)}", delivered.expressions()[name]):
        kept = [one for one in matchers.split(", ") if re.match("(namespace|endpoint|phase)=", one)]
        selectors.add(f"{metric}{{{', '.join(kept)}}}")
    assert selectors

    def there() -> bool:
        return all(watched.query(one) for one in selectors)

    eventually(there, f"series of {selectors}")


def test_no_alert_fires_where_all_is_well(watched: Prometheus) -> None:
    firing = [one["labels"]["alertname"] for one in watched.ask("alerts")["alerts"] if one["state"] == "firing"]
    # Other tests of this installation leave objects that wait or have a mistake, which this one does not speak of.
    assert "KeyturnUnavailable" not in firing
    assert set(firing) & {"KeyturnSnapshotStale", "KeyturnNobodyOperates", "KeyturnSigningKeyMissing"} == set()


def queries() -> list[Any]:
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in document["panels"]
        for target in panel.get("targets", ())
    ]


@pytest.mark.parametrize("expression", queries())
def test_a_panels_query_is_answered_with_data(expression: str, watched: Prometheus, world: World) -> None:
    expression = asked(expression, world)
    assert "$" not in expression

    def answered() -> bool:
        # A quantile of what has not happened meanwhile is no number: of a kind of object, say, that nobody changes.
        return any(one["value"][1] != "NaN" for one in watched.query(expression))

    eventually(answered, f"data for {expression}")


def test_the_counts_are_those_of_the_requests(watched: Prometheus, world: World) -> None:
    def total(expression: str) -> float:
        found = watched.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    rule = f'keyturn_api_decisions_total{{rule="{world.namespace}/watched", reason="MissingPermission"}}'
    timed = 'keyturn_api_request_seconds_count{endpoint="auth", outcome="forbidden"}'
    counted = 'keyturn_api_requests_total{endpoint="auth", outcome="forbidden"}'
    assert total(f"sum({rule})") >= 2 * ROUNDS
    eventually(lambda: total(f"sum({timed})") == total(f"sum({counted})") > 0, "as many times as requests")
    failed = 'keyturn_api_client_authentication_failures_total{method="assertion", reason="replayed"}'
    assert total(f"sum({failed})") >= 2 * ROUNDS
    audited = f'keyturn_api_audit_denials_total{{rule="{world.namespace}/watched-audit"}}'
    assert total(f"sum({audited})") >= 2 * ROUNDS


def test_objects_keys_and_replicas_are_told_as_they_are(watched: Prometheus, world: World) -> None:
    def value(expression: str) -> float:
        (found,) = watched.query(expression)
        return float(found["value"][1])

    listed = world.objects.all("clientcredentials")
    eventually(
        lambda: value('sum(keyturn_operator_objects{kind="ClientCredential"})') == len(listed),
        "all clients to be counted",
    )
    assert value("keyturn_operator_replicas") == 2
    assert value(f'keyturn_operator_signing_keys{{phase="{KeyPhase.ACTIVE.value}"}}') == 1
    assert 0 < value("time() - keyturn_operator_signing_key_activated_timestamp_seconds") < 7200
    assert value("keyturn_operator_signing_key_next_rotation_timestamp_seconds - time()") > 0
    assert value("max(time() - keyturn_api_snapshot_checked_timestamp_seconds)") < 15
    assert 0 <= value("time() - keyturn_operator_last_sweep_timestamp_seconds") < 400


def test_the_picture_of_the_documents_is_made_of_this_dashboard(
    watched: Prometheus, world: World, tmp_path: Path
) -> None:
    """docs/images/dashboard.png; UPDATE_GOLDEN=1 puts the new one there."""

    def ask(expression: str) -> list[dict[str, Any]]:
        now = time.time()
        found = watched.ask("query_range", query=asked(expression, world), start=str(now - 60), end=str(now), step="1")[
            "result"
        ]
        assert found, expression
        return list(found)

    text, width, height = page(json.loads(DASHBOARD.read_text(encoding="utf-8")), ask)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    made = tmp_path / "dashboard.png"
    chromium = shutil.which("chromium")
    assert chromium is not None, "chromium is missing: Debian's package of this name has it"
    subprocess.run(
        [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},{height}",
            f"--screenshot={made}",
            (tmp_path / "page.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    content = made.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 20_000
    if os.environ.get("UPDATE_GOLDEN") == "1":
        PICTURE.write_bytes(content)
    kept = PICTURE.read_bytes()
    # Width and height stand in the first chunk: those of the dashboard as it is now.
    assert kept[16:24] == content[16:24], f"{PICTURE} is of another dashboard: UPDATE_GOLDEN=1"
