"""Generated credentials as the reconciler makes them: in which order, and what waits for what."""

import asyncio
import base64
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from keyturn.clients.rotation import MAX_PREVIOUS
from keyturn.clients.state import ClientState
from keyturn.jose.signing import load_pem
from keyturn.records import Kind
from keyturn.secrets import verify
from keyturn_operator.clients import ClientReconciler
from keyturn_operator.credential_secret import RECORD
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import Forbidden, KubeUnavailable, NamespaceTerminates
from keyturn_operator.queue import Done, Key
from keyturn_operator.references import SecretReferences
from keyturn_operator.settings import PAUSED_ANNOTATION, ROTATE_ANNOTATION
from keyturn_operator.written_secrets import WrittenSecrets
from tests.manifests import public_jwk
from tests.unit.operator.fakes import NAMESPACE, NOW, Stage, key

A = key(Kind.CLIENT, "a")
SECRETS = collection("v1", "secrets", NAMESPACE)
S = f"{SECRETS}/s"


def secret_spec(**members: Any) -> dict[str, Any]:
    return {
        "authMethod": "client_secret_basic",
        "clientSecret": {"secretName": "s", **members},
        "permissions": ["orders:read"],
    }


def key_spec(**members: Any) -> dict[str, Any]:
    return {"generateKey": {"secretName": "s", **members}, "permissions": ["orders:read"]}


class Clients(Stage):
    """A stage with the reconciler of clients, which can be restarted."""

    reconciler: ClientReconciler
    written: WrittenSecrets

    def restart(self) -> None:
        """Another process: it has nothing in memory."""
        references = SecretReferences()
        self.written = WrittenSecrets(references, self.context.enqueue)
        self.reconciler = ClientReconciler(self.context, references, SecretReferences(), written=self.written)

    async def apply(self, spec: dict[str, Any], name: str = "a", **metadata: Any) -> Done:
        self.kube.put(Kind.CLIENT, name, spec, **metadata)
        return await self.reconcile(name)

    async def reconcile(self, name: str = "a") -> Done:
        return await self.reconciler.reconcile(key(Kind.CLIENT, name), self.object(name))

    async def settle(self, name: str = "a") -> None:
        """Until nothing is to be done soon: what is announced is handed out, a key is made."""
        for _ in range(200):
            done = await self.reconcile(name)
            if self.making():
                await asyncio.sleep(0.02)
            elif done.again is None or done.again > 30:
                return
        raise AssertionError("it does not settle")

    def making(self) -> bool:
        return any(task.get_name().startswith("key for") for task in asyncio.all_tasks())

    def object(self, name: str = "a") -> Object:
        return next(one for path, one in self.kube.objects.items() if path.endswith(f"clientcredentials/{name}"))

    def annotate(self, **annotations: str | None) -> None:
        names = {"rotate": ROTATE_ANNOTATION, "paused": PAUSED_ANNOTATION}
        given = self.object()["metadata"].setdefault("annotations", {})
        for name, value in annotations.items():
            if value is None:
                given.pop(names[name], None)
            else:
                given[names[name]] = value

    async def state(self, name: str = "a") -> ClientState:
        row = await self.store.get(Kind.CLIENT, f"uid-{name}")
        assert row is not None
        return ClientState.from_body(row.record.body)

    def held(self, name: str = "s") -> dict[str, str]:
        data = self.kube.objects[f"{SECRETS}/{name}"]["data"]
        return {member: base64.b64decode(value).decode() for member, value in data.items()}

    def secret_writes(self) -> int:
        return len([call for call in self.kube.writes() if call[1].startswith(SECRETS)])

    async def accepts(self, value: str) -> bool:
        state = await self.state()
        return any(one.is_current(self.now) and verify(value.encode(), one.hash) for one in state.secrets)

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.kube.events]


@pytest.fixture
async def stage() -> Clients:
    made = await Clients.make()
    assert isinstance(made, Clients)
    made.restart()
    return made


