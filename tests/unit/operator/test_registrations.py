"""The operator's part in registrations: hashes from Secrets into rows, and replaced Secrets away."""

import base64
from typing import Any

import pytest

from keyturn.clients.registration import SECRET_TYPE
from keyturn.clients.state import ClientState
from keyturn.records import Kind
from keyturn.secrets import hash_generated
from keyturn.timestamps import format_rfc3339
from keyturn_operator.clients import ClientReconciler
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import KubeUnavailable
from keyturn_operator.references import SecretReferences
from keyturn_operator.registrations import GRACE, ReplacedSecrets
from keyturn_operator.settings import API_VERSION, PAUSED_ANNOTATION
from tests.unit.operator.fakes import NAMESPACE, NOW, Stage, key

SECRETS = collection("v1", "secrets", NAMESPACE)
A = key(Kind.CLIENT, "r-1")


def spec(secret: str = "r-1-a", **changes: Any) -> dict[str, Any]:
    registration = {"secretName": secret, "requested": {"permissions": ["orders:read"]}}
    return {"authMethod": "client_secret_basic", "registration": registration, **changes}


class Registered(Stage):
    """A stage with one registered client, `r-1`."""

    reconciler: ClientReconciler
    references: SecretReferences

    def hashes(self, name: str, *, kind: str = SECRET_TYPE, age: float = 0.0, **plain: str) -> Object:
        data = {
            member: base64.b64encode(hash_generated(value.encode()).encode()).decode()
            for member, value in (plain or {"client_secret_hash": "s", "registration_token_hash": "t"}).items()
        }
        owner = {"apiVersion": API_VERSION, "kind": "ClientCredential", "name": "r-1", "uid": "uid-r-1"}
        secret = self.kube.secret(name, data, creationTimestamp=format_rfc3339(NOW - age), ownerReferences=[owner])
        secret["type"] = kind
        return secret

    async def apply(self, wanted: dict[str, Any], **metadata: Any) -> ClientState:
        obj = self.kube.put(Kind.CLIENT, "r-1", wanted, **metadata)
        await self.reconciler.reconcile(A, obj)
        row = await self.store.get(Kind.CLIENT, "uid-r-1")
        assert row is not None
        return ClientState.from_body(row.record.body)

    @property
    def secrets(self) -> set[str]:
        return {path.rpartition("/")[2] for path in self.kube.objects if path.startswith(SECRETS)}


@pytest.fixture
async def stage() -> Registered:
    made = await Registered.make()
    assert isinstance(made, Registered)
    made.references = SecretReferences()
    made.reconciler = ClientReconciler(made.context, SecretReferences(), SecretReferences(), made.references)
    return made


async def test_the_hashes_come_into_the_row_and_nothing_is_granted(stage: Registered) -> None:
    stage.hashes("r-1-a")
    state = await stage.apply(spec(), labels={"keyturn.dev/approval": "pending"})
    assert state.registration is not None
    assert state.registration.token_hash is not None
    assert state.registration.approval == "pending"
    assert len(state.secrets) == 1
    assert (state.permissions, state.audiences) == ((), ())
    assert stage.ready(Kind.CLIENT, "r-1")[:2] == ("True", "Accepted")


async def test_the_object_waits_for_its_secret_and_is_told_of_it(stage: Registered) -> None:
    state = await stage.apply(spec())
    assert state.secrets == ()
    assert stage.ready(Kind.CLIENT, "r-1")[:2] == ("False", "SecretNotFound")
    assert stage.references.of(NAMESPACE, "r-1-a") == {A}
    stage.hashes("r-1-a")
    assert len((await stage.apply(spec())).secrets) == 1


async def test_a_secret_of_another_type_is_not_used(stage: Registered) -> None:
    stage.hashes("r-1-a", kind="Opaque")
    state = await stage.apply(spec())
    assert state.secrets == ()
    assert state.registration is not None
    assert state.registration.token_hash is None


async def test_another_token_replaces_the_old_one(stage: Registered) -> None:
    stage.hashes("r-1-a")
    before = (await stage.apply(spec())).registration
    stage.hashes("r-1-b", client_secret_hash="s", registration_token_hash="t2")
    after = (await stage.apply(spec("r-1-b"))).registration
    assert before is not None
    assert after is not None
    assert before.token_hash != after.token_hash


async def test_while_secrets_cannot_be_read_a_suspension_counts_and_the_token_stays(stage: Registered) -> None:
    stage.hashes("r-1-a")
    before = await stage.apply(spec())
    stage.kube.failures[("get", f"{SECRETS}/r-1-a")] = KubeUnavailable("down")
    with pytest.raises(KubeUnavailable):
        await stage.apply(spec(suspended=True))
    row = await stage.store.get(Kind.CLIENT, "uid-r-1")
    assert row is not None
    after = ClientState.from_body(row.record.body)
    assert after.suspended
    assert (after.secrets, after.registration) == (before.secrets, before.registration)


