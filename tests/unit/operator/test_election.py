import datetime
from typing import Any

import pytest

from keyturn_operator.election import (
    EXIT_LEASE_LOST,
    Elector,
    LeaseView,
    Sighting,
    Step,
    decide,
    lease_spec,
    new_identity,
    sight,
)
from keyturn_operator.kube.client import collection
from keyturn_operator.kube.errors import KubeUnavailable
from tests.unit.operator.fakes import FakeKube

PATH = f"{collection('coordination.k8s.io/v1', 'leases', 'shop')}/keyturn-operator"
WALL = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def view(holder: str = "other", *, version: str = "1", transitions: int = 4) -> LeaseView:
    return LeaseView(holder, 15.0, transitions, "2025-12-31T00:00:00.000000Z", version)


@pytest.mark.parametrize(
    ("sighting", "now", "step"),
    [
        pytest.param(None, 0.0, Step.CREATE, id="no Lease is there"),
        pytest.param(Sighting(view("me"), 0.0), 1000.0, Step.RENEW, id="it is ours"),
        pytest.param(Sighting(view(""), 0.0), 0.0, Step.TAKE, id="it was released"),
        pytest.param(Sighting(view(), 100.0), 114.9, Step.WAIT, id="another renewed it less than its duration ago"),
        pytest.param(Sighting(view(), 100.0), 115.0, Step.TAKE, id="another has not renewed it for its duration"),
    ],
)
def test_the_lease_is_taken_only_when_free_or_expired(sighting: Sighting | None, now: float, step: Step) -> None:
    assert decide(sighting, "me", now) is step


def test_a_lease_seen_for_the_first_time_is_given_its_whole_duration() -> None:
    # Whatever its renewTime says: that is another machine's clock.
    assert decide(sight(None, view(), 500.0), "me", 510.0) is Step.WAIT


def test_a_renewal_begins_the_duration_anew() -> None:
    first = sight(None, view(version="1"), 0.0)
    same = sight(first, view(version="1"), 10.0)
    assert same.since == 0.0
    renewed = sight(same, view(version="2"), 14.0)
    assert decide(renewed, "me", 16.0) is Step.WAIT


@pytest.mark.parametrize(
    ("step", "transitions", "acquired"),
    [
        pytest.param(Step.TAKE, 5, "2026-01-01T00:00:00.000000Z", id="taking counts"),
        pytest.param(Step.RENEW, 4, "2025-12-31T00:00:00.000000Z", id="renewing does not"),
    ],
)
def test_a_change_of_holder_counts_as_a_transition(step: Step, transitions: int, acquired: str) -> None:
    spec = lease_spec(view(), step, "me", 15.0, WALL)
    assert (spec["leaseTransitions"], spec["acquireTime"]) == (transitions, acquired)
    assert spec["renewTime"] == "2026-01-01T00:00:00.000000Z"


def test_identities_differ_within_one_host() -> None:
    assert new_identity() != new_identity()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def elector(
    kube: FakeKube, clock: Clock, identity: str = "me", died: list[int] | None = None, **changes: Any
) -> Elector:
    given: dict[str, Any] = {"duration": 15.0, "deadline": 10.0, "period": 0.01}
    given |= changes
    die = (died if died is not None else []).append
    return Elector(kube, namespace="shop", name="keyturn-operator", identity=identity, clock=clock, die=die, **given)


async def test_the_first_process_creates_the_lease_and_the_second_waits() -> None:
    kube, clock = FakeKube(), Clock()
    first, second = elector(kube, clock, "first"), elector(kube, clock, "second")
    assert await first._attempt()
    assert not await second._attempt()
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "first"


async def test_the_standby_takes_over_when_the_holder_is_silent() -> None:
    kube, clock = FakeKube(), Clock()
    first, second = elector(kube, clock, "first"), elector(kube, clock, "second")
    await first._attempt()
    assert not await second._attempt()
    clock.now += 14.0
    assert not await second._attempt()
    clock.now += 1.0
    assert await second._attempt()
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "second"
    assert not await first._attempt(), "the old holder must not take it back"


async def test_of_two_that_see_the_lease_expired_one_wins() -> None:
    kube, clock = FakeKube(), Clock()
    first = elector(kube, clock, "first")
    await first._attempt()
    stale = dict(kube.objects[PATH], metadata=dict(kube.objects[PATH]["metadata"]))
    second, third = elector(kube, clock, "second"), elector(kube, clock, "third")
    await second._attempt()
    await third._attempt()
    clock.now += 15.0
    assert await second._attempt()

    class Behind(FakeKube):
        async def get(self, path: str) -> dict[str, Any] | None:
            return stale

    behind = Behind()
    behind.objects = kube.objects
    third._kube = behind
    assert not await third._attempt(), "the resourceVersion that it read is old"


async def test_a_release_lets_the_next_process_in_at_once() -> None:
    kube, clock = FakeKube(), Clock()
    first, second = elector(kube, clock, "first"), elector(kube, clock, "second")
    await first.acquire()
    await first.release()
    assert await second._attempt()


async def test_one_that_never_held_the_lease_releases_nothing() -> None:
    kube, clock = FakeKube(), Clock()
    first, second = elector(kube, clock, "first"), elector(kube, clock, "second")
    await first._attempt()
    await second._attempt()
    await second.release()
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "first"


async def test_an_unreachable_api_server_is_no_answer() -> None:
    kube, clock = FakeKube(), Clock()
    kube.failures[("get", PATH)] = KubeUnavailable("GET: down")
    assert not await elector(kube, clock)._attempt()


async def test_the_process_ends_when_the_renew_deadline_has_passed() -> None:
    kube, clock, died = FakeKube(), Clock(), list[int]()
    leader = elector(kube, clock, died=died)
    assert await leader._attempt()
    clock.now += 10.1
    leader._watchdog()
    assert died == [EXIT_LEASE_LOST]
    assert EXIT_LEASE_LOST != 0


async def test_renewing_returns_when_another_holds_the_lease() -> None:
    kube, clock = FakeKube(), Clock()
    first = elector(kube, clock, "first")
    await first._attempt()
    kube.objects[PATH]["spec"]["holderIdentity"] = "second"
    kube.objects[PATH]["metadata"]["resourceVersion"] = "99"
    await first.renew()
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "second"
