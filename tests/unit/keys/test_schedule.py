"""Times of signing keys: when they may sign, are due, and may be forgotten."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.keys.schedule import (
    JITTER,
    MAX_JWKS_AGE,
    Ceilings,
    Policy,
    ceilings,
    due_at,
    first_after,
    jwks_max_age,
    next_rotation,
    promotable_at,
    removable_at,
)
from keyturn.keys.state import Ceiling, SigningKeyState
from tests.unit.keys.rings import NOW, sample_ring

RING = sample_ring()
ACTIVE, NEXT = RING.keys
POLICY = Policy("ES256", 256, publish_before=600, retain_after=0, rotate_every=1000)
LIMITS = Ceilings(Ceiling(60), Ceiling(3600))


@pytest.mark.parametrize(
    ("publish_before", "max_age"), [(1, 0), (2, 1), (3, 1), (60, 30), (120, 60), (600, 60), (86_400, 60)]
)
def test_the_jwks_is_kept_for_half_of_the_lead_time_and_a_minute_at_most(publish_before: float, max_age: int) -> None:
    assert jwks_max_age(publish_before) == max_age
    assert max_age <= min(publish_before / 2, MAX_JWKS_AGE)


@given(st.text(min_size=1, max_size=40))
def test_a_rotation_comes_up_to_a_tenth_early_and_always_at_the_same_time(kid: str) -> None:
    key = replace(ACTIVE, kid=kid)
    due = due_at(key, 1000)
    assert due is not None
    assert NOW + 1000 * (1 - JITTER) <= due <= NOW + 1000
    assert due_at(key, 1000) == due


def test_without_a_schedule_nothing_is_due() -> None:
    assert due_at(ACTIVE, None) is None
    assert due_at(NEXT, 1000) is None
    assert next_rotation(RING, replace(POLICY, rotate_every=None), LIMITS) is None


def test_the_next_rotation_waits_for_the_next_key_too() -> None:
    due = due_at(ACTIVE, 1000)
    assert next_rotation(RING, POLICY, LIMITS) == due
    assert next_rotation(RING, replace(POLICY, publish_before=5000), LIMITS) == NOW + 5000


def test_a_key_that_is_not_published_yet_cannot_be_promoted() -> None:
    assert promotable_at(replace(NEXT, published_at=None), POLICY, LIMITS) is None
    assert promotable_at(NEXT, POLICY, LIMITS) == NOW + 600


def test_a_key_leaves_when_its_last_token_has_expired_or_later_if_it_is_to_be_retained() -> None:
    assert removable_at(NOW, POLICY, LIMITS) == NOW + 3600
    assert removable_at(NOW, replace(POLICY, retain_after=7200), LIMITS) == NOW + 7200


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), min_size=1, max_size=6),
    st.floats(0, 100),
)
def test_whatever_began_under_an_earlier_ceiling_is_over_by_the_end(
    changes: list[tuple[float, float]], moment: float
) -> None:
    """Something begins at each moment and lasts as long as was allowed then; at `end(moment)` all that began up to it is over."""
    ceiling = Ceiling(10.0)
    allowed = [(0.0, 10.0)]
    for at, value in sorted(changes):
        ceiling = ceiling.changed(value, at)
        allowed.append((at, value))
    for (start, value), following in zip(allowed, [*(start for start, _ in allowed[1:]), 1e9], strict=True):
        last = min(moment, following)
        # The present end is asked for only once the last change is known.
        if start <= last and moment >= allowed[-1][0]:
            assert last + value <= ceiling.end(moment) + 1e-9


def last_with(publish_before: float) -> SigningKeyState:
    made = ceilings(None, fresh=True, publish_before=publish_before, token_life=900, now=NOW)
    return SigningKeyState(RING.keys, cache=made.cache, tokens=made.tokens)


def test_a_shorter_lead_time_remembers_the_longer_one() -> None:
    limits = ceilings(last_with(600), fresh=False, publish_before=2, token_life=900, now=NOW + 100)
    assert limits.cache.now == 1
    assert promotable_at(replace(NEXT, published_at=NOW + 99), replace(POLICY, publish_before=2), limits) == NOW + 159
    assert promotable_at(replace(NEXT, published_at=NOW), replace(POLICY, publish_before=2), limits) == NOW + 60
    assert promotable_at(replace(NEXT, published_at=NOW + 500), replace(POLICY, publish_before=2), limits) == NOW + 502


def test_a_shorter_token_lifetime_remembers_the_longer_one() -> None:
    limits = ceilings(last_with(600), fresh=False, publish_before=600, token_life=60, now=NOW + 100)
    assert removable_at(NOW + 101, POLICY, limits) == NOW + 101 + 960


def test_a_store_that_does_not_say_how_long_the_jwks_was_kept_is_taken_for_the_worst() -> None:
    assert ceilings(None, fresh=False, publish_before=2, token_life=60, now=NOW).cache.end(NOW) == NOW + MAX_JWKS_AGE
    assert ceilings(None, fresh=True, publish_before=2, token_life=60, now=NOW).cache.end(NOW) == NOW + 1


def test_the_first_moment_to_come_is_found() -> None:
    assert first_after([NOW - 1, NOW, None, NOW + 5, NOW + 3], NOW) == NOW + 3
    assert first_after([None, NOW], NOW) is None