async def test_a_secret_is_made_with_all_that_a_client_needs(stage: Clients) -> None:
    await stage.apply(secret_spec())
    await stage.settle()
    held = stage.held()
    assert held.keys() == {"client_secret", "client_id", "issuer", "token_endpoint"}
    assert (held["client_id"], held["issuer"]) == ("shop.a", "https://tokens.example")
    assert held["token_endpoint"] == "https://tokens.example/oauth/token"
    assert await stage.accepts(held["client_secret"])
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("True", "Accepted")
    record = json.loads(stage.kube.objects[S]["metadata"]["annotations"][RECORD])
    assert (record["serial"], record["created"]) == (1, True)


async def test_a_key_is_made_off_the_loop_and_the_client_waits_for_it_alone(stage: Clients) -> None:
    done = await stage.apply({**key_spec(), "suspended": True})
    assert done == Done()
    assert S not in stage.kube.objects
    assert (await stage.state()).suspended, "what restricts is in the row while the key is being made"
    await stage.apply(key_spec())
    assert stage.ready(Kind.CLIENT, "a")[:2] == ("Unknown", "Pending")
    await stage.settle()
    held = stage.held()
    private = load_pem(held["private_key.pem"].encode(), kid=held["key_id"], algorithm="RS256")
    (registered,) = (await stage.state()).keys
    assert (registered.kid, registered.source, registered.announced) == (private.kid, "generateKey", False)
    assert json.loads(held["private_key.jwk"])["kid"] == private.kid


async def test_nothing_is_handed_out_before_every_replica_accepts_it(stage: Clients) -> None:
    await stage.replica(applied=0)
    done = await stage.apply(secret_spec())
    assert S not in stage.kube.objects
    assert [one.announced for one in (await stage.state()).secrets] == [True]
    assert done.again is not None
    row = await stage.store.get(Kind.CLIENT, "uid-a")
    assert row is not None
    await stage.replica(applied=row.revision)
    await stage.reconcile()
    assert await stage.accepts(stage.held()["client_secret"])
    assert [one.announced for one in (await stage.state()).secrets] == [False]


async def test_a_replica_that_is_stuck_holds_a_rotation_up_for_a_while_only(stage: Clients) -> None:
    await stage.replica(applied=0)
    await stage.apply(secret_spec())
    for _ in range(20):
        await stage.reconcile()
    assert S in stage.kube.objects


async def test_a_restart_before_the_secret_is_written_hands_out_another_one(stage: Clients) -> None:
    await stage.replica(applied=0)
    await stage.apply(secret_spec())
    (lost,) = (await stage.state()).secrets
    stage.restart()
    await stage.replica()
    await stage.settle()
    assert await stage.accepts(stage.held()["client_secret"])
    state = await stage.state()
    assert [one.announced for one in state.secrets if one.id == lost.id] == [True]
    stage.now += 24 * 3600
    await stage.replica()
    await stage.reconcile()
    assert lost.id not in [one.id for one in (await stage.state()).secrets]


async def test_a_restart_after_it_goes_on_from_the_secret(stage: Clients) -> None:
    await stage.apply(secret_spec())
    await stage.settle()
    held, row = stage.held(), await stage.store.get(Kind.CLIENT, "uid-a")
    assert row is not None
    # As it was a moment before: announced, nothing made yet.
    before = dataclasses.replace(await stage.state(), generated=None)
    before = dataclasses.replace(
        before, secrets=tuple(dataclasses.replace(one, announced=True) for one in before.secrets)
    )
    await stage.store.put(dataclasses.replace(row.record, body=before.to_body()), epoch=1)
    stage.restart()
    await stage.settle()
    assert stage.held() == held
    assert await stage.accepts(held["client_secret"])
    assert [one.announced for one in (await stage.state()).secrets] == [False]


async def test_restarts_write_nothing(stage: Clients) -> None:
    await stage.apply(key_spec(rotateEvery="720h"))
    await stage.settle()
    writes, row = len(stage.kube.writes()), await stage.store.get(Kind.CLIENT, "uid-a")
    for _ in range(3):
        stage.restart()
        await stage.settle()
    assert len(stage.kube.writes()) == writes
    assert await stage.store.get(Kind.CLIENT, "uid-a") == row


