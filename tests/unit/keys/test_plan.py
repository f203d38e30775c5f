from dataclasses import replace

import pytest

from keyturn.jose.signing import PrivateKey
from keyturn.keys.plan import Cause, Fleet, RingPlan, Rotation, decide, ensure, ordered, with_generated, withdraw
from keyturn.keys.ring import MAX_WITHDRAWN, KeyRing
from keyturn.keys.schedule import Ceilings, Policy
from keyturn.keys.state import Ceiling, KeyPhase
from tests.sample_keys import sample_key
from tests.unit.keys.rings import NOW, sample_ring

ACTIVE, NEXT, RETIRED, COMPROMISED = KeyPhase.ACTIVE, KeyPhase.NEXT, KeyPhase.RETIRED, KeyPhase.COMPROMISED


def plan_for(
    ring: KeyRing | None, *, algorithm: str = "ES256", size: int = 256, compromised: set[str] | None = None
) -> RingPlan:
    return ensure(ring, algorithm=algorithm, size=size, now=NOW + 60, compromised=compromised or set())


def phases(ring: KeyRing) -> list[tuple[str, KeyPhase]]:
    return [(key.kid, key.phase) for key in ring.keys]


RING = sample_ring()
FIRST, SECOND = (key.kid for key in RING.keys)
POLICY = Policy("ES256", 256, publish_before=10)
LIMITS = Ceilings(Ceiling(5), Ceiling(3600))


@pytest.mark.parametrize(
    ("ring", "missing"),
    [
        pytest.param(None, (ACTIVE, NEXT), id="no ring lacks both"),
        pytest.param(KeyRing(), (ACTIVE, NEXT), id="an empty ring lacks both"),
        pytest.param(RING, (), id="a whole ring lacks nothing"),
        pytest.param(replace(RING, keys=RING.keys[:1]), (NEXT,), id="Active alone lacks Next"),
        pytest.param(
            replace(RING, keys=tuple(replace(key, phase=RETIRED) for key in RING.keys)),
            (ACTIVE, NEXT),
            id="retired keys do not count",
        ),
    ],
)
def test_what_is_missing(ring: KeyRing | None, missing: tuple[KeyPhase, ...]) -> None:
    plan = plan_for(ring)
    assert plan.missing == missing
    assert not plan.changed
    assert plan.settled is (not missing)


def test_the_first_keys_are_published_at_once_and_only_active_is_activated() -> None:
    assert phases(RING) == [(FIRST, ACTIVE), (SECOND, NEXT)]
    assert [(key.created_at, key.published_at, key.activated_at) for key in RING.keys] == [
        (NOW, NOW, NOW),
        (NOW, NOW, None),
    ]
    assert set(RING.private) == {FIRST, SECOND}
    assert RING.keys[0].jwk == sample_key("ES256").public.jwk


def test_a_changed_algorithm_is_for_the_keys_made_from_then_on() -> None:
    assert plan_for(RING, algorithm="RS256", size=2048).settled
    plan = plan_for(replace(RING, keys=RING.keys[:1]), algorithm="RS256", size=2048)
    assert (plan.missing, plan.algorithm, plan.size) == ((NEXT,), "RS256", 2048)
    ring = with_generated(plan, {NEXT: sample_key("RS256")}, now=NOW + 60)
    assert [key.algorithm for key in ring.keys] == ["ES256", "RS256"]


def test_next_follows_at_once_when_active_is_compromised() -> None:
    plan = plan_for(RING, compromised={FIRST})
    assert phases(plan.ring) == [(SECOND, ACTIVE), (FIRST, COMPROMISED)]
    assert (plan.ring.keys[0].activated_at, plan.missing, plan.changed) == (NOW + 60, (NEXT,), True)
    assert set(plan.ring.private) == {SECOND}


def test_a_compromised_next_is_replaced_and_active_stays() -> None:
    plan = plan_for(RING, compromised={SECOND})
    assert phases(plan.ring) == [(FIRST, ACTIVE), (SECOND, COMPROMISED)]
    assert (plan.missing, plan.changed) == ((NEXT,), True)


def test_with_both_compromised_both_are_made_anew_and_handled_rotation_stays() -> None:
    plan = plan_for(replace(RING, handled_rotation="x"), compromised={FIRST, SECOND})
    ring = with_generated(plan, {ACTIVE: sample_key("ES256", 2), NEXT: sample_key("ES256", 3)}, now=NOW + 60)
    assert [key.phase for key in ring.keys] == [ACTIVE, NEXT, COMPROMISED, COMPROMISED]
    assert set(ring.private) == {sample_key("ES256", 2).kid, sample_key("ES256", 3).kid}
    assert ring.handled_rotation == "x"


def test_compromised_is_sticky() -> None:
    ring = plan_for(RING, compromised={FIRST}).ring
    again = plan_for(ring)
    assert (FIRST, COMPROMISED) in phases(again.ring)
    assert again.compromised == {FIRST}
    assert not again.changed


