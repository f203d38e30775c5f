"""Probes, settings, the wait for the CRDs, the replicas' watch and the worker around the reconcilers."""

from typing import Any

import pytest
from pydantic import ValidationError

from keyturn.records import Kind, Replica
from keyturn.store.interface import Fenced, StoreUnavailable
from keyturn_operator import crds
from keyturn_operator.context import path_of
from keyturn_operator.health import Health
from keyturn_operator.kube.client import Object
from keyturn_operator.kube.errors import Forbidden, KubeError, KubeUnavailable, refused
from keyturn_operator.queue import Done, Key
from keyturn_operator.reconcile import Worker
from keyturn_operator.replicas import Wait
from keyturn_operator.settings import OperatorSettings
from keyturn_operator.watching import kopf_settings, registry
from tests.unit.operator.fakes import FakeKube, Stage, key, settings

A, B = key(Kind.CLIENT, "a"), key(Kind.CLIENT, "b")


def health(**changes: Any) -> Health:
    given: dict[str, Any] = {"sweep_limit": 600.0, "starting": None, "last_tick": 1000.0, **changes}
    return Health(**given)


@pytest.mark.parametrize(
    ("state", "live", "ready"),
    [
        pytest.param(health(), True, True, id="a healthy standby"),
        pytest.param(health(starting="no CRDs"), True, False, id="still starting"),
        pytest.param(health(last_tick=990.0), False, False, id="an event loop that hangs"),
        pytest.param(health(leading_since=500.0), True, True, id="a leader whose first sweep may still come"),
        pytest.param(health(leading_since=1.0), False, False, id="a leader that never swept"),
        pytest.param(health(leading_since=1.0, last_sweep=900.0), True, True, id="a leader that sweeps"),
        pytest.param(
            health(leading_since=1.0, last_sweep=399.0), False, False, id="a leader that has stopped sweeping"
        ),
    ],
)
def test_probes_tell_a_process_that_works_from_one_that_does_not(state: Health, live: bool, ready: bool) -> None:
    assert (state.live(1000.0) is None, state.ready(1000.0) is None) == (live, ready)


def test_namespaces_are_a_list_with_commas() -> None:
    assert settings(namespaces=" shop, , billing,shop").namespaces == ("shop", "billing")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"namespaces": ""}, id="no namespace"),
        pytest.param({"renew_deadline": 15.0}, id="a deadline as long as the Lease"),
        pytest.param({"retry_period": 10.0}, id="a period as long as the deadline"),
        pytest.param({"token_lifetime": 90_000}, id="a default above the cap"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**changes)


def test_settings_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_STORE_URL", "postgresql://keyturn:secret@db/keyturn")
    monkeypatch.setenv("KEYTURN_ISSUER", "https://tokens.example/")
    monkeypatch.setenv("KEYTURN_NAMESPACES", "shop")
    monkeypatch.setenv("KEYTURN_OPERATOR_PROBE_PORT", "9000")
    monkeypatch.setenv("KEYTURN_LOG_LEVEL", "debug")
    read = OperatorSettings()
    assert (read.namespaces, read.home, read.probe_port, read.log_level) == (("shop",), "shop", 9000, "DEBUG")
    assert "secret" not in repr(read)


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in OperatorSettings.model_fields.items() if not field.description] == []


def document(**dropped: str) -> dict[str, Any]:
    schemas: dict[str, Any] = {
        f"dev.keyturn.v1alpha1.{kind}": {
            "properties": {"status": {"properties": {name: {} for name in fields if name != dropped.get(kind.name)}}}
        }
        for kind, fields in crds.WRITTEN.items()
        if dropped.get(kind.name) != "all"
    }
    return {"components": {"schemas": schemas}}


@pytest.mark.parametrize(
    ("served", "said"),
    [
        pytest.param(document(), None, id="all is there"),
        pytest.param(None, "does not serve keyturn.dev/v1alpha1", id="no such group"),
        pytest.param(document(SIGNING_KEY="all"), "does not serve signingkeys", id="a kind is missing"),
        pytest.param(document(CLIENT="lastTokenIssuedAt"), "has no lastTokenIssuedAt", id="a field is missing"),
    ],
)
def test_crds_without_what_is_written_are_named(served: dict[str, Any] | None, said: str | None) -> None:
    problem = crds.missing(served)
    assert problem is None if said is None else problem is not None and said in problem


async def test_the_wait_for_the_crds_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crds, "RETRY", 0.001)
    answers: list[Any] = [KubeUnavailable("down"), Forbidden("GET", 403), KubeError("GET", 400), None, document()]
    noted: list[str] = []

    class Kube(FakeKube):
        async def get(self, path: str) -> Object | None:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            assert answer is None or isinstance(answer, dict)
            return answer

    await crds.wait_until_served(Kube(), noted.append)
    assert len(noted) == 4
    assert answers == []


def test_kopf_keeps_no_state_on_any_object() -> None:
    handlers = registry(lambda _key, _uid, *, listed: None)
    assert not list(handlers._changing.get_all_handlers())
    assert not list(handlers._spawning.get_all_handlers())
    assert not list(handlers._indexing.get_all_handlers())
    assert len(list(handlers._watching.get_all_handlers())) == 3