async def test_the_annotation_rotates_once_and_the_predecessor_has_its_overlap(stage: Clients) -> None:
    await stage.apply(secret_spec(keepPrevious="1h"))
    await stage.settle()
    old = stage.held()["client_secret"]
    stage.annotate(rotate="1")
    await stage.settle()
    new = stage.held()["client_secret"]
    assert new != old
    assert (await stage.accepts(old), await stage.accepts(new)) == (True, True)
    await stage.settle()
    assert stage.held()["client_secret"] == new
    assert "Rotated" in stage.reasons()
    shown = {one.get("expiresAt") for one in stage.object()["status"]["secrets"]}
    assert shown == {None, "2027-01-15T09:00:00Z"}
    stage.now += 3600
    assert (await stage.accepts(old), await stage.accepts(new)) == (False, True)


async def test_the_schedule_has_the_object_looked_at_when_it_is_due(stage: Clients) -> None:
    await stage.apply(secret_spec(rotateEvery="100h"))
    await stage.settle()
    done = await stage.reconcile()
    assert done.again is not None
    assert 90 * 3600 <= done.again <= 100 * 3600 + 1
    old = stage.held()["client_secret"]
    stage.now += done.again
    await stage.replica()
    await stage.settle()
    assert stage.held()["client_secret"] != old


async def test_a_rotation_waits_while_too_many_replaced_ones_count_and_says_so_once(stage: Clients) -> None:
    await stage.apply(secret_spec(keepPrevious="1h"))
    await stage.settle()
    values = {stage.held()["client_secret"]}
    for turn in range(MAX_PREVIOUS + 2):
        stage.annotate(rotate=str(turn))
        for _ in range(6):
            await stage.reconcile()
        values.add(stage.held()["client_secret"])
    assert len(values) == MAX_PREVIOUS + 1
    assert all([await stage.accepts(value) for value in values])
    assert stage.reasons().count("RotationPending") == 1
    stage.now += 3600
    await stage.replica()
    await stage.settle()
    assert stage.held()["client_secret"] not in values


async def test_a_client_whose_id_is_anothers_gets_no_secret(stage: Clients) -> None:
    await stage.apply({**secret_spec(), "clientId": "one"}, born=NOW - 100)
    await stage.settle()
    other = {**secret_spec(), "clientId": "one", "clientSecret": {"secretName": "s2"}}
    await stage.apply(other, "b", born=NOW - 50)
    assert stage.ready(Kind.CLIENT, "b")[1] == "ClientIdTaken"
    assert f"{SECRETS}/s2" not in stage.kube.objects


async def test_in_a_namespace_that_goes_nothing_is_made_anew(stage: Clients) -> None:
    terminating = Forbidden("POST", 403, "Forbidden", ("NamespaceTerminating",))
    stage.kube.failures[("create", SECRETS)] = terminating
    with pytest.raises(NamespaceTerminates):
        await stage.apply(secret_spec())
    stage.kube.failures[("create", SECRETS)] = Forbidden("POST", 403, "Forbidden")
    with pytest.raises(Forbidden):
        await stage.apply(secret_spec())


async def test_whoever_was_first_with_the_secret_is_looked_at_again(stage: Clients) -> None:
    """Between reading and creating somebody else makes a Secret of this name."""
    create = stage.kube.create

    async def late(path: str, body: Object) -> Object:
        if path == SECRETS:
            stage.kube.secret("s", {"client_secret": base64.b64encode(b"theirs").decode()})
        return await create(path, body)

    stage.kube.create = late  # type: ignore[method-assign]
    done = await stage.apply(secret_spec())
    assert done.again is not None
    assert done.again < 1
    await stage.reconcile()
    assert stage.ready(Kind.CLIENT, "a")[1] == "SecretConflict"
    assert stage.held() == {"client_secret": "theirs"}
    assert not await stage.accepts("theirs")


