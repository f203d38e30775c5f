"""Keys and secrets that the operator makes, on a real API server: what is in the Secret, who may use it, what becomes of both."""

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest

from keyturn_dev.waiting import wait_until
from tests.cluster.clients import PROMISE_SECONDS, World
from tests.cluster.test_operator_recovery import database
from tests.manifests import Manifest, manifest

KEY_MEMBERS = {"private_key.pem", "private_key.jwk", "key_id", "client_id", "issuer", "token_endpoint"}
SECRET_MEMBERS = {"client_secret", "client_id", "issuer", "token_endpoint"}
EDIT_SECONDS = 10.0


def generated_key(name: str, secret: str, *, policy: str | None = None, **members: Any) -> Manifest:
    spec = {"generateKey": {"secretName": secret, **members}, **({"deletionPolicy": policy} if policy else {})}
    return manifest("ClientCredential", name, spec)


def generated_secret(name: str, secret: str, *, policy: str | None = None, **members: Any) -> Manifest:
    spec = {
        "authMethod": "client_secret_basic",
        "clientSecret": {"secretName": secret, **members},
        **({"deletionPolicy": policy} if policy else {}),
    }
    return manifest("ClientCredential", name, spec)


def opaque(
    name: str, members: dict[str, str], *, kind: str = "Opaque", labels: dict[str, str] | None = None
) -> Manifest:
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": members}


def members(world: World, secret: str) -> dict[str, str]:
    data = world.objects.get("secrets", secret).get("data") or {}
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


def exists(world: World, secret: str) -> bool:
    return any(one["metadata"]["name"] == secret for one in world.objects.all("secrets"))


def ready(world: World, name: str, *, seconds: float = 20.0) -> None:
    world.objects.wait_for("clientcredentials", name, seconds=seconds)


def with_key(world: World, held: dict[str, str], *, kid: bool = True) -> list[int]:
    """What each replica answers to an assertion that is signed as these members of a Secret say."""

    def answer(number: int) -> int:
        now = int(time.time())
        claims = {
            "iss": held["client_id"],
            "sub": held["client_id"],
            "aud": held["issuer"],
            "iat": now,
            "exp": now + 60,
        }
        headers = {"kid": held["key_id"]} if kid else None
        body = {**claims, "jti": f"{time.monotonic_ns()}-{number}"}
        assertion = jwt.encode(body, held["private_key.pem"], algorithm="RS256", headers=headers)
        return world.replicas[number].grant(assertion).status_code

    return [answer(number) for number in range(len(world.replicas))]


def with_secret(world: World, held: dict[str, str]) -> list[int]:
    return world.everywhere(lambda one: one.grant_basic(held["client_id"], held["client_secret"]).status_code)


def rotate(world: World, name: str, value: str) -> None:
    world.objects.patch("clientcredentials", name, {"metadata": {"annotations": {"keyturn.dev/rotate": value}}})


def new_members(world: World, secret: str, before: dict[str, str], *, seconds: float = 20.0) -> dict[str, str]:
    """The Secret's members once its key or secret is another one."""
    material = "client_secret" if "client_secret" in before else "key_id"
    found: list[dict[str, str]] = []

    def changed() -> bool:
        if not exists(world, secret):
            return False
        found[:] = [members(world, secret)]
        return found[0].get(material) not in (None, before[material])

    wait_until(changed, f"another {material} in Secret {secret}", seconds=seconds)
    return found[0]


ACCEPTED, REFUSED = [200, 200], [401, 401]


# --- First made ----------------------------------------------------------------------------------------------------------------------


