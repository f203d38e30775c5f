import base64
import dataclasses
from typing import Any

import pytest

from keyturn.clients.state import ClientState
from keyturn.records import Kind
from keyturn_operator.clients import ClientReconciler
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import Forbidden, KubeUnavailable
from keyturn_operator.queue import Done, Key
from keyturn_operator.references import SecretReferences
from keyturn_operator.settings import PAUSED_ANNOTATION
from tests.manifests import public_jwk
from tests.unit.operator.fakes import NAMESPACE, NOW, Stage, key

A = key(Kind.CLIENT, "a")


def spec(**changes: Any) -> dict[str, Any]:
    return {"publicKeys": [{"jwk": public_jwk("k1")}], "permissions": ["orders:read", "orders:write"], **changes}


class Clients(Stage):
    """A stage with the reconciler of clients."""

    reconciler: ClientReconciler
    references: SecretReferences

    async def apply(self, name: str, wanted: dict[str, Any], **metadata: Any) -> Done:
        obj = self.kube.put(Kind.CLIENT, name, wanted, **metadata)
        return await self.reconcile(name, obj)

    async def reconcile(self, name: str, obj: Object | None = None) -> Done:
        one = obj or next(o for p, o in self.kube.objects.items() if p.endswith(f"clientcredentials/{name}"))
        return await self.reconciler.reconcile(key(Kind.CLIENT, name), one)

    async def state(self, name: str = "a") -> ClientState | None:
        row = await self.store.get(Kind.CLIENT, f"uid-{name}")
        return None if row is None else ClientState.from_body(row.record.body)


@pytest.fixture
async def stage() -> Clients:
    made = await Clients.make()
    assert isinstance(made, Clients)
    made.references = SecretReferences()
    made.reconciler = ClientReconciler(made.context, made.references, SecretReferences())
    return made


async def test_a_client_becomes_a_row_and_ready(stage: Clients) -> None:
    await stage.apply("a", spec())
    state = await stage.state()
    assert state is not None
    assert (state.client_id, state.permissions) == ("shop.a", ("orders:read", "orders:write"))
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("True", "Accepted")
    status = next(iter(stage.kube.objects.values()))["status"]
    assert (status["clientId"], status["permissions"], status["observedGeneration"]) == ("shop.a", 2, 1)
    assert [one["kid"] for one in status["keys"]] == ["k1"]


async def test_a_second_reconcile_writes_nothing(stage: Clients) -> None:
    await stage.apply("a", spec())
    before = len(stage.kube.writes())
    row = await stage.store.get(Kind.CLIENT, "uid-a")
    await stage.reconcile("a")
    assert len(stage.kube.writes()) == before
    assert await stage.store.get(Kind.CLIENT, "uid-a") == row


async def test_without_a_replica_nothing_is_ready(stage: Clients) -> None:
    await stage.store.forget_replica("api-0")
    await stage.apply("a", spec())
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("Unknown", "NoReplica")


async def test_a_replica_that_is_behind_holds_ready_back(stage: Clients) -> None:
    await stage.replica(applied=0)
    done = await stage.apply("a", spec())
    assert done.again is None or done.again > 0
    await stage.reconcile("a")
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("Unknown", "Propagating")
    await stage.replica()
    await stage.reconcile("a")
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("True", "Accepted")


async def test_an_edit_with_a_mistake_takes_away_and_adds_nothing(stage: Clients) -> None:
    await stage.apply("a", spec())
    await stage.apply("a", spec(permissions=["orders:read", "admin", "no good"]))
    state = await stage.state()
    assert state is not None
    assert state.permissions == ("orders:read",)
    status, reason, message = stage.ready(Kind.CLIENT, "a")
    assert (status, reason) == ("False", "InvalidSpec")
    assert "spec.permissions[2]" in message


async def test_a_client_that_holds_more_than_a_token_can_say_is_told_so_until_it_fits(stage: Clients) -> None:
    def told() -> Any:
        conditions = next(iter(stage.kube.objects.values()))["status"]["conditions"]
        return next(((one["status"], one["reason"]) for one in conditions if one["type"] == "TokenTooLong"), None)

    await stage.apply("a", spec())
    assert told() is None
    await stage.apply("a", spec(permissions=[f"orders:{number:020}" for number in range(300)]))
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("True", "Accepted")
    assert told() == ("True", "GrantTooLarge")
    await stage.apply("a", spec())
    assert told() == ("False", "GrantFits")