async def test_a_secret_that_was_changed_meanwhile_is_read_again(stage: Clients) -> None:
    await stage.apply(secret_spec())
    await stage.settle()
    stage.annotate(rotate="1")
    get = stage.kube.get

    async def stale(path: str) -> Object | None:
        found = await get(path)
        if path == S and found is not None:
            found = {**found, "metadata": {**found["metadata"], "resourceVersion": "0"}}
        return found

    stage.kube.get = stale  # type: ignore[method-assign]
    before = stage.held()
    done = await stage.reconcile()
    assert done.again is not None
    assert stage.held() == before
    stage.kube.get = get  # type: ignore[method-assign]
    await stage.settle()
    assert stage.held() != before


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lambda kube: kube.objects.pop(S), id="the Secret is deleted"),
        pytest.param(lambda kube: kube.objects[S]["data"].pop("client_secret"), id="its member is taken out"),
        pytest.param(
            lambda kube: (kube.objects[S]["data"].clear(), kube.objects[S]["metadata"]["annotations"].clear()),
            id="it is emptied",
        ),
    ],
)
async def test_a_lost_secret_is_made_anew_and_told_of(stage: Clients, lose: Callable[[Any], object]) -> None:
    await stage.apply(secret_spec(keepPrevious="1h"))
    await stage.settle()
    old = stage.held()["client_secret"]
    lose(stage.kube)
    await stage.settle()
    new = stage.held()["client_secret"]
    assert new != old
    assert (await stage.accepts(old), await stage.accepts(new)) == (True, True)
    assert stage.reasons().count("SecretRecreated") == 1


async def test_a_paused_client_keeps_what_it_has_and_loses_what_is_cut_short(stage: Clients) -> None:
    await stage.apply(secret_spec(keepPrevious="1h"))
    await stage.settle()
    old = stage.held()["client_secret"]
    stage.annotate(rotate="1")
    await stage.settle()
    new = stage.held()["client_secret"]
    stage.annotate(rotate="2", paused="true")
    await stage.apply(secret_spec(keepPrevious="0s"))
    assert (await stage.accepts(old), await stage.accepts(new)) == (False, True)
    assert stage.held()["client_secret"] == new
    del stage.kube.objects[S]
    await stage.reconcile()
    assert S not in stage.kube.objects
    assert await stage.accepts(new)
    stage.annotate(paused=None)
    await stage.settle()
    assert stage.held()["client_secret"] != new


async def test_an_edit_with_a_mistake_elsewhere_goes_on_rotating_and_makes_nothing_new(stage: Clients) -> None:
    await stage.apply(secret_spec())
    await stage.settle()
    old = stage.held()["client_secret"]
    await stage.apply({**secret_spec(), "permissions": ["no good"]})
    stage.annotate(rotate="1")
    await stage.settle()
    assert stage.held()["client_secret"] != old
    moved = {**secret_spec(), "permissions": ["no good"], "clientSecret": {"secretName": "elsewhere"}}
    await stage.apply(moved)
    await stage.settle()
    assert f"{SECRETS}/elsewhere" not in stage.kube.objects


async def test_a_request_that_cannot_be_read_keeps_what_it_made(stage: Clients) -> None:
    await stage.apply(secret_spec())
    await stage.settle()
    value = stage.held()["client_secret"]
    stage.annotate(rotate="1")
    await stage.apply(secret_spec(rotateEvery="often"))
    await stage.settle()
    assert stage.ready(Kind.CLIENT, "a")[1] == "InvalidSpec"
    assert stage.held()["client_secret"] == value
    assert await stage.accepts(value)


async def test_a_secret_that_cannot_be_read_holds_up_no_restriction(stage: Clients) -> None:
    await stage.apply(secret_spec())
    await stage.settle()
    value = stage.held()["client_secret"]
    stage.kube.failures[("get", S)] = KubeUnavailable("GET")
    with pytest.raises(KubeUnavailable):
        await stage.apply({**secret_spec(), "suspended": True})
    assert (await stage.state()).suspended
    assert await stage.accepts(value)