ROTATED = ordered(
    (
        replace(RING.keys[0], phase=KeyPhase.RETIRED, retired_at=NOW + 30),
        replace(RING.keys[1], phase=ACTIVE),
        sample_ring(first=2).keys[1],
        replace(sample_ring(first=4).keys[0], phase=KeyPhase.RETIRED, retired_at=NOW + 10),
    )
)
THIRD, LONG_RETIRED = sample_key("ES256", 3).kid, sample_key("ES256", 4).kid


@pytest.mark.parametrize("halves", [True, False], ids=["before the replicas confirm", "after"])
@pytest.mark.parametrize(
    ("named", "next_goes"),
    [
        pytest.param({FIRST, SECOND}, True, id="both that a status before the rotation shows"),
        pytest.param({SECOND, THIRD}, True, id="both that sign"),
        pytest.param({SECOND}, False, id="the active one"),
        pytest.param({SECOND, LONG_RETIRED}, False, id="the active one and one retired long before"),
        pytest.param({FIRST}, False, id="the retired one"),
    ],
)
def test_names_from_a_status_one_rotation_behind_mean_the_whole_secret(
    named: set[str], next_goes: bool, halves: bool
) -> None:
    private = {kid: sample_key("ES256", number) for number, kid in enumerate((FIRST, SECOND, "", THIRD)) if kid}
    if not halves:
        del private[FIRST]
    ring = plan_for(KeyRing(ROTATED, private), compromised=named).ring
    assert named <= ring.refused
    assert (THIRD in ring.refused) is next_goes
    assert not set(ring.private) & ring.refused


def test_a_kid_without_a_key_is_noted_should_one_come_back() -> None:
    noted = withdraw(RING, {"unknown"})
    assert (noted.keys, noted.private, noted.withdrawn) == (RING.keys, RING.private, ("unknown",))
    assert noted.refused == {"unknown"}
    assert withdraw(noted, {"unknown"}) == noted


@pytest.mark.parametrize(
    ("plan", "generated"),
    [
        pytest.param(plan_for(None), {ACTIVE: sample_key("ES256", 2)}, id="one of two"),
        pytest.param(plan_for(RING), {NEXT: sample_key("ES256", 2)}, id="one that nobody asked for"),
        pytest.param(
            plan_for(None), {ACTIVE: sample_key("ES256", 2), NEXT: sample_key("ES256", 2)}, id="one key for both"
        ),
        pytest.param(
            plan_for(replace(RING, keys=RING.keys[:1])), {NEXT: sample_key("ES256", 0)}, id="a key of the ring"
        ),
        pytest.param(
            plan_for(RING, compromised={SECOND}),
            {NEXT: sample_key("ES256", 1)},
            id="a key that the ring calls compromised",
        ),
        pytest.param(
            plan_for(None, compromised={FIRST}),
            {ACTIVE: sample_key("ES256", 0), NEXT: sample_key("ES256", 1)},
            id="a key that was called compromised before the ring was lost",
        ),
    ],
)
def test_keys_that_do_not_belong_are_refused(plan: RingPlan, generated: dict[KeyPhase, PrivateKey]) -> None:
    with pytest.raises(ValueError, match=r"generated key"):
        with_generated(plan, generated, now=NOW)


def test_a_full_memory_of_withdrawn_kids_forgets_none_of_them() -> None:
    full = withdraw(RING, {f"kid-{number:04}" for number in range(MAX_WITHDRAWN + 20)})
    assert len(full.withdrawn) == MAX_WITHDRAWN
    again = withdraw(full, {"one more", *full.withdrawn})
    assert again.withdrawn == full.withdrawn

    plan = decide(full, POLICY, LIMITS, now=NOW, owner="uid", compromised={FIRST})
    later = decide(plan.ring, POLICY, LIMITS, now=NOW + 100_000, owner="uid")
    assert FIRST in later.ring.refused, "without room for its kid the key itself stays"


def test_rotations_leave_room_for_emergencies() -> None:
    ring = replace(RING, owner="uid")
    retired = replace(RING.keys[0], phase=RETIRED, retired_at=NOW, remove_at=NOW + 500)
    many = [replace(retired, kid=f"old-{number}", jwk={**retired.jwk, "kid": f"old-{number}"}) for number in range(125)]
    full = replace(ring, keys=(*ring.keys, *many))
    fleet = Fleet(applied=True, loaded=None)
    plan = decide(full, POLICY, LIMITS, now=NOW + 100, owner="uid", requested="now", fleet=fleet)
    assert plan.rotation == Rotation(Cause.REQUESTED, "TooManyKeys", NOW + 500)
    assert not plan.rotates
    emergency = decide(full, POLICY, LIMITS, now=NOW + 100, owner="uid", compromised={FIRST}, fleet=fleet)
    assert [key.kid for key in emergency.ring.in_phase(ACTIVE)] == [SECOND]
