"""The alerts, judged by Prometheus's own promtool: each fires when it must, with the words that its reader gets, and else stays silent."""

from pathlib import Path

import pytest

from tests.documents import PROJECT, blocks
from tests.people.metrics.alert_cases import ABSENT, CASES, RULES, alerts, installed, judge, promtool, told

RUNBOOKS = PROJECT / "docs" / "runbooks"
ADDRESS = "https://keyturn.dev/docs/runbooks/"
SECTIONS = ("## Meaning", "## Impact", "## Look at", "## What to do")


def test_promtool_accepts_the_rules() -> None:
    assert f"{len(CASES)} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_there_is_a_case_for_each_alert() -> None:
    assert set(CASES) == set(alerts())


@pytest.mark.parametrize("name", CASES)
def test_it_fires_and_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    judge(tmp_path, name, case.fires, case.minutes, [told(name, case)])


@pytest.mark.parametrize("name", CASES)
def test_it_stays_silent_while_all_is_well(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    judge(tmp_path, name, case.silent, case.minutes, [])


@pytest.mark.parametrize("name", ABSENT)
def test_it_fires_too_when_there_is_nothing_to_look_at(name: str, tmp_path: Path) -> None:
    judge(tmp_path, name, {"up": "0x100"}, 60, [told(name, CASES[name])])


@pytest.mark.parametrize("name", CASES)
def test_it_tells_of_the_one_installation_that_has_it_and_not_of_its_neighbour(name: str, tmp_path: Path) -> None:
    ill, well = installed(name, "team-b"), installed(name, "team-a")
    judge(tmp_path, name, ill.fires | well.silent, ill.minutes, [told(name, ill)])


def test_clients_are_not_proven_either_where_no_token_was_ever_issued(tmp_path: Path) -> None:
    name = "KeyturnClientsNotProven"
    ill, well = installed(name, "team-b"), installed(name, "team-a")
    failures = {one: values for one, values in ill.fires.items() if "failures" in one}
    judge(tmp_path, name, failures | well.silent, ill.minutes, [told(name, ill)])


@pytest.mark.parametrize("name", CASES)
def test_each_alert_has_a_severity_words_and_a_runbook(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{ADDRESS}{name}.md"
    page = RUNBOOKS / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == list(SECTIONS)
    assert blocks(page)


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(CASES)