async def test_a_client_without_a_generated_secret_any_more_leaves_the_secret(stage: Clients) -> None:
    stage.kube.secret("s", {"note": "bm90ZQ=="}, labels={"team": "a"})
    await stage.apply(secret_spec())
    await stage.settle()
    value = stage.held()["client_secret"]
    await stage.apply({**secret_spec(), "clientSecret": {"secretName": "other", "generate": False}})
    # The new Secret is not there yet: what was written stays until the edit has come into force.
    assert stage.held().keys() > {"note"}
    stage.kube.secret("other", {"client_secret": base64.b64encode(b"theirs").decode()})
    await stage.settle()
    assert stage.held() == {"note": "note"}
    assert stage.kube.objects[S]["metadata"]["labels"] == {"team": "a"}
    assert (await stage.accepts(value), await stage.accepts("theirs")) == (False, True)


async def test_what_was_written_is_taken_out_when_the_object_is_gone_whoever_notices(stage: Clients) -> None:
    stage.kube.secret("s", {"note": "bm90ZQ=="})
    await stage.apply(secret_spec())
    await stage.settle()
    stage.kube.delete(Kind.CLIENT, "a")
    stage.restart()
    stage.queued.clear()
    stage.written.listed(NAMESPACE, [stage.kube.objects[S]])
    assert stage.queued == [A]
    await stage.reconciler.gone(A, {"uid-a"})
    assert stage.held() == {"note": "note"}
    assert stage.written.of(A) == frozenset()


async def test_a_secret_that_we_made_is_left_to_its_owner_reference(stage: Clients) -> None:
    await stage.apply(secret_spec())
    await stage.settle()
    held, writes = stage.held(), stage.secret_writes()
    await stage.reconciler.gone(A, {"uid-a"})
    assert (stage.held(), stage.secret_writes()) == (held, writes)


async def test_an_object_made_anew_goes_on_with_what_was_retained_and_with_nothing_else(stage: Clients) -> None:
    for policy, kept in (("Retain", True), ("Delete", False)):
        stage.kube.objects.pop(S, None)
        await stage.apply({**secret_spec(), "deletionPolicy": policy}, uid=f"uid-{policy}-1")
        await stage.settle()
        value = stage.held()["client_secret"]
        await stage.reconciler.gone(A, {f"uid-{policy}-1"})
        stage.kube.delete(Kind.CLIENT, "a")
        stage.restart()
        await stage.apply({**secret_spec(), "deletionPolicy": policy}, uid=f"uid-{policy}-2")
        await stage.settle()
        assert (stage.held()["client_secret"] == value) == kept
        owners = stage.kube.objects[S]["metadata"].get("ownerReferences") or []
        assert [one["uid"] for one in owners] == ([] if kept else [f"uid-{policy}-2"])
        await stage.reconciler.gone(A, {f"uid-{policy}-2"})
        stage.kube.delete(Kind.CLIENT, "a")


async def test_a_rotation_beside_a_key_of_the_client_s_own_leaves_that_alone(stage: Clients) -> None:
    own = {"publicKeys": [{"jwk": public_jwk("own")}]}
    await stage.apply({**own, **key_spec()})
    await stage.settle()
    assert [one.source for one in (await stage.state()).keys] == ["publicKeys", "generateKey"]
    await stage.apply(own)
    await stage.settle()
    assert [one.kid for one in (await stage.state()).keys] == ["own"]
    assert "private_key.pem" not in stage.held()


def test_secrets_are_watched_for_whom_they_were_written_for() -> None:
    queued: list[Key] = []
    references = SecretReferences()
    written = WrittenSecrets(references, lambda one, _priority: queued.append(one))
    marked = {"annotations": {"keyturn.dev/written-for": "ClientCredential/a"}}
    references.set(A, "s")
    written.seen(NAMESPACE, "s", marked)
    assert queued == []
    assert set(written.of(A)) == {"s"}
    written.seen(NAMESPACE, "t", marked)
    assert queued == [A]
    assert set(written.of(A)) == {"s", "t"}
    written.seen(NAMESPACE, "keys", {"annotations": {"keyturn.dev/written-for": "SigningKey/a"}})
    written.seen(NAMESPACE, "other", {})
    written.seen(NAMESPACE, "t", None)
    assert set(written.of(A)) == {"s"}
    written.listed(NAMESPACE, [])
    assert written.of(A) == frozenset()
