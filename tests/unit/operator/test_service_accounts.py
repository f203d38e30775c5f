"""Clients that stand for a ServiceAccount: its uid, its coming and going, and that no two clients ever have one."""

import dataclasses
from typing import Any

import pytest

from keyturn.clients.state import ClientState, WorkloadAccount
from keyturn.records import Kind
from keyturn_operator.clients import ClientReconciler
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import KubeUnavailable
from keyturn_operator.queue import Done
from keyturn_operator.references import SecretReferences
from keyturn_operator.service_accounts import AccountClaims
from keyturn_operator.settings import PAUSED_ANNOTATION
from tests.unit.operator.fakes import NAMESPACE, NOW, Stage, key

ACCOUNTS = collection("v1", "serviceaccounts", NAMESPACE)
A, B = key(Kind.CLIENT, "a"), key(Kind.CLIENT, "b")


def spec(**changes: Any) -> dict[str, Any]:
    return {"serviceAccount": {"name": "billing"}, "permissions": ["orders:read"], **changes}


class Clients(Stage):
    """A stage with a reconciler of clients."""

    reconciler: ClientReconciler
    accounts: SecretReferences

    def start(self) -> None:
        """An operator that has just started on what is in the store."""
        self.accounts = SecretReferences()
        self.reconciler = ClientReconciler(self.context, SecretReferences(), self.accounts)

    def account(self, name: str = "billing", uid: str = "uid-1", **metadata: Any) -> None:
        given = {"name": name, "namespace": NAMESPACE, "uid": uid, "resourceVersion": "1", **metadata}
        self.kube.objects[f"{ACCOUNTS}/{name}"] = {"metadata": given}

    async def apply(self, name: str, wanted: dict[str, Any], **metadata: Any) -> Done:
        obj = self.kube.put(Kind.CLIENT, name, wanted, **metadata)
        return await self.reconcile(name, obj)

    async def reconcile(self, name: str, obj: Object | None = None) -> Done:
        one = obj or next(o for p, o in self.kube.objects.items() if p.endswith(f"clientcredentials/{name}"))
        return await self.reconciler.reconcile(key(Kind.CLIENT, name), one)

    async def held(self, name: str) -> WorkloadAccount | None:
        """The account in the client's row."""
        row = await self.store.get(Kind.CLIENT, f"uid-{name}")
        return None if row is None else ClientState.from_body(row.record.body).service_account

    async def reconcile_queued(self) -> None:
        """Works the queue off, at most 20 objects, and holds after each that no two rows have an account."""
        for _ in range(20):
            if not self.queued:
                return
            await self.reconcile(self.queued.pop(0).name)
            rows = await self.store.live(Kind.CLIENT)
            assert sum(bool(row.record.body["serviceAccount"]) for row in rows) <= 1
        raise AssertionError("the queue does not end")


@pytest.fixture
async def stage() -> Clients:
    made = await Clients.make()
    assert isinstance(made, Clients)
    made.start()
    return made


async def test_the_account_is_in_force_with_its_uid(stage: Clients) -> None:
    stage.account()
    await stage.apply("a", spec())
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("True", "Accepted")
    assert await stage.held("a") == WorkloadAccount(NAMESPACE, "billing", "uid-1")
    assert stage.accounts.of(NAMESPACE, "billing") == {A}


async def test_a_client_waits_for_its_account_and_takes_it_when_it_comes(stage: Clients) -> None:
    await stage.apply("a", spec())
    status, reason, message = stage.ready(Kind.CLIENT, "a")
    assert (status, reason) == ("False", "ServiceAccountNotFound")
    assert "billing" in message
    assert await stage.held("a") is None
    stage.account()
    await stage.reconcile("a")
    assert stage.ready(Kind.CLIENT, "a")[0] == "True"


async def test_an_account_that_is_made_anew_is_another(stage: Clients) -> None:
    stage.account()
    await stage.apply("a", spec())
    stage.account(uid="uid-2")
    await stage.reconcile("a")
    held = await stage.held("a")
    assert held is not None
    assert held.uid == "uid-2"


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(lambda stage: stage.kube.objects.pop(f"{ACCOUNTS}/billing"), id="deleted"),
        pytest.param(lambda stage: stage.account(deletionTimestamp="2027-01-01T00:00:00Z"), id="being deleted"),
    ],
)
async def test_an_account_that_is_gone_closes_the_client(stage: Clients, gone: Any) -> None:
    stage.account()
    await stage.apply("a", spec())
    gone(stage)
    await stage.reconcile("a")
    assert await stage.held("a") is None
    assert stage.ready(Kind.CLIENT, "a")[1] == "ServiceAccountNotFound"


async def test_of_two_that_name_one_account_the_senior_keeps_it(stage: Clients) -> None:
    stage.account()
    await stage.apply("a", spec(), born=NOW - 100)
    await stage.apply("b", spec(), born=NOW - 50)
    status, reason, message = stage.ready(Kind.CLIENT, "b")
    assert (status, reason) == ("False", "ServiceAccountTaken")
    assert "ClientCredential a" in message
    assert await stage.held("b") is None
    assert stage.ready(Kind.CLIENT, "a")[0] == "True"


async def test_a_senior_that_comes_later_gets_the_account_once_the_junior_has_let_go(stage: Clients) -> None:
    stage.account()
    await stage.apply("b", spec(), born=NOW - 50)
    await stage.apply("a", spec(), born=NOW - 100)
    assert await stage.held("a") is None
    await stage.reconcile_queued()
    assert (await stage.held("a"), await stage.held("b")) == (WorkloadAccount(NAMESPACE, "billing", "uid-1"), None)
    assert stage.ready(Kind.CLIENT, "a")[0] == "True"
    assert stage.ready(Kind.CLIENT, "b")[1] == "ServiceAccountTaken"


