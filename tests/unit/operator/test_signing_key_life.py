"""Rotations, withdrawals, losses and restores of the signing keys, one story each, on the real parts with a clock that is moved by hand."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from keyturn.jose.algorithms import ES256
from keyturn.keys.state import KeyPhase
from keyturn.records import Kind
from keyturn_operator.settings import PAUSED_ANNOTATION
from keyturn_operator.signing_key_spec import COMPROMISED_ANNOTATION, ROTATE_ANNOTATION
from tests.unit.operator.fakes import NAMESPACE, NOW
from tests.unit.operator.key_model import OBJECT, SECRET, SKEW, TOKEN_LIFE, Model

ACTIVE, NEXT, RETIRED, COMPROMISED = KeyPhase.ACTIVE, KeyPhase.NEXT, KeyPhase.RETIRED, KeyPhase.COMPROMISED
MODELS: list[Model] = []


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    while MODELS:
        MODELS.pop().close()


def started(**spec: Any) -> Model:
    model = Model(**spec)
    MODELS.append(model)
    model.start_operator()
    model.touch()
    model.wait(1)
    return model


def phases(model: Model) -> dict[str, KeyPhase]:
    ring = model.ring()
    assert ring is not None
    return {key.kid: key.phase for key in ring.keys}


def kid(model: Model, phase: KeyPhase) -> str:
    found = model.kid(phase)
    assert found is not None
    return found


def private(model: Model) -> set[str]:
    ring = model.ring()
    assert ring is not None
    return set(ring.private)


def rotate(model: Model, value: str = "now") -> str:
    """One rotation, as soon as it can be; the kid that signs then."""
    model.annotate(ROTATE_ANNOTATION, value)
    model.wait(12)
    return kid(model, ACTIVE)


def signers(model: Model) -> list[str | None]:
    return [api.signing_kid() for api in model.apis]


# Rotation


def test_a_rotation_promotes_next_in_the_write_that_adds_the_new_one() -> None:
    model = started()
    active, following = kid(model, ACTIVE), kid(model, NEXT)
    assert rotate(model) == following
    made = kid(model, NEXT)
    assert phases(model) == {following: ACTIVE, made: NEXT, active: RETIRED}
    assert signers(model) == [following, following]
    ring = model.ring()
    assert ring is not None
    assert ring.handled_rotation == "now"


def test_next_is_promoted_when_it_is_old_enough_and_not_before() -> None:
    model = started(publishBefore="30s")
    active = kid(model, ACTIVE)
    model.annotate(ROTATE_ANNOTATION, "early")
    pending = model.condition("RotationPending")
    assert (pending["status"], pending["reason"]) == ("True", "NextKeyTooYoung")
    model.wait(28)
    assert kid(model, ACTIVE) == active
    model.wait(2)
    assert kid(model, ACTIVE) != active
    assert model.condition("RotationPending")["status"] == "False"


def test_next_is_not_promoted_before_every_live_replica_has_loaded_it() -> None:
    model = started()
    model.wait(20)
    model.apis[1].mount_lags = True
    following = rotate(model, "one")
    model.wait(20)
    model.annotate(ROTATE_ANNOTATION, "two")
    assert kid(model, ACTIVE) == following
    assert model.condition("RotationPending")["reason"] == "NextKeyNotLoaded"
    model.apis[1].mount_lags = False
    model.wait(2)
    assert kid(model, ACTIVE) != following


def test_a_key_is_published_when_every_replica_has_it_in_its_jwks() -> None:
    model = started()
    model.wait(20)
    model.apis[1].lags = True
    model.annotate(ROTATE_ANNOTATION, "one")
    made = kid(model, NEXT)
    ring = model.ring()
    assert ring is not None
    assert next(key for key in ring.keys if key.kid == made).published_at is None
    model.wait(12)
    model.annotate(ROTATE_ANNOTATION, "two")
    assert model.condition("RotationPending")["reason"] == "NextKeyNotPublished"
    model.apis[1].lags = False
    model.wait(2)
    assert model.condition("RotationPending")["reason"] == "NextKeyTooYoung"


def test_the_old_private_half_stays_until_no_replica_signs_with_it() -> None:
    model = started()
    model.wait(20)
    active = kid(model, ACTIVE)
    model.apis[1].lags = True
    model.annotate(ROTATE_ANNOTATION, "now")
    model.wait(5)
    assert signers(model)[1] == active
    assert active in private(model)
    assert phases(model)[active] is RETIRED
    model.apis[1].lags = False
    model.wait(2)
    assert active not in private(model)
    assert private(model) == {kid(model, ACTIVE), kid(model, NEXT)}
    assert f"{active}.pem" not in model.kube.objects[SECRET]["data"]


def test_a_retired_key_leaves_when_its_last_token_has_expired() -> None:
    model = started()
    active = kid(model, ACTIVE)
    rotate(model)
    model.wait(TOKEN_LIFE + SKEW)
    assert active in phases(model)
    assert all(model.accepted(api, active) for api in model.apis)
    model.wait(70)
    assert active not in phases(model)
    assert not any(model.accepted(api, active) for api in model.apis)


def test_retain_after_keeps_it_for_longer() -> None:
    model = started(retainAfter="1h")
    active = kid(model, ACTIVE)
    rotate(model)
    model.wait(3580)
    assert phases(model)[active] is RETIRED
    model.wait(30)
    assert active not in phases(model)


def test_a_shorter_lead_time_waits_for_those_who_keep_the_jwks_by_the_longer_one() -> None:
    model = started(publishBefore="120s")
    model.wait(125)
    model.annotate(ROTATE_ANNOTATION, "one")
    model.wait(5)
    first = kid(model, ACTIVE)
    model.edit(publishBefore="2s")
    model.annotate(ROTATE_ANNOTATION, "two")
    model.wait(40)
    assert kid(model, ACTIVE) == first, "a JWKS without the next key may be kept for a minute"
    model.wait(25)
    assert kid(model, ACTIVE) != first


def test_the_schedule_rotates_a_tenth_early_at_most_and_no_restart_moves_it() -> None:
    model = started(rotateEvery="1000s")
    active = kid(model, ACTIVE)
    due = model.kube.objects[OBJECT]["status"]["nextRotationAt"]
    for _ in range(3):
        model.wait(290)
        model.start_operator()
        model.touch()
        assert model.kube.objects[OBJECT]["status"]["nextRotationAt"] == due
    assert kid(model, ACTIVE) == active
    model.wait(NOW + 1001 - model.now)
    assert kid(model, ACTIVE) != active


def test_a_schedule_of_zero_never_rotates() -> None:
    model = started(rotateEvery="0s")
    active = kid(model, ACTIVE)
    model.wait(4000)
    assert kid(model, ACTIVE) == active
    assert "nextRotationAt" not in model.kube.objects[OBJECT]["status"]


def test_an_annotation_that_is_there_when_the_object_comes_rotates_nothing() -> None:
    model = Model()
    MODELS.append(model)
    model.annotate(ROTATE_ANNOTATION, "from the manifest")
    model.start_operator()
    model.touch()
    active = kid(model, ACTIVE)
    model.wait(60)
    assert kid(model, ACTIVE) == active

    # Nor when it comes again, with keys that were retained.
    model.kube.objects[OBJECT]["metadata"]["uid"] = "uid-of-another"
    model.annotate(ROTATE_ANNOTATION, "from another manifest")
    model.wait(60)
    assert kid(model, ACTIVE) == active
    assert rotate(model, "asked for") != active


def test_while_paused_a_rotation_waits() -> None:
    model = started()
    model.wait(20)
    active = kid(model, ACTIVE)
    model.annotate(PAUSED_ANNOTATION, "true")
    model.annotate(ROTATE_ANNOTATION, "now")
    model.wait(20)
    assert kid(model, ACTIVE) == active
    assert model.condition("RotationPending")["reason"] == "Paused"
    model.annotate(PAUSED_ANNOTATION, None)
    assert kid(model, ACTIVE) != active


def test_another_algorithm_comes_with_the_keys_made_from_then_on() -> None:
    model = started()
    model.edit(algorithm="RS256")
    ring = model.ring()
    assert ring is not None
    assert {key.algorithm for key in ring.keys} == {ES256}


@pytest.mark.parametrize("writes", range(8))
def test_an_operator_killed_at_any_write_of_a_rotation_leaves_keys_that_work(writes: int) -> None:
    model = started()
    model.wait(20)
    active, following = kid(model, ACTIVE), kid(model, NEXT)
    model.fuse.left = writes
    model.annotate(ROTATE_ANNOTATION, "now")
    model.wait(30)
    for api in model.apis:
        signs = api.signing_kid()
        assert signs in (active, following)
        assert all(model.accepted(other, signs) for other in model.apis)
    model.fuse.left = None
    model.start_operator()
    model.touch()
    model.wait(2)
    assert (kid(model, ACTIVE), phases(model)[active]) == (following, RETIRED)
    assert active not in private(model)
    # It may have signed until just now.
    ring = model.ring()
    assert ring is not None
    gone = next(key for key in ring.keys if key.kid == active).remove_at
    assert gone is not None
    assert gone >= (NOW + 20 if not model.alive else NOW) + TOKEN_LIFE + SKEW


# Withdrawal


def test_the_withdrawn_active_key_is_followed_by_next_without_a_gap() -> None:
    model = started()
    active, following = kid(model, ACTIVE), kid(model, NEXT)
    model.annotate(COMPROMISED_ANNOTATION, active)
    assert signers(model) == [following, following]
    assert not any(model.accepted(api, active) for api in model.apis)
    assert not any(active in api.published()[0] for api in model.apis)
    assert active not in private(model)
    condition = model.condition("TokensInvalidated")
    assert (condition["status"], condition["reason"]) == ("True", "KeysCompromised")


def test_the_condition_ends_with_the_last_token_that_it_speaks_of() -> None:
    model = started()
    model.annotate(COMPROMISED_ANNOTATION, kid(model, ACTIVE))
    model.wait(TOKEN_LIFE + SKEW)
    assert model.condition("TokensInvalidated")["status"] == "True"
    model.wait(70)
    assert model.condition("TokensInvalidated")["status"] == "False"


def test_with_all_named_everything_that_lay_in_the_secret_is_withdrawn() -> None:
    model = started()
    model.wait(20)
    active = kid(model, ACTIVE)
    model.apis[1].lags = True
    model.annotate(ROTATE_ANNOTATION, "now")
    named = {kid(model, ACTIVE), kid(model, NEXT)}
    assert active in private(model)
    model.annotate(COMPROMISED_ANNOTATION, " ".join(named))
    assert {one for one, phase in phases(model).items() if phase is COMPROMISED} == {*named, active}


def test_however_many_kids_are_named_the_last_one_is_withdrawn() -> None:
    model = started()
    active = kid(model, ACTIVE)
    model.annotate(COMPROMISED_ANNOTATION, ",".join([*(f"of-before-{number}" for number in range(600)), active]))
    model.wait(2)
    assert phases(model)[active] is COMPROMISED
    assert not any(model.accepted(api, active) for api in model.apis)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param('["kid"', "nothing of it was withdrawn", id="an unfinished array"),
        pytest.param('["x", 5, ""]', "2 of its entries", id="entries that are no kids"),
        pytest.param("k" * 1000, "1 of its entries", id="a kid that is too long"),
    ],
)
def test_an_annotation_that_cannot_be_read_is_told(value: str, words: str) -> None:
    model = started()
    model.annotate(COMPROMISED_ANNOTATION, value)
    told = model.condition("WithdrawalIncomplete")
    assert (told["status"], told["reason"]) == ("True", "AnnotationInvalid")
    assert words in told["message"]
    assert [one["type"] for one in model.kube.events if one["reason"] == "AnnotationInvalid"] == ["Warning"]
    model.annotate(COMPROMISED_ANNOTATION, None)
    assert model.condition("WithdrawalIncomplete")["status"] == "False"


def test_an_annotation_that_cannot_be_read_is_told_with_a_secret_that_cannot_be_used() -> None:
    model = started()
    model.kube.objects[SECRET]["data"]["keyring.json"] = "e30="
    for api in model.apis:
        api.mount_lags = True
    model.annotate(COMPROMISED_ANNOTATION, '["kid"')
    assert model.condition("Ready")["reason"] == "SecretInvalid"
    assert model.condition("WithdrawalIncomplete")["reason"] == "AnnotationInvalid"


def test_a_mistyped_kid_is_noted_and_told() -> None:
    model = started()
    active = kid(model, ACTIVE)
    model.annotate(COMPROMISED_ANNOTATION, f"{active}x")
    told = model.condition("WithdrawalIncomplete")
    assert (told["status"], told["reason"]) == ("True", "UnknownKid")
    assert f"{active}x" in told["message"]
    assert kid(model, ACTIVE) == active
    model.annotate(COMPROMISED_ANNOTATION, active)
    assert model.condition("WithdrawalIncomplete")["status"] == "False"
    assert kid(model, ACTIVE) != active


def test_a_kid_whose_key_has_long_left_is_not_told_as_mistyped() -> None:
    model = started()
    active = kid(model, ACTIVE)
    model.annotate(COMPROMISED_ANNOTATION, active)
    model.wait(4 * TOKEN_LIFE + 1000)
    assert active not in phases(model)
    model.start_operator()
    model.touch()
    assert model.condition("WithdrawalIncomplete") == {}


def test_a_status_that_is_one_rotation_behind_still_names_the_whole_secret() -> None:
    model = started()
    shown = {kid(model, ACTIVE), kid(model, NEXT)}
    rotate(model)
    lay_there = private(model)
    model.annotate(COMPROMISED_ANNOTATION, ",".join(sorted(shown)))
    model.wait(2)
    row = model.row()
    assert row is not None
    assert shown | lay_there <= row.refused
    assert not private(model) & lay_there


def test_a_withdrawn_kid_is_remembered_when_its_key_has_long_left() -> None:
    model = started()
    active = kid(model, ACTIVE)
    model.annotate(COMPROMISED_ANNOTATION, active)
    model.annotate(COMPROMISED_ANNOTATION, None)
    model.wait(400)
    ring = model.ring()
    assert ring is not None
    assert active not in phases(model)
    assert active in ring.withdrawn
    row = model.row()
    assert row is not None
    assert active in row.refused
    shown = model.kube.objects[OBJECT]["status"]["keys"]
    assert {"kid": active, "state": "Compromised"} in shown


def test_a_withdrawal_does_not_wait_for_a_secret_that_cannot_be_used() -> None:
    model = started()
    active = kid(model, ACTIVE)
    model.kube.objects[SECRET]["data"]["keyring.json"] = "e30="
    for api in model.apis:
        api.mount_lags = True
    model.annotate(COMPROMISED_ANNOTATION, active)
    assert model.condition("Ready")["reason"] == "SecretInvalid"
    assert not any(model.accepted(api, active) for api in model.apis)


def test_while_paused_a_withdrawal_takes_effect_and_no_new_key_is_made() -> None:
    model = started()
    active, following = kid(model, ACTIVE), kid(model, NEXT)
    model.annotate(PAUSED_ANNOTATION, "true")
    model.annotate(COMPROMISED_ANNOTATION, active)
    assert signers(model) == [following, following]
    assert model.kid(NEXT) is None
    assert model.condition("Ready")["reason"] == "Paused"
    model.annotate(PAUSED_ANNOTATION, None)
    assert model.kid(NEXT) is not None


# Losses and restores


def test_a_deleted_secret_brings_new_keys_and_says_so() -> None:
    model = started()
    before = phases(model)
    del model.kube.objects[SECRET]
    model.touch()
    assert not before.keys() & phases(model).keys()
    assert not any(model.accepted(api, one) for api in model.apis for one in before)
    condition = model.condition("TokensInvalidated")
    assert (condition["status"], condition["reason"]) == ("True", "SigningKeysLost")
    assert "SigningKeysLost" in [one["reason"] for one in model.kube.events]
    assert all(signers(model))


def test_a_second_loss_has_an_event_of_its_own() -> None:
    model = started()
    for _ in range(2):
        del model.kube.objects[SECRET]
        model.touch()
        model.wait(5)
    told = [
        one for one in model.kube.events if one["reason"] == "SigningKeysLost" and "may be refused" in one["message"]
    ]
    assert len(told) == 2


def test_an_older_secret_is_not_signed_with() -> None:
    model = started()
    old = kid(model, ACTIVE)
    backup = model.secret_backup()
    newer = [rotate(model, "one"), rotate(model, "two")]
    assert backup is not None
    model.restore_secret(backup)
    model.wait(2)
    found = phases(model)
    assert {found[one] for one in (old, *newer)} == {RETIRED}
    assert all(model.accepted(api, one) for api in model.apis for one in (old, *newer))
    assert signers(model) == [kid(model, ACTIVE)] * 2
    assert model.condition("SecretRestored")["reason"] == "OlderSecret"
    assert private(model) == {kid(model, ACTIVE), kid(model, NEXT)}


def test_an_older_secret_asks_for_no_rotation_by_its_older_note() -> None:
    model = started()
    rotate(model, "one")
    backup = model.secret_backup()
    rotate(model, "two")
    assert backup is not None
    model.restore_secret(backup)
    active = kid(model, ACTIVE)
    model.wait(60)
    assert kid(model, ACTIVE) == active


def test_a_secret_that_is_only_a_little_older_interrupts_nothing() -> None:
    model = started()
    model.wait(20)
    model.apis[1].lags = True
    model.annotate(ROTATE_ANNOTATION, "now")
    backup = model.secret_backup()
    model.apis[1].lags = False
    model.wait(3)
    active = kid(model, ACTIVE)
    assert backup is not None
    model.restore_secret(backup)
    model.wait(2)
    assert kid(model, ACTIVE) == active


def test_a_withdrawn_key_comes_back_with_no_backup() -> None:
    model = started()
    active = kid(model, ACTIVE)
    secret, store = model.secret_backup(), model.store.backup()
    assert secret is not None
    model.annotate(COMPROMISED_ANNOTATION, active)
    model.annotate(COMPROMISED_ANNOTATION, None)
    model.wait(2)
    for what in ("the Secret", "the store", "both", "the Secret, with an empty store"):
        if "empty" in what:
            model.store.lose_everything()
        elif what != "the Secret":
            model.store.restore(store)
        if what != "the store":
            model.restore_secret(secret)
        model.touch()
        model.wait(2)
        for api in model.apis:
            api.restart()
        model.touch()
        model.wait(2)
        row = model.row()
        assert row is not None
        assert active in row.refused
        assert active not in private(model)
        assert not any(model.accepted(api, active) for api in model.apis)
        assert all(signers(model))


@pytest.mark.parametrize("alive", [True, False], ids=["beside the operator", "while no operator runs"])
@pytest.mark.parametrize("only_active", [True, False], ids=["its active key", "all its keys"])
def test_a_withdrawn_key_comes_back_with_no_restored_object(only_active: bool, alive: bool) -> None:
    model = started()
    active, following = kid(model, ACTIVE), kid(model, NEXT)
    withdrawn = {active} if only_active else {active, following}
    secret = model.secret_backup()
    model.annotate(COMPROMISED_ANNOTATION, ",".join(sorted(withdrawn)))
    model.wait(2)
    for _ in range(2):
        # What is restored of one that was restored knows no more.
        model.alive = alive
        model.remake_object(secret)
        for api in model.apis:
            api.restart()
        if not alive:
            model.start_operator()
        model.touch()
        model.wait(2)
        row = model.row()
        assert row is not None
        assert withdrawn <= row.refused
        assert not withdrawn & private(model)
        assert not any(model.accepted(api, one) for api in model.apis for one in withdrawn)
        assert all(signers(model))
        assert model.condition("SecretRestored")["reason"] == "OlderSecret"


def test_a_restored_object_signs_with_no_key_that_was_retired_since() -> None:
    model = started()
    secret, old = model.secret_backup(), kid(model, ACTIVE)
    active = rotate(model)
    model.remake_object(secret)
    model.wait(2)
    assert phases(model)[old] is RETIRED
    assert old not in signers(model)
    assert model.condition("SecretRestored")["status"] == "True"
    assert set(signers(model)) == {active}


def test_a_restored_object_goes_on_with_the_secret_that_is_there() -> None:
    model = started()
    before = phases(model)
    model.remake_object(None)
    model.wait(2)
    assert phases(model) == before
    assert model.condition("SecretRestored") == {}
    assert model.condition("TokensInvalidated") == {}


def test_an_object_made_anew_without_its_secret_begins_anew_and_takes_no_withdrawn_kid() -> None:
    model = started()
    active = kid(model, ACTIVE)
    model.annotate(COMPROMISED_ANNOTATION, active)
    model.wait(2)
    serial = model.row()
    del model.kube.objects[SECRET]
    model.remake_object(None)
    model.wait(2)
    ring, row = model.ring(), model.row()
    assert ring is not None
    assert row is not None
    assert serial is not None
    assert active in row.refused
    assert ring.serial > serial.serial
    assert model.condition("TokensInvalidated") == {}
    assert all(signers(model))


def test_a_damaged_row_lets_no_withdrawn_key_back() -> None:
    model = started()
    active = kid(model, ACTIVE)
    secret = model.secret_backup()
    model.annotate(COMPROMISED_ANNOTATION, active)
    model.wait(2)
    place = (Kind.SIGNING_KEY, NAMESPACE, "keyturn")
    body = orjson.loads(model.store._last_states[place])
    model.store._last_states[place] = orjson.dumps({**body, "serial": "none"}).decode()
    model.remake_object(secret)
    model.wait(2)
    assert active not in private(model)
    assert active not in signers(model)


def test_with_store_and_secret_lost_the_status_still_tells_what_was_withdrawn() -> None:
    model = started()
    active = kid(model, ACTIVE)
    model.annotate(COMPROMISED_ANNOTATION, active)
    model.annotate(COMPROMISED_ANNOTATION, None)
    model.store.lose_everything()
    del model.kube.objects[SECRET]
    model.touch()
    model.wait(2)
    row = model.row()
    assert row is not None
    assert active in row.refused
    assert {"kid": active, "state": "Compromised"} in model.kube.objects[OBJECT]["status"]["keys"]
    assert all(signers(model))


def test_with_store_and_secret_restored_the_status_knows_that_there_were_newer_keys() -> None:
    model = started()
    old = kid(model, ACTIVE)
    secret, store = model.secret_backup(), model.store.backup()
    assert secret is not None
    rotate(model, "one")
    rotate(model, "two")
    model.store.restore(store)
    model.restore_secret(secret)
    model.wait(2)
    assert phases(model)[old] is RETIRED
    assert signers(model) == [kid(model, ACTIVE)] * 2
    assert model.condition("SecretRestored")["status"] == "True"
    assert model.condition("TokensInvalidated")["reason"] == "SigningKeysLost"


def test_a_lost_store_is_rebuilt_from_the_secret() -> None:
    model = started()
    rotate(model)
    before, row = phases(model), model.row()
    model.store.lose_everything()
    model.touch()
    model.wait(2)
    assert phases(model) == before
    after = model.row()
    assert row is not None
    assert after is not None
    assert [key.kid for key in after.keys] == [key.kid for key in row.keys]
    assert model.condition("SecretRestored") == {}


def test_an_older_store_gives_way_to_the_secret() -> None:
    model = started()
    store = model.store.backup()
    newer = rotate(model, "one")
    rotate(model, "two")
    before = phases(model)
    model.store.restore(store)
    model.touch()
    model.wait(2)
    assert phases(model) == before
    assert all(model.accepted(api, newer) for api in model.apis)
    assert model.condition("SecretRestored") == {}


def test_while_paused_an_older_secret_stays_for_whoever_restores_it() -> None:
    model = started()
    backup = model.secret_backup()
    newer = rotate(model)
    model.annotate(PAUSED_ANNOTATION, "true")
    assert backup is not None
    model.restore_secret(backup)
    assert model.condition("Ready")["reason"] == "Paused"
    assert model.kube.objects[SECRET]["data"] == backup["data"]
    assert all(model.accepted(api, newer) for api in model.apis)
    assert signers(model) == [newer, newer], "a replica keeps the newer keys that it has loaded"


def test_when_the_operator_dies_amid_a_withdrawal_the_next_key_signs_all_the_same() -> None:
    model = started()
    active, following = kid(model, ACTIVE), kid(model, NEXT)
    model.fuse.left = 1
    model.annotate(COMPROMISED_ANNOTATION, active)
    assert not model.alive
    model.wait(5)
    assert signers(model) == [following, following]
    assert not any(model.accepted(api, active) for api in model.apis)