def test_a_generated_key_is_in_its_secret_in_the_forms_that_people_use(world: World) -> None:
    world.apply(generated_key("made-key", "made-key-s", size=3072))
    ready(world, "made-key")
    held = members(world, "made-key-s")
    assert set(held) == KEY_MEMBERS
    assert held["client_id"] == f"{world.namespace}.made-key"
    assert held["issuer"] == world.replicas[0].url
    assert held["token_endpoint"] == f"{world.replicas[0].url}/oauth/token"
    assert with_key(world, held) == ACCEPTED
    private = json.loads(held["private_key.jwk"])
    assert private["kid"] == held["key_id"]
    from_jwk = jwt.PyJWK(private).key
    signed = jwt.encode({"a": 1}, from_jwk, algorithm="RS256")
    assert jwt.decode(signed, jwt.PyJWK(private).key.public_key(), algorithms=["RS256"]) == {"a": 1}
    (shown,) = world.objects.get("clientcredentials", "made-key")["status"]["keys"]
    assert (shown["kid"], shown["algorithm"], shown["size"], shown["source"]) == (
        held["key_id"],
        "RS256",
        3072,
        "generateKey",
    )
    assert "expiresAt" not in shown
    secret = world.objects.get("secrets", "made-key-s")
    assert secret["type"] == "Opaque"
    (owner,) = secret["metadata"]["ownerReferences"]
    uid = world.objects.get("clientcredentials", "made-key")["metadata"]["uid"]
    assert (owner["kind"], owner["uid"], owner["blockOwnerDeletion"]) == ("ClientCredential", uid, False)


def test_a_generated_secret_needs_no_encoding_and_only_its_hash_is_kept(world: World) -> None:
    world.apply(generated_secret("made-secret", "made-secret-s"))
    ready(world, "made-secret")
    held = members(world, "made-secret-s")
    assert set(held) == SECRET_MEMBERS
    assert len(held["client_secret"]) == 43
    assert held["client_secret"].replace("-", "").replace("_", "").isalnum()
    assert with_secret(world, held) == ACCEPTED
    assert with_secret(world, {**held, "client_secret": held["client_secret"][:-1]}) == REFUSED
    obj = json.dumps(world.objects.get("clientcredentials", "made-secret"))
    assert held["client_secret"] not in obj
    (shown,) = world.objects.get("clientcredentials", "made-secret")["status"]["secrets"]
    assert shown["source"] == "clientSecret"


def test_an_annotation_that_is_there_from_the_beginning_rotates_nothing(world: World) -> None:
    given = generated_secret("annotated", "annotated-s")
    given["metadata"]["annotations"] = {"keyturn.dev/rotate": "1"}
    world.apply(given)
    ready(world, "annotated")
    held = members(world, "annotated-s")
    world.objects.patch("clientcredentials", "annotated", {"spec": {"description": "looked at again"}})
    ready(world, "annotated")
    assert members(world, "annotated-s") == held


# --- Rotation ------------------------------------------------------------------------------------------------------------------------


def test_both_are_accepted_in_the_overlap_and_the_old_one_is_refused_after_it(world: World) -> None:
    world.apply(generated_key("turned", "turned-s", keepPrevious="12s"))
    ready(world, "turned")
    old = members(world, "turned-s")
    rotate(world, "turned", "1")
    new = new_members(world, "turned-s", old)
    # Whoever reads the Secret can use it at once: it was announced to the replicas before.
    assert with_key(world, new) == ACCEPTED
    assert with_key(world, old) == ACCEPTED
    assert with_key(world, new, kid=False) == ACCEPTED
    assert with_key(world, old, kid=False) == ACCEPTED
    ready(world, "turned")
    shown = {one["kid"]: one for one in world.objects.get("clientcredentials", "turned")["status"]["keys"]}
    assert set(shown) == {old["key_id"], new["key_id"]}
    assert "expiresAt" in shown[old["key_id"]]
    assert "expiresAt" not in shown[new["key_id"]]
    wait_until(lambda: with_key(world, old) == REFUSED, "the old key to be refused", seconds=20)
    assert with_key(world, new) == ACCEPTED
    gone = "the old key to be shown no more"
    wait_until(lambda: len(world.objects.get("clientcredentials", "turned")["status"]["keys"]) == 1, gone, seconds=15)
    world.objects.wait_event("turned", "Rotated")


@dataclass
class Caller:
    """Asks for tokens without a pause, with a secret that it reads anew as often as `refresh` says (seconds; None: never)."""

    world: World
    secret: str
    refresh: float | None
    answers: list[int] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        held, read_at = members(self.world, self.secret), time.monotonic()
        while not self.stop.is_set():
            if self.refresh is not None and time.monotonic() - read_at > self.refresh:
                held, read_at = members(self.world, self.secret), time.monotonic()
            self.answers += with_secret(self.world, held)


