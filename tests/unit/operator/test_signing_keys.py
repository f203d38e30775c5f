import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from keyturn.jose import signing
from keyturn.jose.signing import PrivateKey
from keyturn.keys.ring import KeyRing
from keyturn.keys.state import KeyPhase, SigningKeyState
from keyturn.records import Kind
from keyturn_operator.key_maker import KeyMaker
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import Conflict, Forbidden
from keyturn_operator.queue import Done
from keyturn_operator.reconcile import Worker
from keyturn_operator.references import SecretReferences
from keyturn_operator.settings import PAUSED_ANNOTATION
from keyturn_operator.signing_key_spec import parse_spec
from keyturn_operator.signing_keys import SigningKeyReconciler
from tests.sample_keys import sample_key
from tests.unit.operator.fakes import NAMESPACE, Stage, key

K = key(Kind.SIGNING_KEY, "keyturn")
SECRETS = collection("v1", "secrets", NAMESPACE)
SECRET = f"{SECRETS}/keyturn"


class Keys(Stage):
    """A stage with the reconciler of signing keys, whose keys are made in no time."""

    reconciler: SigningKeyReconciler
    worker: Worker
    asked: list[tuple[str, int]]

    async def apply(self, name: str = "keyturn", wanted: dict[str, Any] | None = None, **metadata: Any) -> Done:
        self.kube.put(Kind.SIGNING_KEY, name, wanted or {}, **metadata)
        return await self.settle(name)

    async def settle(self, name: str = "keyturn") -> Done:
        """Reconciles until nothing is queued any more."""
        one = key(Kind.SIGNING_KEY, name)
        done = await self.worker(one)
        for _ in range(10):
            making = [task for task in asyncio.all_tasks() if task.get_name().startswith("key for")]
            await asyncio.gather(*making)
            if not self.queued:
                break
            self.queued.clear()
            done = await self.worker(one)
        return done

    def ring(self) -> KeyRing:
        secret = self.kube.objects[SECRET]
        return KeyRing.from_secret_data({name: base64.b64decode(value) for name, value in secret["data"].items()})

    async def state(self) -> SigningKeyState | None:
        row = await self.store.get(Kind.SIGNING_KEY, "uid-keyturn")
        return None if row is None else SigningKeyState.from_body(row.record.body)

    async def load_all(self) -> None:
        await self.replica(kids=tuple(one.kid for one in self.ring().keys))


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Keys:
    numbers = iter(range(100))

    asked: list[tuple[str, int]] = []

    def quick(algorithm: str, size: int) -> PrivateKey:
        asked.append((algorithm, size))
        return sample_key(algorithm, next(numbers) % 4)

    monkeypatch.setattr(signing, "generate", quick)
    made = await Keys.make()
    assert isinstance(made, Keys)
    made.asked = asked
    made.reconciler = SigningKeyReconciler(made.context, SecretReferences(), KeyMaker(made.context.enqueue))
    made.worker = Worker(made.context, {Kind.SIGNING_KEY: made.reconciler})
    return made


@pytest.mark.parametrize(
    ("wanted", "policy"),
    [
        pytest.param({}, ("RS256", 2048), id="by default"),
        *(pytest.param({"size": size}, ("RS256", size), id=f"RSA with {size} bits") for size in (2048, 3072, 4096)),
        pytest.param({"algorithm": "PS256", "size": 3072}, ("PS256", 3072), id="PS256"),
        pytest.param({"algorithm": "ES256"}, ("ES256", 256), id="ES256"),
        pytest.param({"algorithm": "ES256", "size": 4096}, ("ES256", 256), id="ES256, whose size is its own"),
    ],
)
async def test_keys_are_made_of_the_algorithm_and_size_that_the_spec_names(
    stage: Keys, wanted: dict[str, Any], policy: tuple[str, int]
) -> None:
    spec, problems = parse_spec(wanted, name="keyturn")
    assert problems == []
    assert (spec.policy.algorithm, spec.policy.size) == policy
    await stage.apply(wanted=wanted)
    assert stage.asked == [policy, policy]


