"""What the operator counts of the objects that it knows."""

from typing import Any

from prometheus_client import CollectorRegistry

from keyturn import reasons
from keyturn.clients.registration import APPROVAL_LABEL, PENDING
from keyturn.keys.ring import KeyRing
from keyturn.records import Kind
from keyturn_operator.census import Census
from keyturn_operator.conditions import Verdict
from keyturn_operator.metrics import Metrics
from keyturn_operator.queue import Key

READY = Verdict("True", reasons.ACCEPTED, "")
SUSPENDED = Verdict("False", reasons.SUSPENDED, "")
EXPIRING = Verdict("True", reasons.KEY_ENDS_SOON, "", reasons.KEYS_EXPIRING)
NOT_EXPIRING = Verdict("False", reasons.NO_KEY_ENDS_SOON, "", reasons.KEYS_EXPIRING)
ONE, OTHER = (Key(Kind.CLIENT, "team", name) for name in ("one", "other"))


def labelled(**labels: str) -> dict[str, Any]:
    return {"metadata": {"labels": labels}}


class Counted:
    """A census and what a scrape shows of it."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.census = Census(self.metrics)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"keyturn_operator_{name}", labels)

    def clients(self, ready: str, reason: str) -> float | None:
        return self.value("objects", kind="ClientCredential", ready=ready, reason=reason)


def test_objects_are_counted_by_what_they_came_to_last() -> None:
    counted = Counted()
    for _ in range(2):
        counted.census.note(ONE, labelled(), [READY])
    counted.census.note(OTHER, labelled(), [READY])
    assert counted.clients("True", "Accepted") == 2
    counted.census.note(OTHER, labelled(), [SUSPENDED])
    assert (counted.clients("True", "Accepted"), counted.clients("False", "Suspended")) == (1, 1)
    counted.census.gone(OTHER)
    counted.census.gone(OTHER)
    assert (counted.clients("True", "Accepted"), counted.clients("False", "Suspended")) == (1, 0)


def test_a_status_without_ready_keeps_what_was_said_of_it() -> None:
    counted = Counted()
    counted.census.note(ONE, labelled(), [EXPIRING])
    assert counted.value("clients_keys_expiring") == 0
    counted.census.note(ONE, labelled(), [READY])
    counted.census.note(ONE, labelled(), [EXPIRING])
    assert (counted.clients("True", "Accepted"), counted.value("clients_keys_expiring")) == (1, 1)


def test_clients_whose_keys_expire_are_counted_until_they_do_not() -> None:
    counted = Counted()
    counted.census.note(ONE, labelled(), [READY, EXPIRING])
    assert counted.value("clients_keys_expiring") == 1
    counted.census.note(ONE, labelled(), [READY, NOT_EXPIRING])
    assert counted.value("clients_keys_expiring") == 0


def test_registrations_wait_until_they_are_approved_or_gone() -> None:
    counted = Counted()
    waiting = labelled(**{APPROVAL_LABEL: PENDING})
    for key in (ONE, OTHER):
        counted.census.note(key, waiting, [READY])
    assert counted.value("registrations_pending") == 2
    counted.census.note(ONE, labelled(), [READY])
    counted.census.gone(OTHER)
    assert counted.value("registrations_pending") == 0


def test_without_keys_nothing_is_said_of_their_age() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.show_keys(KeyRing(), None)
    shown = metrics.registry.get_sample_value
    assert shown("keyturn_operator_signing_keys", {"phase": "Active"}) == 0
    assert shown("keyturn_operator_signing_key_activated_timestamp_seconds") == 0
    assert shown("keyturn_operator_signing_key_next_rotation_timestamp_seconds") == 0