def test_no_foreign_operator_can_pause_kopf() -> None:
    used = kopf_settings()
    assert used.peering.standalone
    assert used.scanning.disabled
    assert isinstance(used.watching.server_timeout, int)


@pytest.mark.parametrize(
    ("answer", "terminating"),
    [
        pytest.param(
            {"details": {"causes": [{"reason": "NamespaceTerminating"}]}}, True, id="the namespace terminates"
        ),
        pytest.param({"reason": "Forbidden"}, False, id="a right is missing"),
        pytest.param(None, False, id="no Status object"),
        pytest.param({"details": {"causes": "x"}}, False, id="a damaged one"),
    ],
)
def test_a_terminating_namespace_is_told_from_a_missing_right(answer: object, terminating: bool) -> None:
    error = refused("POST /x", 403, answer)
    assert isinstance(error, Forbidden)
    assert error.terminating is terminating


def test_an_error_does_not_echo_what_was_sent() -> None:
    error = refused("POST /x", 422, {"reason": "Invalid", "message": "spec.secret: Invalid value: hunter2"})
    assert "hunter2" not in str(error)


async def test_what_waits_is_queued_when_every_replica_has_come_so_far() -> None:
    stage = await Stage.make()
    stage.replicas.wait_for(A, Wait(5))
    stage.replicas.wait_for(B, Wait(7))
    stage.replicas.look([Replica("one", 6, (), 0.0), Replica("two", 5, (), 0.0)])
    assert stage.queued == [A]
    stage.replicas.look([Replica("one", 7, (), 0.0), Replica("two", 7, (), 0.0)])
    assert stage.queued == [A, B]


async def test_everything_is_looked_at_again_when_the_last_replica_goes() -> None:
    stage = await Stage.make()
    stage.replicas._everything = lambda: [A, B]
    stage.replicas.look([Replica("one", 6, (), 0.0)])
    assert stage.queued == []
    stage.replicas.look([])
    assert stage.queued == [A, B]
    stage.queued.clear()
    stage.replicas.look([])
    assert stage.queued == [], "once is enough"


class Recorder:
    """A reconciler that does as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.gone_uids: list[set[str]] = []
        self.reconciled = 0

    async def reconcile(self, one: Key, obj: Object) -> Done:
        self.reconciled += 1
        if self.error is not None:
            raise self.error
        return Done()

    async def gone(self, one: Key, uids: set[str]) -> None:
        self.gone_uids.append(uids)


async def worked(stage: Stage, recorder: Recorder) -> Done:
    return await Worker(stage.context, {Kind.CLIENT: recorder})(A)


async def test_an_object_that_is_being_deleted_counts_as_deleted() -> None:
    stage, recorder = await Stage.make(), Recorder()
    stage.kube.put(Kind.CLIENT, "a", {}, deletionTimestamp="2027-01-01T00:00:00Z", finalizers=["foreign/one"])
    await worked(stage, recorder)
    assert recorder.gone_uids == [{"uid-a"}]
    assert recorder.reconciled == 0


async def test_a_deletion_names_the_uid_that_the_event_told() -> None:
    stage, recorder = await Stage.make(), Recorder()
    worker = Worker(stage.context, {Kind.CLIENT: recorder})
    worker.deleted(A, "uid-from-event")
    await worker(A)
    await worker(A)
    assert recorder.gone_uids == [{"uid-from-event"}, set()]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        pytest.param(StoreUnavailable("down"), "Unknown", "StoreUnavailable", id="the store is down"),
        pytest.param(Forbidden("GET", 403), "False", "ReconcileFailed", id="a right is missing"),
        pytest.param(ZeroDivisionError("hunter2"), "Unknown", "ReconcileFailed", id="a fault of ours"),
    ],
)
async def test_a_failure_is_retried_and_said_in_the_status(error: Exception, status: str, reason: str) -> None:
    stage = await Stage.make()
    stage.kube.put(Kind.CLIENT, "a", {})
    assert (await worked(stage, Recorder(error))).failed
    assert stage.ready(Kind.CLIENT, "a")[:2] == (status, reason)
    assert "hunter2" not in stage.ready(Kind.CLIENT, "a")[2]


async def test_an_outage_leaves_the_status_of_what_has_not_changed() -> None:
    stage = await Stage.make()
    obj = stage.kube.put(Kind.CLIENT, "a", {})
    obj["status"] = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}
    assert (await worked(stage, Recorder(StoreUnavailable("down")))).failed
    assert stage.kube.writes() == []


async def test_an_api_server_that_does_not_answer_is_tried_again() -> None:
    stage = await Stage.make()
    stage.kube.failures[("get", path_of(A))] = KubeUnavailable("GET: down")
    assert (await worked(stage, Recorder())).failed


async def test_losing_the_epoch_ends_the_process() -> None:
    stage = await Stage.make()
    stage.kube.put(Kind.CLIENT, "a", {})
    with pytest.raises(Fenced):
        await worked(stage, Recorder(Fenced("another")))
