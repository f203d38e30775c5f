from typing import Any

import pytest

from keyturn import reasons
from keyturn.problems import Problem
from keyturn.records import Replica
from keyturn_operator.conditions import (
    ANY_KID,
    MAX_MESSAGE,
    Transition,
    Verdict,
    merge_conditions,
    of_problems,
    of_propagation,
    status_patch,
    worth_an_event,
)

GOOD = Verdict("True", "Accepted", "In force.")
BAD = Verdict("False", "InvalidKey", "spec.publicKeys[0]: no key")


def condition(verdict: Verdict, *, generation: int = 1, at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {
        "type": verdict.type,
        "status": verdict.status,
        "reason": verdict.reason,
        "message": verdict.message,
        "observedGeneration": generation,
        "lastTransitionTime": at,
    }


def test_the_transition_time_stays_while_the_status_does() -> None:
    other = Verdict("False", "WeakKey", "another mistake")
    merged, _ = merge_conditions([condition(BAD)], [other], generation=2, now=1_800_000_000.0)
    assert merged == [condition(other, generation=2)]


def test_the_transition_time_moves_with_the_status() -> None:
    merged, _ = merge_conditions([condition(BAD)], [GOOD], generation=2, now=1_800_000_000.0)
    assert merged == [condition(GOOD, generation=2, at="2027-01-15T08:00:00Z")]


@pytest.mark.parametrize(
    ("before", "after", "before_reason"),
    [
        pytest.param([], GOOD, None, id="the first condition"),
        pytest.param([condition(BAD)], GOOD, "InvalidKey", id="another status"),
        pytest.param([condition(BAD)], Verdict("False", "WeakKey", "x"), "InvalidKey", id="another reason"),
    ],
)
def test_a_new_status_or_reason_is_a_transition(before: Any, after: Verdict, before_reason: str | None) -> None:
    _, transitions = merge_conditions(before, [after], generation=1, now=0.0)
    assert transitions == [Transition(after, before_reason)]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(BAD, id="the same"),
        pytest.param(Verdict("False", "InvalidKey", "another text"), id="another message"),
    ],
)
def test_the_same_status_and_reason_is_no_transition(after: Verdict) -> None:
    assert merge_conditions([condition(BAD)], [after], generation=7, now=0.0)[1] == []


def test_conditions_of_other_types_stay() -> None:
    foreign = condition(Verdict("True", "Fine", "x", "Audited"))
    merged, _ = merge_conditions([foreign, condition(BAD)], [GOOD], generation=1, now=0.0)
    assert foreign in merged
    assert len(merged) == 2


@pytest.mark.parametrize("damaged", [None, "text", [1, None], {}], ids=["absent", "a text", "no objects", "an object"])
def test_a_damaged_list_of_conditions_is_written_anew(damaged: Any) -> None:
    merged, _ = merge_conditions(damaged, [GOOD], generation=1, now=0.0)
    assert [one["type"] for one in merged] == [reasons.READY]


@pytest.mark.parametrize(
    ("transition", "wanted"),
    [
        pytest.param(Transition(GOOD, None), True, id="ready"),
        pytest.param(Transition(BAD, None), True, id="a mistake"),
        pytest.param(Transition(Verdict("Unknown", "Propagating", "x"), None), False, id="on the way"),
        pytest.param(
            Transition(Verdict("False", "NoContradiction", "x", "Conflicting"), None), False, id="no conflict at first"
        ),
        pytest.param(
            Transition(Verdict("False", "NoContradiction", "x", "Conflicting"), "Contradiction"),
            True,
            id="a conflict ends",
        ),
        pytest.param(
            Transition(Verdict("True", "Contradiction", "x", "Conflicting"), "NoContradiction"), True, id="a conflict"
        ),
    ],
)
def test_events_tell_of_mistakes_and_their_end(transition: Transition, wanted: bool) -> None:
    assert worth_an_event(transition) is wanted


def replica(applied: int, *kids: str) -> Replica:
    return Replica(f"api-{applied}", applied, kids, 0.0)


@pytest.mark.parametrize(
    ("replicas", "kid", "status", "reason"),
    [
        pytest.param([], None, "Unknown", reasons.NO_REPLICA, id="no replica lives"),
        pytest.param([replica(5)], ANY_KID, "Unknown", reasons.PROPAGATING, id="the replica has no signing key"),
        pytest.param([replica(5, "k1")], ANY_KID, "True", reasons.ACCEPTED, id="the replica has some signing key"),
        pytest.param([replica(5), replica(6)], None, "True", reasons.ACCEPTED, id="all have applied it"),
        pytest.param([replica(4), replica(6)], None, "Unknown", reasons.PROPAGATING, id="one is behind"),
        pytest.param(
            [replica(5, "k1"), replica(6, "k1", "k2")], "k1", "True", reasons.ACCEPTED, id="all have loaded the key"
        ),
        pytest.param([replica(5, "k1"), replica(6)], "k1", "Unknown", reasons.PROPAGATING, id="one lacks the key"),
    ],
)
def test_ready_means_that_every_live_replica_acts_on_it(
    replicas: list[Replica], kid: str | None, status: str, reason: str
) -> None:
    verdict = of_propagation(replicas, 5, kid)
    assert (verdict.status, verdict.reason) == (status, reason)


def test_a_mistake_names_every_field_and_has_the_first_reason() -> None:
    problems = [
        Problem("WeakKey", "spec.publicKeys[0]", "too short"),
        Problem("InvalidSpec", "spec.audiences[1]", "a space"),
    ]
    verdict = of_problems(problems)
    assert (verdict.status, verdict.reason) == ("False", "WeakKey")
    assert "spec.publicKeys[0]: too short" in verdict.message
    assert "spec.audiences[1]: a space" in verdict.message


def test_a_message_is_bounded_however_many_mistakes_there_are() -> None:
    verdict = of_problems([Problem("InvalidSpec", f"spec.permissions[{number}]", "x" * 300) for number in range(500)])
    assert len(verdict.message) <= MAX_MESSAGE


@pytest.mark.parametrize(
    ("present", "wanted", "patch"),
    [
        pytest.param({"a": 1}, {"a": 1}, None, id="the same"),
        pytest.param({"a": 1, "foreign": 2}, {"a": 1}, None, id="a member that is not named stays"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 2}, id="another value"),
        pytest.param({"a": 1}, {"a": None}, {"a": None}, id="taken out"),
        pytest.param({}, {"a": None}, None, id="not there and not wanted"),
    ],
)
def test_a_status_is_written_only_where_it_differs(present: Any, wanted: Any, patch: Any) -> None:
    assert status_patch(present, wanted) == patch