def test_callers_with_the_old_and_the_new_secret_never_fail_while_it_rotates(world: World) -> None:
    world.apply(generated_secret("busy", "busy-s", keepPrevious="1h"))
    ready(world, "busy")
    callers = [Caller(world, "busy-s", None), Caller(world, "busy-s", 0.0), Caller(world, "busy-s", 0.5)]
    threads = [threading.Thread(target=one.run) for one in callers]
    for thread in threads:
        thread.start()
    try:
        for turn in range(4):
            held = members(world, "busy-s")
            rotate(world, "busy", f"turn-{turn}")
            new_members(world, "busy-s", held)
            time.sleep(0.3)
    finally:
        for one in callers:
            one.stop.set()
        for thread in threads:
            thread.join(timeout=30)
    assert all(len(one.answers) > 20 for one in callers)
    assert {status for one in callers for status in one.answers} == {200}


def test_an_overlap_of_nothing_ends_the_old_one_at_once_and_for_ever(world: World) -> None:
    world.apply(generated_key("cut", "cut-s", keepPrevious="1h"))
    ready(world, "cut")
    old = members(world, "cut-s")
    rotate(world, "cut", "1")
    new = new_members(world, "cut-s", old)
    assert with_key(world, old) == ACCEPTED
    world.objects.patch("clientcredentials", "cut", {"spec": {"generateKey": {"keepPrevious": "0s"}}})
    took = world.seconds_until(lambda: with_key(world, old) == REFUSED, "the old key to be refused")
    assert took < 2 * PROMISE_SECONDS
    assert with_key(world, new) == ACCEPTED
    world.objects.patch("clientcredentials", "cut", {"spec": {"generateKey": {"keepPrevious": "1h"}}})
    ready(world, "cut")
    world.installation.restart_operator()
    world.objects.patch("clientcredentials", "cut", {"spec": {"description": "after a restart"}})
    ready(world, "cut")
    assert with_key(world, old) == REFUSED
    assert with_key(world, new) == ACCEPTED


def test_a_schedule_rotates_by_itself(world: World) -> None:
    world.apply(generated_secret("scheduled", "scheduled-s", rotateEvery="4s", keepPrevious="30s"))
    ready(world, "scheduled")
    first = members(world, "scheduled-s")
    second = new_members(world, "scheduled-s", first, seconds=20)
    third = new_members(world, "scheduled-s", second, seconds=20)
    assert [with_secret(world, held) for held in (first, second, third)] == [ACCEPTED] * 3
    world.objects.patch("clientcredentials", "scheduled", {"spec": {"clientSecret": {"rotateEvery": None}}})


def test_five_restarts_of_the_operator_change_no_generated_secret(world: World) -> None:
    world.apply(
        generated_key("steady-key", "steady-key-s", rotateEvery="720h"),
        generated_secret("steady-secret", "steady-secret-s", rotateEvery="720h"),
    )
    names = ("steady-key", "steady-secret")
    world.objects.wait_all_ready("clientcredentials", names, seconds=30)
    before = [world.objects.get("secrets", f"{name}-s") for name in names]
    for turn in range(5):
        world.installation.restart_operator()
        # Only when the operator has looked at both has it had its chance to change something.
        for name in names:
            world.objects.patch("clientcredentials", name, {"spec": {"description": f"restart {turn}"}})
        world.objects.wait_all_ready("clientcredentials", names, seconds=30)
    assert [world.objects.get("secrets", f"{name}-s") for name in names] == before


# --- The Secret goes, or is changed --------------------------------------------------------------------------------------------------


def test_a_secret_deleted_by_hand_is_made_anew_with_an_event_and_the_old_value_has_its_overlap(world: World) -> None:
    world.apply(generated_secret("lost", "lost-s", keepPrevious="10s"))
    ready(world, "lost")
    old = members(world, "lost-s")
    world.objects.delete("secrets", "lost-s")
    new = new_members(world, "lost-s", old)
    assert with_secret(world, new) == ACCEPTED
    assert with_secret(world, old) == ACCEPTED
    told = world.objects.wait_event("lost", "SecretRecreated")
    assert told["type"] == "Warning"
    wait_until(lambda: with_secret(world, old) == REFUSED, "the old secret to end", seconds=20)


