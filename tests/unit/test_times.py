"""Durations and times, as manifests write them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.durations import MAX_SECONDS, InvalidDuration, format_duration, parse_duration
from keyturn.timestamps import InvalidTimestamp, format_rfc3339, parse_rfc3339


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("60s", 60),
        ("15m", 900),
        ("1h", 3600),
        ("720h", 2592000),
        ("1h30m", 5400),
        ("1h0m1s", 3601),
        ("090s", 90),
    ],
)
def test_a_duration_is_whole_hours_minutes_and_seconds(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "60",
        "s",
        "1d",
        "-1s",
        "+1s",
        "1.5h",
        "100ms",
        "1m1h",
        "1s1s",
        "1 h",
        " 1h",
        "1h\n",
        "\N{FULLWIDTH DIGIT ONE}h",
        "9999999h",
        "1H",
        None,
        60,
    ],
)
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(InvalidDuration):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=MAX_SECONDS))
def test_a_duration_is_read_as_it_was_written(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (90, "1m30s"), (900, "15m"), (86400, "24h"), (3601, "1h1s")])
def test_a_duration_is_written_in_its_shortest_form(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


def test_there_is_no_duration_below_zero() -> None:
    with pytest.raises(ValueError, match="never negative"):
        format_duration(-1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01t00:00:01z", 1.0),
        ("1970-01-01T02:00:00+02:00", 0.0),
        ("1969-12-31T19:30:00-04:30", 0.0),
        ("1970-01-01T00:00:00.25Z", 0.25),
        ("1970-01-01T00:00:00.123456789Z", 0.123456789),
        ("1970-01-01T00:00:60Z", 60.0),
        ("2024-02-29T12:00:00Z", 1709208000.0),
        ("0001-01-01T00:00:00+23:59", -62135683140.0),
    ],
)
def test_a_time_is_read_to_seconds_since_the_epoch(text: str, seconds: float) -> None:
    assert parse_rfc3339(text) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-31",
        "2026-01-31T08:00:00",
        "2026-01-31 08:00:00Z",
        "2026-01-31T08:00Z",
        "2026-02-30T08:00:00Z",
        "2026-13-01T08:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T08:60:00Z",
        "2026-01-31T08:00:61Z",
        "2026-01-31T08:00:00+24:00",
        "2026-01-31T08:00:00+02:60",
        "2026-01-31T08:00:00+0200",
        "2026-01-31T08:00:00.Z",
        "2026-01-31T08:00:00Z\n",
        "\N{FULLWIDTH DIGIT TWO}026-01-31T08:00:00Z",
        "tomorrow",
        1769846400,
        None,
    ],
)
def test_anything_else_is_no_time(text: object) -> None:
    with pytest.raises(InvalidTimestamp):
        parse_rfc3339(text)


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))  # noqa: DTZ001
def test_a_time_is_written_with_whole_seconds_and_read_back(naive: datetime) -> None:
    whole = naive.replace(microsecond=0, tzinfo=UTC)
    assert parse_rfc3339(format_rfc3339(whole.timestamp())) == whole.timestamp()


def test_a_time_is_cut_to_the_second_it_lies_in() -> None:
    assert format_rfc3339(0.999) == "1970-01-01T00:00:00Z"
    assert format_rfc3339(-0.001) == "1969-12-31T23:59:59Z"
