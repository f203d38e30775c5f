"""What is said of the gateway check: figures against each other, a configuration without its check, and messages in a file."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from keyturn_dev.bench import opa, wire, world
from keyturn_dev.bench.__main__ import describe
from keyturn_dev.bench.behind import ALONE, CHECKED, GATEWAYS, SEEN, Added, without_check
from keyturn_dev.bench.checks import FEW, MANY, findings, table
from keyturn_dev.bench.figures import Row, Run
from keyturn_dev.bench.generator import Load
from keyturn_dev.bench.grpc_load import quantile, read_messages
from keyturn_dev.errors import DevError
from keyturn_dev.gateway_files import BY_NAME, FILES
from keyturn_dev.go_programs import single_program
from keyturn_dev.paths import PROJECT

RUN = Run(
    rate=2000.0,
    p50=1.0,
    p99=2.0,
    api=0.03,
    database=None,
    generator=0.01,
    base=0.3,
    memory=90.0,
    largest=90.0,
    database_memory=None,
    foreign=0.0,
    failed=0,
)
LOAD = Load(answered=500, unexpected=0, broken=0, seconds=1.0, p50=1.0, p99=4.0, cpu=0.1, ran_out=False, sample="")


def row(name: str, cpu: float) -> Row:
    return Row(name, "sqlite", 1, 32, (dataclasses.replace(RUN, api=cpu),))


def added(p50: float, p99: float, of: str = ALONE, capacity: float = 6000.0) -> Added:
    checked = dataclasses.replace(LOAD, p50=1 + p50, p99=4 + p99)
    return Added("nginx", SEEN, of, 9000.0, capacity, 4500.0, (LOAD,), (checked,))


@pytest.mark.parametrize(("many", "met"), [(0.036, True), (0.037, False)], ids=["within a fifth", "beyond"])
def test_many_routes_are_held_against_few(many: float, met: bool) -> None:
    rows = [row(f"/auth, {FEW} routes", 0.03), row(f"/auth, {MANY:,} routes", many)]
    (found,) = findings(rows, [])
    assert found.met is met
    assert found.measured == f"{many / 0.03:.2f} x"


@pytest.mark.parametrize(("theirs", "met"), [(0.09, True), (0.08, False)], ids=["three for one", "fewer"])
def test_decisions_are_held_against_those_of_another_product(theirs: float, met: bool) -> None:
    rows = [row("/auth, beside OPA", 0.03), row(opa.NAMES[True], theirs)]
    (found,) = findings(rows, [])
    assert found.met is met


@pytest.mark.parametrize(
    ("p50", "p99", "met"), [(0.9, 4.9, [True, True]), (1.1, 4.9, [False, True]), (0.9, 5.1, [True, False])]
)
def test_what_the_check_adds_is_held_against_its_bounds(p50: float, p99: float, met: list[bool]) -> None:
    assert [found.met for found in findings([], [added(p50, p99)])] == met


def test_both_rates_are_told_apart_and_one_that_is_too_much_is_called_so() -> None:
    for of in (ALONE, CHECKED):
        assert all(found.work.endswith(f"half of its capacity {of}") for found in findings([], [added(0.5, 2, of=of)]))
    overloaded = findings([], [added(9, 9, capacity=4000.0)])
    assert ["more than it can do with the check" in found.work for found in overloaded] == [True, True]
    assert not any(found.met for found in overloaded)


def test_what_was_not_measured_is_not_judged() -> None:
    assert findings([row(f"/auth, {MANY:,} routes", 0.03), row(opa.NAMES[False], 0.3)], []) == []


def test_the_table_shows_both_sides_at_one_rate() -> None:
    cells = [cell.strip() for cell in table([added(0.5, 2.0)]).splitlines()[2].strip("|").split("|")]
    assert cells[:6] == ["nginx", "seen before", "9,000/s", "6,000/s", "4,500/s", "alone"]
    assert cells[6:] == ["1.00", "1.50", "4.00", "6.00", "0"]
    assert table([]) == ""


def test_a_report_of_gateways_alone_has_no_empty_tables() -> None:
    text = describe([], [added(0.5, 2.0)], ran="make bench ONLY=gateways", machine="a machine", date="2026-01-01")
    assert "behind nginx, seen before, 4,500 requests/s" in text
    assert "base =" not in text


@pytest.mark.parametrize("name", GATEWAYS)
def test_the_configuration_without_the_check_is_otherwise_the_same(name: str) -> None:
    kind = BY_NAME[name]
    text = (FILES / kind.files[0]).read_text(encoding="utf-8")
    left = without_check(kind, text)
    if kind.program == "nginx":
        assert "auth_request" not in left
        assert set(left.splitlines()) < set(text.splitlines())
        assert "proxy_pass http://api;" in left
    else:
        before, after = yaml.safe_load(text)["static_resources"], yaml.safe_load(left)["static_resources"]
        assert after["clusters"] == before["clusters"]
        for listener in after["listeners"]:
            filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
            assert [each["name"] for each in filters] == ["envoy.filters.http.router"]


def test_a_configuration_that_nobody_took_apart_is_refused() -> None:
    with pytest.raises(DevError, match="caddy"):
        without_check(BY_NAME["caddy"], "")


def test_messages_with_line_feeds_are_read_back() -> None:
    assert read_messages(b"4\na\nb\n5\nthree") == [b"a\nb\n", b"three"]


def test_quantiles_are_in_milliseconds() -> None:
    latencies = [number / 1000 for number in range(1, 101)]
    assert (quantile(latencies, 0.5), quantile(latencies, 0.99), quantile([], 0.5)) == (50.0, 99.0, 0.0)


def test_a_check_by_grpc_holds_what_envoy_sends() -> None:
    from envoy.service.auth.v3 import external_auth_pb2

    message = external_auth_pb2.CheckRequest.FromString(wire.grpc_check(b"t", method="GET", uri="/a?b"))
    http = message.attributes.request.http
    assert (http.method, http.path, http.headers["authorization"]) == ("GET", "/a?b", "Bearer t")


def test_each_target_is_another_one_on_a_route_that_is_there() -> None:
    made = world.targets(50, 10)
    assert len(set(made)) == 50
    assert {target.split("/")[2] for target in made} == {f"resource-{number}" for number in range(10)}


def test_the_other_product_is_pinned() -> None:
    programs = single_program(opa.MODULE, "opa", opa.PACKAGE, opa.PACKAGE)
    assert programs.key.startswith("opa-v1.")
    assert opa.POLICY.is_relative_to(PROJECT)
    assert opa.POLICY.is_file()