async def test_a_suspended_client_is_not_ready_and_says_so(stage: Clients) -> None:
    await stage.apply("a", spec(suspended=True))
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("False", "Suspended")
    state = await stage.state()
    assert state is not None
    assert state.suspended


async def test_an_expiry_is_looked_at_again_when_it_comes(stage: Clients) -> None:
    done = await stage.apply("a", spec(expiresAt="2027-01-15T08:01:00Z"))
    assert done.again == pytest.approx(60.05, abs=0.1)
    stage.now = NOW + 61
    await stage.replica()
    await stage.reconcile("a")
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("False", "Expired")


async def test_the_younger_contender_for_a_client_id_is_refused_and_the_owner_untouched(stage: Clients) -> None:
    await stage.apply("a", spec(clientId="one"), born=NOW - 100)
    row = await stage.store.get(Kind.CLIENT, "uid-a")
    await stage.apply("b", spec(clientId="one"), born=NOW - 50)
    assert stage.ready(Kind.CLIENT, "b")[1] == "ClientIdTaken"
    assert "shop/a" in stage.ready(Kind.CLIENT, "b")[2]
    assert await stage.store.get(Kind.CLIENT, "uid-a") == row
    assert await stage.state("b") is None


async def test_the_older_contender_displaces_the_younger_which_is_queued(stage: Clients) -> None:
    await stage.apply("b", spec(clientId="one"), born=NOW - 50)
    stage.queued.clear()
    await stage.apply("a", spec(clientId="one"), born=NOW - 100)
    assert stage.ready(Kind.CLIENT, "a")[0] == "True"
    assert key(Kind.CLIENT, "b") in stage.queued
    await stage.reconcile("b")
    assert stage.ready(Kind.CLIENT, "b")[1] == "ClientIdTaken"


async def test_a_released_client_id_goes_to_who_waited_for_it(stage: Clients) -> None:
    await stage.apply("a", spec(clientId="one"), born=NOW - 100)
    await stage.apply("b", spec(clientId="one"), born=NOW - 50)
    stage.queued.clear()
    stage.kube.delete(Kind.CLIENT, "a")
    await stage.reconciler.gone(A, {"uid-a"})
    assert stage.queued == [key(Kind.CLIENT, "b")]
    await stage.reconcile("b")
    assert stage.ready(Kind.CLIENT, "b")[0] == "True"


async def test_a_deletion_leaves_one_event_and_no_row(stage: Clients) -> None:
    await stage.apply("a", spec())
    await stage.reconciler.gone(A, {"uid-a"})
    assert await stage.state() is None
    assert [one["reason"] for one in stage.kube.events] == ["Accepted", "Deleted"]


async def test_a_deletion_does_not_touch_a_namesake_s_row(stage: Clients) -> None:
    await stage.apply("a", spec(), uid="uid-new")
    await stage.reconciler.gone(Key(Kind.CLIENT, NAMESPACE, "a"), {"uid-a"})
    assert await stage.store.get(Kind.CLIENT, "uid-new") is not None


async def test_an_object_made_anew_without_a_usable_client_id_loses_its_predecessor_s_row(stage: Clients) -> None:
    await stage.apply("a", spec())
    await stage.apply("a", spec(clientId="not a client id"), uid="uid-new")
    assert stage.ready(Kind.CLIENT, "a")[1] == "InvalidClientId"
    assert await stage.store.live() == []


def basic(**changes: Any) -> dict[str, Any]:
    reference = {"secretName": "s", "generate": False}
    return {"authMethod": "client_secret_basic", "clientSecret": reference, "permissions": ["p"], **changes}


def encoded(text: str) -> dict[str, str]:
    return {"client_secret": base64.b64encode(text.encode()).decode()}


async def test_a_client_waits_for_its_secret_and_takes_it_when_it_comes(stage: Clients) -> None:
    await stage.apply("a", basic())
    assert stage.ready(Kind.CLIENT, "a")[1] == "SecretNotFound"
    assert stage.references.of(NAMESPACE, "s") == {A}
    stage.kube.secret("s", encoded("correct horse"))
    await stage.reconcile("a")
    assert stage.ready(Kind.CLIENT, "a")[0] == "True"
    state = await stage.state()
    assert state is not None
    assert len(state.secrets) == 1
    assert "correct horse" not in str(state.to_body())