def test_a_value_that_somebody_else_put_in_is_left_and_never_accepted(world: World) -> None:
    world.apply(generated_secret("edited-by-hand", "edited-by-hand-s"))
    ready(world, "edited-by-hand")
    held = members(world, "edited-by-hand-s")
    world.objects.patch("secrets", "edited-by-hand-s", {"stringData": {"client_secret": "put-in-by-hand"}})
    told = world.objects.wait_for("clientcredentials", "edited-by-hand", "False", reason="SecretConflict")
    assert "client_secret" in told["message"]
    assert "put-in-by-hand" not in told["message"]
    assert members(world, "edited-by-hand-s")["client_secret"] == "put-in-by-hand"
    assert with_secret(world, {**held, "client_secret": "put-in-by-hand"}) == REFUSED
    assert with_secret(world, held) == ACCEPTED
    # Taking it out has a new one made.
    world.objects.patch("secrets", "edited-by-hand-s", {"data": {"client_secret": None}})
    wait_until(lambda: "client_secret" in members(world, "edited-by-hand-s"), "a new secret", seconds=15)
    ready(world, "edited-by-hand")
    assert with_secret(world, members(world, "edited-by-hand-s")) == ACCEPTED


def test_members_beside_the_key_are_put_right(world: World) -> None:
    world.apply(generated_key("beside", "beside-s"))
    ready(world, "beside")
    held = members(world, "beside-s")
    world.objects.patch("secrets", "beside-s", {"stringData": {"client_id": "another"}, "data": {"issuer": None}})
    wait_until(lambda: members(world, "beside-s") == held, "the members as they belong", seconds=EDIT_SECONDS)
    world.objects.wait_event("beside", "DriftRepaired")


def test_a_restored_older_secret_is_noticed_and_its_value_does_not_come_back(world: World) -> None:
    world.apply(generated_secret("restored", "restored-s", keepPrevious="0s"))
    ready(world, "restored")
    copy = world.objects.get("secrets", "restored-s")
    old = members(world, "restored-s")
    rotate(world, "restored", "1")
    second = new_members(world, "restored-s", old)
    wait_until(lambda: with_secret(world, old) == REFUSED, "the first one to end", seconds=10)
    backup = {
        "data": copy["data"],
        "metadata": {"annotations": copy["metadata"]["annotations"]},
    }
    world.objects.patch("secrets", "restored-s", backup)
    third = new_members(world, "restored-s", old)
    assert third["client_secret"] != second["client_secret"]
    world.objects.wait_event("restored", "SecretRestored")
    assert with_secret(world, third) == ACCEPTED
    assert with_secret(world, old) == REFUSED


def test_a_lost_row_gets_everything_back_from_the_secret(world: World) -> None:
    world.apply(generated_secret("kept", "kept-s", keepPrevious="1h"))
    ready(world, "kept")
    old = members(world, "kept-s")
    rotate(world, "kept", "1")
    new = new_members(world, "kept-s", old)
    ready(world, "kept")
    world.installation.stop_process("operator-0")
    with database(world) as rows:
        rows.execute("DELETE FROM keyturn_records WHERE name = 'kept'")
    world.installation.start_operator()

    def rebuilt() -> bool:
        with database(world) as rows:
            ((count,),) = rows.execute("SELECT count(*) FROM keyturn_records WHERE name = 'kept'")
        return bool(count == 1)

    wait_until(rebuilt, "the row to be rebuilt", seconds=30)
    ready(world, "kept")
    assert (with_secret(world, new), with_secret(world, old)) == (ACCEPTED, ACCEPTED)
    with database(world) as rows:
        ((hashes,),) = rows.execute("SELECT json_extract(body, '$.secrets') FROM keyturn_records WHERE name = 'kept'")
    assert len(json.loads(hashes)) == 2
    assert members(world, "kept-s") == new


# --- Somebody else's Secret ----------------------------------------------------------------------------------------------------------