async def test_after_a_restart_the_junior_does_not_slip_in_before_the_senior_was_looked_at(stage: Clients) -> None:
    stage.account()
    await stage.apply("a", spec(), born=NOW - 100)
    await stage.apply("b", spec(), born=NOW - 50)
    stage.start()
    await stage.reconcile("b")
    assert await stage.held("b") is None
    await stage.reconcile_queued()
    assert await stage.held("a") is not None


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param({"serviceAccount": {"name": "other"}}, id="names another account"),
        pytest.param({"serviceAccount": None}, id="names none any more"),
    ],
)
async def test_an_account_that_the_senior_leaves_goes_to_who_waited_for_it(
    stage: Clients, leave: dict[str, Any]
) -> None:
    stage.account()
    await stage.apply("a", spec(), born=NOW - 100)
    await stage.apply("b", spec(), born=NOW - 50)
    stage.queued.clear()
    await stage.apply("a", spec(**leave))
    await stage.reconcile_queued()
    assert await stage.held("b") is not None


async def test_an_account_whose_senior_is_deleted_goes_to_who_waited_for_it(stage: Clients) -> None:
    stage.account()
    await stage.apply("a", spec(), born=NOW - 100)
    await stage.apply("b", spec(), born=NOW - 50)
    stage.queued.clear()
    stage.kube.delete(Kind.CLIENT, "a")
    await stage.reconciler.gone(A, {"uid-a"})
    assert stage.accounts.of(NAMESPACE, "billing") == {B}
    await stage.reconcile_queued()
    assert await stage.held("b") is not None


async def test_who_has_no_client_id_keeps_nobody_from_the_account(stage: Clients) -> None:
    stage.account()
    await stage.apply("owner", spec(serviceAccount=None, clientId="one"), born=NOW - 300)
    await stage.apply("b", spec(), born=NOW - 50)
    await stage.apply("a", spec(clientId="one"), born=NOW - 100)
    assert stage.ready(Kind.CLIENT, "a")[1] == "ClientIdTaken"
    for _ in range(3):
        await stage.reconcile_queued()
        await stage.reconcile("a")
    assert await stage.held("b") is not None
    assert stage.ready(Kind.CLIENT, "b")[0] == "True"
    stage.kube.delete(Kind.CLIENT, "owner")
    await stage.reconciler.gone(key(Kind.CLIENT, "owner"), {"uid-owner"})
    await stage.reconcile_queued()
    assert (await stage.held("a") is not None, await stage.held("b")) == (True, None)


async def test_a_suspension_does_not_wait_for_an_account_that_cannot_be_read(stage: Clients) -> None:
    stage.account()
    await stage.apply("a", spec())
    stage.kube.failures[("get", f"{ACCOUNTS}/billing")] = KubeUnavailable("GET")
    with pytest.raises(KubeUnavailable):
        await stage.apply("a", spec(suspended=True))
    row = await stage.store.get(Kind.CLIENT, "uid-a")
    assert row is not None
    state = ClientState.from_body(row.record.body)
    assert (state.suspended, state.service_account) == (True, WorkloadAccount(NAMESPACE, "billing", "uid-1"))


async def test_an_account_that_cannot_be_read_is_not_granted_to_who_did_not_have_it(stage: Clients) -> None:
    stage.account()
    stage.kube.failures[("get", f"{ACCOUNTS}/billing")] = KubeUnavailable("GET")
    with pytest.raises(KubeUnavailable):
        await stage.apply("a", spec())
    assert await stage.held("a") is None


PAUSED = {"annotations": {PAUSED_ANNOTATION: "true"}}


async def test_while_paused_the_account_in_force_stays_and_another_waits(stage: Clients) -> None:
    stage.account()
    stage.account("other", uid="uid-9")
    await stage.apply("a", spec())
    await stage.apply("a", spec(permissions=["orders:read", "admin"]), **PAUSED)
    assert await stage.held("a") == WorkloadAccount(NAMESPACE, "billing", "uid-1")
    assert stage.ready(Kind.CLIENT, "a")[1] == "Paused"
    await stage.apply("a", spec(serviceAccount={"name": "other"}), **PAUSED)
    assert await stage.held("a") is None


async def test_rows_written_before_there_was_workload_identity_are_read(stage: Clients) -> None:
    stage.account()
    await stage.apply("old", spec(serviceAccount=None))
    row = await stage.store.get(Kind.CLIENT, "uid-old")
    assert row is not None
    older = {name: value for name, value in row.record.body.items() if name != "serviceAccount"}
    await stage.store.put(dataclasses.replace(row.record, body=older), epoch=1)
    stage.start()
    await stage.apply("a", spec())
    assert await stage.held("a") is not None


def test_a_claim_that_is_asked_for_again_changes_nothing() -> None:
    queued: list[object] = []
    claims = AccountClaims(lambda one, _: queued.append(one))
    for _ in range(2):
        assert claims.ask(A, "billing", 1.0) is None
        claims.written(A, "billing")
    assert queued == []


def test_of_two_of_one_age_the_first_by_name_has_the_account() -> None:
    claims = AccountClaims(lambda *_: None)
    assert claims.ask(B, "billing", 1.0) is None
    assert claims.ask(A, "billing", 1.0) is None
    assert claims.ask(B, "billing", 1.0) == A