def kids(ring: KeyRing | SigningKeyState) -> dict[str, str]:
    return {one.phase.value: one.kid for one in ring.keys}


async def test_a_signing_key_gets_an_active_and_a_next_key_in_one_secret(stage: Keys) -> None:
    await stage.apply()
    assert set(kids(stage.ring())) == {"Active", "Next"}
    secret = stage.kube.objects[SECRET]
    assert secret["type"] == "Opaque"
    assert secret["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "keyturn"}
    assert "ownerReferences" not in secret["metadata"]


async def test_the_row_and_the_status_follow_the_secret(stage: Keys) -> None:
    await stage.apply()
    state = await stage.state()
    assert state is not None
    assert kids(state) == kids(stage.ring())
    status = next(obj for path, obj in stage.kube.objects.items() if path.endswith("signingkeys/keyturn"))["status"]
    assert {one["state"]: one["kid"] for one in status["keys"]} == kids(stage.ring())


async def test_no_private_key_leaves_the_secret(stage: Keys) -> None:
    await stage.apply()
    row = await stage.store.get(Kind.SIGNING_KEY, "uid-keyturn")
    assert row is not None
    outside = orjson.dumps([obj for path, obj in stage.kube.objects.items() if path != SECRET]) + orjson.dumps(
        row.record.body
    )
    assert b"PRIVATE" not in outside
    assert b'"d":' not in outside


async def test_it_is_ready_once_every_replica_has_loaded_the_active_key(stage: Keys) -> None:
    await stage.apply()
    await stage.settle()
    assert stage.ready(Kind.SIGNING_KEY, "keyturn")[:2] == ("Unknown", "Propagating")
    await stage.load_all()
    await stage.settle()
    assert stage.ready(Kind.SIGNING_KEY, "keyturn")[:2] == ("True", "Accepted")


async def test_restarts_change_nothing(stage: Keys) -> None:
    await stage.apply()
    await stage.load_all()
    await stage.settle()
    before, writes = dict(stage.kube.objects[SECRET]["data"]), len(stage.kube.writes())
    for _ in range(5):
        stage.reconciler = SigningKeyReconciler(stage.context, SecretReferences(), KeyMaker(stage.context.enqueue))
        stage.worker = Worker(stage.context, {Kind.SIGNING_KEY: stage.reconciler})
        await stage.settle()
    assert stage.kube.objects[SECRET]["data"] == before
    assert len(stage.kube.writes()) == writes


async def test_any_other_signing_key_is_told_that_it_does_not_count(stage: Keys) -> None:
    await stage.apply("second")
    assert stage.ready(Kind.SIGNING_KEY, "second")[:2] == ("False", "NotUsed")
    assert f"{SECRETS}/second" not in stage.kube.objects
    assert await stage.store.live() == []


async def test_a_deleted_secret_is_made_anew_and_people_are_told(stage: Keys) -> None:
    await stage.apply()
    before = kids(stage.ring())
    del stage.kube.objects[SECRET]
    await stage.settle()
    assert not set(kids(stage.ring()).values()) & set(before.values())
    assert "SigningKeysLost" in [one["reason"] for one in stage.kube.events]
    state = await stage.state()
    assert state is not None
    assert kids(state) == kids(stage.ring())


async def test_a_lost_store_is_filled_from_the_secret(stage: Keys) -> None:
    await stage.apply()
    await stage.store.remove(Kind.SIGNING_KEY, "uid-keyturn", epoch=1)
    before = dict(stage.kube.objects[SECRET]["data"])
    await stage.settle()
    state = await stage.state()
    assert state is not None
    assert kids(state) == kids(stage.ring())
    assert stage.kube.objects[SECRET]["data"] == before


async def test_a_secret_with_members_of_someone_else_is_untouched(stage: Keys) -> None:
    secret = stage.kube.secret("keyturn", {"keyring.json": "e30="}, labels={"theirs": "1"})
    before = orjson.dumps(secret)
    await stage.apply()
    status, reason, message = stage.ready(Kind.SIGNING_KEY, "keyturn")
    assert (status, reason) == ("False", "SecretConflict")
    assert "keyring.json" in message
    assert orjson.dumps(stage.kube.objects[SECRET]) == before


async def test_a_secret_without_our_members_is_filled_and_keeps_its_own(stage: Keys) -> None:
    stage.kube.secret("keyturn", {"theirs": "eA=="}, labels={"team": "shop"}, annotations={"note": "x"})
    await stage.apply()
    secret = stage.kube.objects[SECRET]
    assert secret["data"]["theirs"] == "eA=="
    assert secret["metadata"]["labels"]["team"] == "shop"
    assert secret["metadata"]["annotations"]["note"] == "x"
    assert "keyring.json" in secret["data"]


@pytest.mark.parametrize(
    "writer", ["ClientCredential/reports", "SigningKey/another"], ids=["a client", "another signing key"]
)
async def test_a_secret_that_is_written_for_another_object_is_not_filled(stage: Keys, writer: str) -> None:
    noted = {"keyturn.dev/written-for": writer}
    secret = stage.kube.secret("keyturn", {"client_secret": "eA=="}, annotations=noted)
    before = orjson.dumps(secret)
    await stage.apply()
    status, reason, message = stage.ready(Kind.SIGNING_KEY, "keyturn")
    assert (status, reason) == ("False", "SecretConflict")
    assert writer in message
    assert orjson.dumps(stage.kube.objects[SECRET]) == before


async def test_a_ring_that_has_not_changed_is_parsed_once(stage: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    load = KeyRing.from_secret_data

    def counted(data: Mapping[str, bytes]) -> KeyRing:
        parsed.append("once")
        return load(data)

    monkeypatch.setattr(KeyRing, "from_secret_data", counted)
    await stage.apply()
    for _ in range(3):
        await stage.settle()
    assert parsed == [], "what this process has written itself need not be parsed"
    stage.kube.objects[SECRET]["data"]["theirs.pem"] = "eA=="
    for _ in range(3):
        await stage.settle()
    assert parsed == ["once"]


async def test_only_opaque_secrets_are_filled(stage: Keys) -> None:
    stage.kube.secret("keyturn", {})["type"] = "kubernetes.io/tls"
    await stage.apply()
    assert stage.ready(Kind.SIGNING_KEY, "keyturn")[1] == "SecretConflict"
    assert stage.kube.objects[SECRET]["data"] == {}


async def test_a_damaged_ring_is_reported_and_left_for_people(stage: Keys) -> None:
    await stage.apply()
    stage.kube.objects[SECRET]["data"]["keyring.json"] = base64.b64encode(b"{").decode()
    before = dict(stage.kube.objects[SECRET]["data"])
    await stage.settle()
    assert stage.ready(Kind.SIGNING_KEY, "keyturn")[1] == "SecretInvalid"
    assert stage.kube.objects[SECRET]["data"] == before


async def test_a_signing_key_made_anew_adopts_the_retained_secret(stage: Keys) -> None:
    await stage.apply()
    before = dict(stage.kube.objects[SECRET]["data"])
    stage.kube.delete(Kind.SIGNING_KEY, "keyturn")
    await stage.settle()
    assert await stage.store.live() == []
    await stage.apply(uid="uid-new")
    after = stage.kube.objects[SECRET]["data"]
    assert {name: one for name, one in after.items() if name.endswith(".pem")} == {
        name: one for name, one in before.items() if name.endswith(".pem")
    }
    assert await stage.store.get(Kind.SIGNING_KEY, "uid-new") is not None


async def test_of_two_that_create_the_secret_the_second_reads_and_decides_again(stage: Keys) -> None:
    first = KeyRing()
    create = stage.kube.create

    async def someone_was_first(path: str, body: Object) -> Object:
        nonlocal first
        if path == SECRETS and SECRET not in stage.kube.objects:
            await create(path, body)
            first = stage.ring()
            raise Conflict("POST", 409)
        return await create(path, body)

    stage.kube.create = someone_was_first  # type: ignore[method-assign]
    done = await stage.apply()
    assert done == Done(again=0.2)
    await stage.settle()
    assert kids(stage.ring()) == kids(first)


async def test_a_secret_changed_since_it_was_read_is_not_overwritten(stage: Keys) -> None:
    stage.kube.secret("keyturn", {"theirs": "eA=="})
    change = stage.kube.merge

    async def changed_meanwhile(path: str, body: Object) -> Object:
        stage.kube._versioned(stage.kube.objects[SECRET])
        return await change(path, body)

    stage.kube.merge = changed_meanwhile  # type: ignore[method-assign]
    assert await stage.apply() == Done(again=0.2)
    assert "keyring.json" not in stage.kube.objects[SECRET]["data"]


async def test_nothing_is_made_in_a_namespace_that_terminates(stage: Keys) -> None:
    stage.kube.failures[("create", SECRETS)] = Forbidden("POST", 403, "Forbidden", ("NamespaceTerminating",))
    assert await stage.apply() == Done()


async def test_a_compromised_key_does_not_come_back_with_a_restored_secret(stage: Keys) -> None:
    await stage.apply()
    state = await stage.state()
    assert state is not None
    active = kids(state)["Active"]
    obj = next(one for path, one in stage.kube.objects.items() if path.endswith("signingkeys/keyturn"))
    for shown in obj["status"]["keys"]:
        if shown["kid"] == active:
            shown["state"] = "Compromised"
    await stage.settle()
    phases = {one.kid: one.phase for one in stage.ring().keys}
    assert phases[active] is KeyPhase.COMPROMISED
    assert active not in stage.ring().private


async def test_while_paused_lost_keys_are_not_made_anew(stage: Keys) -> None:
    await stage.apply()
    del stage.kube.objects[SECRET]
    await stage.apply(annotations={PAUSED_ANNOTATION: "true"})
    assert SECRET not in stage.kube.objects
    assert stage.ready(Kind.SIGNING_KEY, "keyturn")[:2] == ("False", "Paused")


async def test_a_key_that_cannot_be_made_is_retried_with_a_backoff(
    stage: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_algorithm: str, _size: int) -> PrivateKey:
        raise OSError("no entropy")

    monkeypatch.setattr(signing, "generate", broken)
    done = await stage.apply()
    assert done.failed
    assert stage.ready(Kind.SIGNING_KEY, "keyturn")[0] != "True"


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        pytest.param({"module": "hsm"}, "UnsupportedField", "spec.module", id="a field of a later version"),
        pytest.param({"size": 1024}, "InvalidSpec", "spec.size", id="a weak size"),
        pytest.param({"algorithm": "HS256"}, "UnsupportedField", "spec.algorithm", id="a symmetric algorithm"),
        pytest.param({"revokeTokensIssuedBefore": "now"}, "InvalidSpec", "spec.revokeTokensIssuedBefore", id="no time"),
    ],
)
async def test_a_mistake_is_named_and_the_keys_stay(stage: Keys, spec: dict[str, Any], reason: str, field: str) -> None:
    await stage.apply()
    before = dict(stage.kube.objects[SECRET]["data"])
    await stage.apply(wanted=spec)
    status, said, message = stage.ready(Kind.SIGNING_KEY, "keyturn")
    assert (status, said) == ("False", reason)
    assert field in message
    assert stage.kube.objects[SECRET]["data"] == before


async def test_an_invalid_edit_does_not_lift_a_revocation(stage: Keys) -> None:
    await stage.apply(wanted={"revokeTokensIssuedBefore": "2026-06-01T00:00:00Z"})
    await stage.apply(wanted={"size": 1})
    state = await stage.state()
    assert state is not None
    assert state.revoke_before == 1_780_272_000.0