def test_a_secret_of_somebody_else_is_filled_and_keeps_what_it_has(world: World) -> None:
    labels = {"app.kubernetes.io/managed-by": "Helm", "team": "a"}
    world.apply(opaque("theirs", {"password": "stays"}, labels=labels))
    world.apply(generated_key("fills", "theirs"))
    ready(world, "fills")
    held = members(world, "theirs")
    assert set(held) == {*KEY_MEMBERS, "password"}
    secret = world.objects.get("secrets", "theirs")
    assert secret["metadata"]["labels"] == labels
    assert "ownerReferences" not in secret["metadata"]
    assert with_key(world, held) == ACCEPTED
    world.objects.delete("clientcredentials", "fills")
    wait_until(lambda: set(members(world, "theirs")) == {"password"}, "our members to be taken out", seconds=15)
    after = world.objects.get("secrets", "theirs")
    assert after["metadata"]["labels"] == labels
    assert not any(name.startswith("keyturn.dev/") for name in after["metadata"].get("annotations") or {})


@pytest.mark.parametrize(
    ("name", "given", "kind", "said"),
    [
        pytest.param("member", {"client_id": "not-to-be-shown"}, "Opaque", "client_id", id="holds a member of ours"),
        pytest.param("pem", {"private_key.pem": "not-to-be-shown"}, "Opaque", "private_key.pem", id="holds a key"),
        pytest.param(
            "typed",
            {"username": "u", "password": "not-to-be-shown"},
            "kubernetes.io/basic-auth",
            "kubernetes.io/basic-auth",
            id="is of another type",
        ),
    ],
)
def test_a_secret_that_must_not_be_filled_is_left_and_told_of(
    world: World, name: str, given: dict[str, str], kind: str, said: str
) -> None:
    world.apply(opaque(f"foreign-{name}", given, kind=kind))
    before = world.objects.get("secrets", f"foreign-{name}")
    world.apply(generated_key(f"refused-{name}", f"foreign-{name}"))
    told = world.objects.wait_for("clientcredentials", f"refused-{name}", "False", reason="SecretConflict")
    assert said in told["message"]
    assert "not-to-be-shown" not in told["message"]
    assert world.objects.get("secrets", f"foreign-{name}") == before


def test_the_second_client_that_names_a_secret_is_refused_until_the_first_has_gone(world: World) -> None:
    world.apply(generated_secret("one-of-two", "contended-s"))
    ready(world, "one-of-two")
    held = members(world, "contended-s")
    world.apply(generated_secret("two-of-two", "contended-s"))
    told = world.objects.wait_for("clientcredentials", "two-of-two", "False", reason="SecretConflict")
    assert "ClientCredential/one-of-two" in told["message"]
    assert members(world, "contended-s") == held
    world.objects.delete("clientcredentials", "one-of-two")
    ready(world, "two-of-two", seconds=30)
    assert members(world, "contended-s")["client_id"] == f"{world.namespace}.two-of-two"


def test_the_signing_keys_secret_is_never_filled(world: World) -> None:
    world.apply(generated_key("greedy", "keyturn"))
    world.objects.wait_for("clientcredentials", "greedy", "False", reason="SecretConflict")
    assert "private_key.pem" not in members(world, "keyturn")
    world.objects.delete("clientcredentials", "greedy")


# --- The object goes, or names another Secret ----------------------------------------------------------------------------------------


def test_another_secret_name_moves_the_credential_and_empties_what_was_before(world: World) -> None:
    world.apply(opaque("moves-from", {"note": "theirs"}))
    world.apply(generated_secret("moves", "moves-from", keepPrevious="1h"))
    ready(world, "moves")
    old = members(world, "moves-from")
    world.objects.patch("clientcredentials", "moves", {"spec": {"clientSecret": {"secretName": "moves-to"}}})
    new = new_members(world, "moves-to", old)
    assert with_secret(world, new) == ACCEPTED
    assert with_secret(world, old) == ACCEPTED
    wait_until(lambda: set(members(world, "moves-from")) == {"note"}, "the former Secret to be left", seconds=10)


def test_a_client_that_was_deleted_while_no_operator_ran_leaves_nothing_in_others_secrets(world: World) -> None:
    world.apply(opaque("downtime-s", {"note": "theirs"}), generated_secret("downtime", "downtime-s"))
    ready(world, "downtime")
    world.installation.stop_process("operator-0")
    world.objects.delete("clientcredentials", "downtime")
    world.installation.start_operator()
    wait_until(lambda: set(members(world, "downtime-s")) == {"note"}, "our members to be taken out", seconds=30)


