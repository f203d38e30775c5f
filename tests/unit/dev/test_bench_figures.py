"""From what was observed to what the table says."""

import dataclasses

import pytest

from keyturn_dev.bench.accounting import Usage
from keyturn_dev.bench.document import BEGIN, END, with_figures
from keyturn_dev.bench.figures import Goal, Row, Run, goals, markdown, summary, table
from keyturn_dev.bench.generator import Load, cache_key, parse_load
from keyturn_dev.bench.measure import make_run
from keyturn_dev.errors import DevError

RUN = Run(
    rate=2000.0,
    p50=10.0,
    p99=20.0,
    api=0.5,
    database=0.1,
    generator=0.05,
    base=0.4,
    memory=170.0,
    largest=90.0,
    database_memory=120.0,
    foreign=0.1,
    failed=0,
)
LOAD = Load(answered=2000, unexpected=3, broken=1, seconds=4.0, p50=1.0, p99=9.0, cpu=0.2, ran_out=False, sample="")


def row(*runs: Run, goal: Goal | None = None, workers: int = 2) -> Row:
    return Row("token", "postgresql", workers, 32, runs or (RUN,), goal)


def cells(text: str, line: int) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[line].strip("|").split("|")]


def look(
    api: float, server: float | None, busy: float, clock: float
) -> tuple[Usage | None, Usage | None, float, float]:
    return Usage(api, 170.0, 90.0, 3), None if server is None else Usage(server, 120.0, 30.0, 9), busy, clock


def test_a_run_is_the_difference_of_two_looks_by_request() -> None:
    run = make_run(LOAD, look(10.0, 5.0, 100.0, 50.0), look(11.0, 5.2, 102.4, 54.0), 0.4)
    assert (run.rate, run.failed) == (500.0, 4)
    assert run.api == pytest.approx(0.5)
    assert run.database == pytest.approx(0.1)
    assert run.generator == pytest.approx(0.1)
    assert run.foreign == pytest.approx((2.4 - 1.0 - 0.2 - 0.2) / 4)
    assert run.multiple == pytest.approx(0.6 / 0.4)


def test_without_a_database_server_its_columns_are_empty_and_count_nothing() -> None:
    run = make_run(LOAD, look(10.0, None, 100.0, 50.0), look(11.0, None, 102.4, 54.0), 0.4)
    assert (run.database, run.database_memory, run.total) == (None, None, run.api)
    line = cells(table([row(run)]), 2)
    assert (line[8], line[13]) == ("", "")


def test_an_api_that_ended_meanwhile_is_an_error_not_a_figure() -> None:
    with pytest.raises(DevError, match="ended"):
        make_run(LOAD, look(10.0, None, 100.0, 50.0), (None, None, 102.4, 54.0), 0.4)


def test_the_table_says_medians_and_the_whole_range_of_rates() -> None:
    runs = [dataclasses.replace(RUN, rate=rate, failed=failed) for rate, failed in ((1900, 1), (2100, 0), (2500, 2))]
    line = cells(table([row(*runs)]), 2)
    assert line[:5] == ["token", "postgresql", "2", "32", "2,100 (1,900 to 2,500)"]
    assert line[7:11] == ["0.500 (1.25 x)", "0.100 (0.25 x)", "0.600", "1.50"]
    assert line[-1] == "3"


def test_the_summary_says_the_same_in_a_few_words() -> None:
    assert summary(row()) == "2,000 requests/s, p99 20.0 ms, CPU 0.600 ms (1.50 x base)"


def test_multiples_are_taken_run_by_run_so_that_a_slow_spell_of_the_machine_cancels() -> None:
    slow = dataclasses.replace(RUN, api=1.0, database=0.2, base=0.8)
    assert row(RUN, slow).median(lambda run: run.multiple) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("goal", "workers", "expected"),
    [
        (Goal(multiple=1.7), 2, [("CPU ≤ 1.7 x base", "met")]),
        (Goal(multiple=1.4), 2, [("CPU ≤ 1.4 x base", "missed")]),
        (Goal(cpu=0.6), 1, [("CPU ≤ 0.6 ms", "met")]),
        (Goal(cpu=0.59), 1, [("CPU ≤ 0.59 ms", "missed")]),
        (Goal(rate=2200, p99=30, workers=2), 2, [("≥ 2,200 requests/s", "missed"), ("p99 ≤ 30 ms", "met")]),
        (Goal(rate=2200, p99=30, workers=2), 1, []),
    ],
    ids=["multiple met", "multiple missed", "CPU met", "CPU missed", "rate and p99", "other number of workers"],
)
def test_goals_are_held_against_what_was_measured(goal: Goal, workers: int, expected: list[tuple[str, str]]) -> None:
    lines = goals([row(goal=goal, workers=workers)]).splitlines()[2:]
    assert [
        (cell[1], cell[3]) for cell in ([c.strip() for c in line.strip("|").split("|")] for line in lines)
    ] == expected


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert markdown(("a", "number"), [("long text", "1")], text_columns=1).splitlines() == [
        "| a         | number |",
        "| --------- | -----: |",
        "| long text |      1 |",
    ]


def test_figures_take_the_place_of_the_last_ones_and_nothing_else() -> None:
    document = f"before\n{BEGIN}\n\nold\n\n{END}\nafter\n"
    assert with_figures(document, "new\n") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


@pytest.mark.parametrize("document", ["", BEGIN, END, f"{END}{BEGIN}"], ids=["empty", "no end", "no begin", "reversed"])
def test_a_document_without_the_marks_is_left_alone(document: str) -> None:
    with pytest.raises(DevError):
        with_figures(document, "new")


def test_the_generators_report_is_read() -> None:
    line = (
        '{"answered": 10, "unexpected": 1, "broken": 2, "seconds": 0.5, "p50_ms": 1, "p90_ms": 2, "p99_ms": 3,'
        ' "longest_ms": 4, "cpu_seconds": 0.1, "ran_out": true, "statuses": {"200": 9}, "sample": "HTTP/1.1 500"}'
    )
    load = parse_load(line)
    assert (load.answered, load.failed, load.p99, load.ran_out, load.sample) == (10, 3, 3.0, True, "HTTP/1.1 500")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"answered": null}'], ids=["empty", "a list", "no members", "null"])
def test_anything_else_is_no_report(text: str) -> None:
    with pytest.raises(DevError, match="no report"):
        parse_load(text)


def test_the_program_is_cached_by_all_that_it_is_made_of() -> None:
    sources = {"go.mod": b"module x", "main.go": b"package main"}
    keys = {cache_key(sources), cache_key({**sources, "main.go": b"package other"}), cache_key({"go.mod": b"module x"})}
    assert len(keys) == 3
    assert cache_key(dict(reversed(sources.items()))) == cache_key(sources)