async def test_a_secret_that_has_not_changed_is_not_hashed_again(
    stage: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.kube.secret("s", encoded("correct horse"))
    await stage.apply("a", basic())

    def never(*_: object) -> str:
        raise AssertionError("hashed again")

    monkeypatch.setattr("keyturn.clients.secret.hash_secret", never)
    monkeypatch.setattr("keyturn.clients.secret.verify", never)
    await stage.reconcile("a")
    assert stage.ready(Kind.CLIENT, "a")[0] == "True"


async def test_a_secret_that_is_taken_away_closes_the_client(stage: Clients) -> None:
    stage.kube.secret("s", encoded("correct horse"))
    await stage.apply("a", basic())
    stage.kube.secret("s", encoded("correct horse"), deletionTimestamp="2027-01-01T00:00:00Z")
    await stage.reconcile("a")
    state = await stage.state()
    assert state is not None
    assert state.secrets == ()
    assert stage.ready(Kind.CLIENT, "a")[1] == "SecretNotFound"


PAUSED = {"annotations": {PAUSED_ANNOTATION: "true"}}


async def test_while_paused_an_edit_adds_nothing(stage: Clients) -> None:
    await stage.apply("a", spec())
    before = await stage.state()
    await stage.apply("a", spec(permissions=["orders:read", "orders:write", "admin"]), **PAUSED)
    assert await stage.state() == before
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("False", "Paused")


async def test_while_paused_a_restriction_takes_effect_even_so(stage: Clients) -> None:
    await stage.apply("a", spec())
    await stage.apply("a", spec(permissions=["orders:write", "admin"], suspended=True), **PAUSED)
    state = await stage.state()
    assert state is not None
    assert (state.permissions, state.suspended) == (("orders:write",), True)


async def test_a_paused_object_whose_effect_is_as_asked_stays_ready(stage: Clients) -> None:
    await stage.apply("a", spec())
    await stage.apply("a", spec(), **PAUSED)
    assert stage.ready(Kind.CLIENT, "a")[0] == "True"


async def test_a_new_object_that_is_paused_grants_nothing(stage: Clients) -> None:
    await stage.apply("a", spec(), **PAUSED)
    state = await stage.state()
    assert state is not None
    assert (state.permissions, state.keys) == ((), ())


async def test_while_paused_another_value_of_the_secret_waits(stage: Clients) -> None:
    stage.kube.secret("s", encoded("first"))
    await stage.apply("a", basic())
    before = await stage.state()
    stage.kube.secret("s", encoded("second"))
    await stage.apply("a", basic(), **PAUSED)
    assert await stage.state() == before


async def test_a_row_changed_behind_the_operator_s_back_is_put_right_with_an_event(stage: Clients) -> None:
    await stage.apply("a", spec())
    row = await stage.store.get(Kind.CLIENT, "uid-a")
    assert row is not None
    widened = {**row.record.body, "permissions": ["everything"], "suspended": True}
    await stage.store.put(dataclasses.replace(row.record, body=widened), epoch=1)
    await stage.reconcile("a")
    state = await stage.state()
    assert state is not None
    assert (state.permissions, state.suspended) == (("orders:read", "orders:write"), False)
    event = stage.kube.events[-1]
    assert event["reason"] == "DriftRepaired"
    assert "permissions, suspended" in event["message"]
    assert "everything" not in event["message"]
    assert (
        stage.metrics.registry.get_sample_value("keyturn_operator_drift_repaired_total", {"kind": "ClientCredential"})
        == 1
    )


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(Forbidden("GET", 403), id="a right is missing"),
        pytest.param(KubeUnavailable("GET"), id="the API server does not answer"),
    ],
)
async def test_a_suspension_does_not_wait_for_a_secret_that_cannot_be_read(stage: Clients, failure: Exception) -> None:
    stage.kube.secret("s", encoded("correct horse"))
    await stage.apply("a", basic())
    before = await stage.state()
    assert before is not None
    stage.kube.failures[("get", f"{collection('v1', 'secrets', NAMESPACE)}/s")] = failure
    with pytest.raises(type(failure)):
        await stage.apply("a", basic(suspended=True))
    after = await stage.state()
    assert after == dataclasses.replace(before, suspended=True)


async def test_the_names_under_which_the_api_reads_users_rights_and_ids_are_reserved() -> None:
    made = await Clients.make(permissions_key="rights", user_id_key="email")
    assert isinstance(made, Clients)
    made.reconciler = ClientReconciler(made.context, SecretReferences(), SecretReferences())
    for name in ("rights", "email"):
        await made.apply("a", spec(allowedCustomClaims=[name]))
        assert made.ready(Kind.CLIENT, "a")[:2] == ("False", "ReservedClaim")
