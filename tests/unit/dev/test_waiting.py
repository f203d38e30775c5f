"""Waiting is bounded and says what it waited for."""

from __future__ import annotations

import pytest

from keyturn_dev.waiting import TimedOut, wait_until


def test_waiting_ends_with_the_condition() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), "the third answer", seconds=5, interval=0)
    assert list(answers) == []


def test_waiting_in_vain_names_what_and_how_long() -> None:
    with pytest.raises(TimedOut, match=r"waited 0\.01 s in vain for the moon"):
        wait_until(lambda: False, "the moon", seconds=0.01, interval=0.001)


def test_the_condition_is_asked_once_even_without_time() -> None:
    wait_until(lambda: True, "now", seconds=0)