async def test_a_paused_registration_stays_in_force_as_it_was(stage: Registered) -> None:
    stage.hashes("r-1-a")
    before = await stage.apply(spec())
    paused = {PAUSED_ANNOTATION: "true"}
    assert await stage.apply(spec(permissions=["orders:read"]), annotations=paused) == before
    assert stage.ready(Kind.CLIENT, "r-1")[:2] == ("False", "Paused")


async def test_an_object_that_is_gone_refers_to_nothing(stage: Registered) -> None:
    stage.hashes("r-1-a")
    await stage.apply(spec())
    await stage.reconciler.gone(A, {"uid-r-1"})
    assert stage.references.of(NAMESPACE, "r-1-a") == frozenset()


def owners(stage: Registered, name: str) -> list[tuple[str, str]]:
    references = stage.kube.objects[f"{SECRETS}/{name}"]["metadata"].get("ownerReferences") or []
    return [(one["name"], one["uid"]) for one in references]


@pytest.mark.parametrize(
    "references",
    [
        pytest.param([], id="no owner"),
        pytest.param(
            [{"apiVersion": API_VERSION, "kind": "ClientCredential", "name": "r-1", "uid": "before"}],
            id="the client as it was before the restore",
        ),
    ],
)
async def test_a_restored_secret_follows_its_client_again(stage: Registered, references: list[dict[str, str]]) -> None:
    secret = stage.hashes("r-1-a")
    secret["metadata"]["ownerReferences"] = references
    assert len((await stage.apply(spec())).secrets) == 1
    assert owners(stage, "r-1-a") == [("r-1", "uid-r-1")]
    await stage.apply(spec())
    assert [path for verb, path in stage.kube.writes() if verb == "merge"] == [f"{SECRETS}/r-1-a"], "once is enough"


@pytest.mark.parametrize(
    ("name", "kind", "references"),
    [
        pytest.param("r-2-a", SECRET_TYPE, [], id="made for another client"),
        pytest.param("r-1-a", "Opaque", [], id="of another type"),
        pytest.param(
            "r-1-a", SECRET_TYPE, [{"kind": "Portal", "name": "r-1", "uid": "p"}], id="owned by something else"
        ),
        pytest.param(
            "r-1-a",
            SECRET_TYPE,
            [{"kind": "ClientCredential", "name": "r-3", "uid": "o"}],
            id="owned by another client",
        ),
    ],
)
async def test_no_other_secret_gets_an_owner(
    stage: Registered, name: str, kind: str, references: list[dict[str, str]]
) -> None:
    secret = stage.hashes(name, kind=kind)
    secret["metadata"]["ownerReferences"] = references
    await stage.apply(spec(name))
    assert secret["metadata"]["ownerReferences"] == references


async def test_an_owner_that_cannot_be_written_is_tried_again_and_the_client_counts(stage: Registered) -> None:
    secret = stage.hashes("r-1-a")
    secret["metadata"]["ownerReferences"] = []
    stage.kube.failures[("merge", f"{SECRETS}/r-1-a")] = KubeUnavailable("down")
    with pytest.raises(KubeUnavailable):
        await stage.apply(spec())
    row = await stage.store.get(Kind.CLIENT, "uid-r-1")
    assert row is not None
    assert len(ClientState.from_body(row.record.body).secrets) == 1


async def test_a_replaced_secret_goes_once_nobody_can_take_the_replacement_back(stage: Registered) -> None:
    stage.hashes("r-1-a", age=GRACE - 10)
    stage.hashes("r-1-b")
    await stage.apply(spec("r-1-b"))
    await ReplacedSecrets(stage.context).clean(NAMESPACE)
    assert stage.secrets == {"r-1-a", "r-1-b"}
    stage.hashes("r-1-a", age=GRACE + 10)
    await ReplacedSecrets(stage.context).clean(NAMESPACE)
    assert stage.secrets == {"r-1-b"}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"kind": "Opaque"}, id="a Secret of another type"),
        pytest.param({"owner": None}, id="a Secret without an owner"),
        pytest.param({"owner": "uid-other"}, id="a Secret whose owner has no row"),
        pytest.param({"born": "yesterday"}, id="a Secret of unknown age"),
    ],
)
async def test_no_other_secret_is_deleted(stage: Registered, other: dict[str, Any]) -> None:
    stage.hashes("r-1-b")
    await stage.apply(spec("r-1-b"))
    secret = stage.hashes("r-1-a", age=GRACE + 10, kind=other.get("kind", SECRET_TYPE), client_secret_hash="s")
    if "owner" in other:
        owners = [] if other["owner"] is None else [{"name": "r-1", "uid": other["owner"]}]
        secret["metadata"]["ownerReferences"] = owners
    if "born" in other:
        secret["metadata"]["creationTimestamp"] = other["born"]
    await ReplacedSecrets(stage.context).clean(NAMESPACE)
    assert stage.secrets == {"r-1-a", "r-1-b"}


async def test_a_client_whose_registration_was_taken_out_keeps_its_secrets(stage: Registered) -> None:
    stage.hashes("r-1-a", age=GRACE + 10)
    await stage.apply({"publicKeys": []})
    await ReplacedSecrets(stage.context).clean(NAMESPACE)
    assert stage.secrets == {"r-1-a"}