def test_a_secret_that_we_made_goes_with_its_client_or_is_retained_and_adopted_again(world: World) -> None:
    world.apply(generated_secret("goes", "goes-s"), generated_secret("stays", "stays-s", policy="Retain"))
    world.objects.wait_all_ready("clientcredentials", ["goes", "stays"], seconds=30)
    kept = members(world, "stays-s")
    assert "ownerReferences" not in world.objects.get("secrets", "stays-s")["metadata"]
    for name in ("goes", "stays"):
        world.objects.delete("clientcredentials", name)
    wait_until(lambda: not exists(world, "goes-s"), "the Secret to go with its owner", seconds=30)
    wait_until(lambda: with_secret(world, kept) == REFUSED, "the client to be gone", seconds=5)
    assert members(world, "stays-s") == kept
    world.apply(generated_secret("stays", "stays-s", policy="Retain"))
    ready(world, "stays")
    assert members(world, "stays-s") == kept
    assert with_secret(world, kept) == ACCEPTED


def test_the_deletion_policy_can_change(world: World) -> None:
    world.apply(generated_secret("policy", "policy-s"))
    ready(world, "policy")
    world.objects.patch("clientcredentials", "policy", {"spec": {"deletionPolicy": "Retain"}})
    owners = "the owner reference to go"
    wait_until(
        lambda: "ownerReferences" not in world.objects.get("secrets", "policy-s")["metadata"], owners, seconds=10
    )
    world.objects.patch("clientcredentials", "policy", {"spec": {"deletionPolicy": "Delete"}})
    wait_until(
        lambda: "ownerReferences" in world.objects.get("secrets", "policy-s")["metadata"],
        "the owner reference to come back",
        seconds=10,
    )


def test_a_generated_secret_becomes_its_authors_own_with_generate_false(world: World) -> None:
    world.apply(generated_secret("handed", "handed-s"))
    ready(world, "handed")
    held = members(world, "handed-s")
    world.objects.patch("clientcredentials", "handed", {"spec": {"clientSecret": {"generate": False}}})
    ready(world, "handed")
    assert with_secret(world, held) == ACCEPTED
    metadata = "the Secret to be nobody's"
    wait_until(
        lambda: "ownerReferences" not in world.objects.get("secrets", "handed-s")["metadata"], metadata, seconds=10
    )
    world.objects.patch("secrets", "handed-s", {"stringData": {"client_secret": "chosen-by-its-author"}})
    chosen = {**held, "client_secret": "chosen-by-its-author"}
    wait_until(lambda: with_secret(world, chosen) == ACCEPTED, "the edit to count", seconds=EDIT_SECONDS)
    assert with_secret(world, held) == REFUSED


def test_a_suspension_does_not_wait_for_keys_that_are_being_made(world: World) -> None:
    client = world.client("impatient").apply()
    makers = [generated_key(f"slow-{n}", f"slow-{n}-s", size=4096) for n in range(6)]
    world.apply(*makers)
    client.patch(suspended=True)
    took = world.seconds_until(
        lambda: [client.request(one).status_code for one in range(2)] == REFUSED, "the suspension to count"
    )
    assert took < 1.5
    world.objects.wait_all_ready("clientcredentials", [f"slow-{n}" for n in range(6)], seconds=90)


def test_a_client_moves_from_its_own_key_to_a_generated_one_without_a_gap(world: World) -> None:
    client = world.client("changes-over").apply()
    world.objects.patch(
        "clientcredentials", "changes-over", {"spec": {"generateKey": {"secretName": "changes-over-s"}}}
    )
    wait_until(lambda: exists(world, "changes-over-s"), "the Secret", seconds=20)
    held = members(world, "changes-over-s")
    assert with_key(world, held) == ACCEPTED
    assert [client.request(one).status_code for one in range(2)] == ACCEPTED
    world.objects.patch("clientcredentials", "changes-over", {"spec": {"publicKeys": None}})
    wait_until(lambda: [client.request(one).status_code for one in range(2)] == REFUSED, "the own key to go", seconds=5)
    assert with_key(world, held) == ACCEPTED
