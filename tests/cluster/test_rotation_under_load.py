"""Keys change all the time, under full load, and nobody notices: three API processes, clients and verifiers like other people's.

The signing key and a client's key and secret are rotated every few seconds. Clients get tokens with what they have in their Secret, at once
or as late as the overlap allows; verifiers keep the JWKS for its max-age and do not ask sooner; gateways ask at once. Not one request may
fail. The same with the operator killed at random instants, at which the keys' states must never contradict each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from keyturn_dev.tcp_proxy import Outage
from tests.cluster.conftest import StartWorld
from tests.cluster.outage import database_that_may_fail
from tests.cluster.rotation.ledger import Ledger
from tests.cluster.rotation.states import SigningWatch
from tests.cluster.rotation.trial import SETTINGS, Trial

REPLICAS = 3
SECONDS = 120.0
# At least, and until the operator was killed often enough.
KILLING_SECONDS = SECONDS
KILLS = 50


@pytest.fixture
def database() -> Iterator[Outage]:
    with database_that_may_fail() as one:
        yield one


RING = [("k1", "Active"), ("k2", "Next")]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        pytest.param(RING, "", id="nothing where all is well"),
        pytest.param([("k2", "Next")], "0 Active keys", id="no Active key"),
        pytest.param([*RING, ("k3", "Active")], "2 Active keys", id="two Active keys"),
        pytest.param([("k1", "Active")], "not just one Next", id="no Next key"),
        pytest.param([*RING, ("k3", "Next")], "not just one Next", id="two Next keys"),
    ],
)
async def test_the_watch_tells(keys: list[tuple[str, str]], told: str) -> None:
    ledger = Ledger()

    async def read() -> dict[str, Any]:
        return {"keys": [{"kid": kid, "phase": phase} for kid, phase in keys]}

    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(SigningWatch(ledger).row(read), timeout=0.01)
    assert bool(ledger.failed) == bool(told)
    assert told in ledger.report()


def published(lead: str) -> dict[str, str]:
    """A new key is published for so long before it signs; verifiers may keep the JWKS for half of that."""
    return {"publishBefore": lead, "rotateEvery": "0s"}


def assert_nothing_failed(trial: Trial) -> None:
    assert trial.ledger.failed == 0, trial.ledger.report()


def assert_enough_went_on(trial: Trial, *, rotations: int, tokens: int) -> None:
    """A trial in which little happened proves little. Far below what a machine does that has nothing else to do."""
    counts = trial.ledger.counts
    report = trial.ledger.report()
    assert len(trial.watch.activated) > rotations, report
    assert all(len(one.mounted.versions) > rotations for one in trial.generated), report
    assert sum(count for what, count in counts.items() if what.startswith("tokens for")) > tokens, report
    assert counts["verified elsewhere"] > tokens, report
    assert counts["let through later"] > tokens / 200, report


@pytest.mark.timeout(420)
async def test_rotations_under_full_load_fail_no_request(database: Outage, start_world: StartWorld) -> None:
    trial = Trial(start_world(replicas=REPLICAS, settings=SETTINGS, store_url=database.url, signing=published("4s")))
    trial.prepare()
    await trial.run(SECONDS)
    assert_nothing_failed(trial)
    assert_enough_went_on(trial, rotations=6, tokens=1500)


@pytest.mark.timeout(600)
async def test_an_operator_killed_at_any_instant_fails_no_request(start_world: StartWorld) -> None:
    settings = {**SETTINGS, "KEYTURN_OPERATOR_LEADER_ELECTION": "false"}
    trial = Trial(start_world(replicas=REPLICAS, settings=settings, signing=published("2s")))
    trial.prepare()
    await trial.run(KILLING_SECONDS, kill=True, least_kills=KILLS)
    assert_nothing_failed(trial)
    assert trial.killer.kills >= KILLS
    assert trial.killer.while_acting >= KILLS / 4, trial.ledger.report()
    assert_enough_went_on(trial, rotations=4, tokens=1500)
