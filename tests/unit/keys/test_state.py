import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from keyturn.keys.state import InvalidState, KeyPhase, RingKey, SigningKeyState, refused_kids
from tests.unit.keys.rings import NOW, sample_ring

STATE = SigningKeyState(
    (
        *sample_ring().keys,
        replace(sample_ring(first=2).keys[0], phase=KeyPhase.RETIRED, retired_at=NOW + 1, remove_at=NOW + 2),
        replace(sample_ring(first=2).keys[1], phase=KeyPhase.COMPROMISED),
    ),
    revoke_before=NOW - 5,
)


def body() -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(STATE.to_body()))
    return copied


def test_a_state_survives_json() -> None:
    assert SigningKeyState.from_body(body()) == STATE
    without = replace(STATE, revoke_before=None)
    assert SigningKeyState.from_body(json.loads(json.dumps(without.to_body()))) == without


def test_members_that_a_newer_program_wrote_are_ignored() -> None:
    changed = body()
    changed["later"] = 1
    changed["keys"][0]["later"] = 1
    assert SigningKeyState.from_body(changed) == STATE


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        pytest.param({}, {"k1"}, id="a sound one"),
        pytest.param({"serial": "x", "revokeBefore": []}, {"k1"}, id="one that cannot be read"),
        pytest.param({"withdrawn": "k1"}, set(), id="withdrawn as a text"),
        pytest.param({"withdrawn": ["k1", 5, "", "k" * 10_000]}, {"k1"}, id="entries that are no kids"),
    ],
)
def test_what_was_withdrawn_is_read_from_any_body(damage: dict[str, Any], named: set[str]) -> None:
    given = {**body(), "withdrawn": ["k1"], **damage}
    marked = STATE.keys[-1].kid
    assert refused_kids(given) == named | {marked}
    assert refused_kids({**given, "keys": [1, {}, {"phase": "Compromised"}]}) == named
    assert refused_kids({**given, "keys": None}) == named


def test_a_body_holds_public_material_only() -> None:
    for key in body()["keys"]:
        assert set(key["jwk"]) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def change(member: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["keys"][0].__setitem__(member, value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda body: body.pop("keys"), "keys is not a list", id="no keys"),
        pytest.param(lambda body: body.__setitem__("keys", {}), "keys is not a list", id="keys as an object"),
        pytest.param(lambda body: body["keys"].append(1), "not an object", id="a key that is no object"),
        pytest.param(lambda body: body["keys"].append(body["keys"][0]), "stands twice", id="a kid twice"),
        pytest.param(lambda body: body["keys"][0].pop("jwk"), "has no jwk", id="no jwk"),
        pytest.param(lambda body: body["keys"][0].pop("phase"), "has no phase", id="no phase"),
        pytest.param(lambda body: body["keys"][0].pop("kid"), "do not match", id="no kid"),
        pytest.param(lambda body: body["keys"][0]["jwk"].pop("x"), "jwk.x", id="a damaged jwk"),
        pytest.param(lambda body: body["keys"][0]["jwk"].__setitem__("d", "AA"), "private key", id="a private jwk"),
        pytest.param(change("phase", "Hidden"), "phase is not", id="an unknown phase"),
        pytest.param(change("phase", ["Next"]), "phase is not", id="a phase that is a list"),
        pytest.param(change("algorithm", "RS256"), "do not match", id="another algorithm than the key's"),
        pytest.param(change("size", 4096), "do not match", id="another size than the key's"),
        pytest.param(change("createdAt", None), "createdAt", id="no time of creation"),
        pytest.param(change("publishedAt", "2026-01-01"), "publishedAt", id="a time as a text"),
        pytest.param(change("activatedAt", True), "activatedAt", id="a time that is a truth value"),
        pytest.param(change("retiredAt", -1), "retiredAt", id="a time before the epoch"),
        pytest.param(change("removeAt", 10**400), "removeAt", id="a time without end"),
        pytest.param(change("removeAt", float("nan")), "removeAt", id="a time that is no number"),
        pytest.param(lambda body: body.__setitem__("revokeBefore", "now"), "revokeBefore", id="revokeBefore as a text"),
    ],
)
def test_a_damaged_body_is_refused_naming_the_member(damage: Callable[[dict[str, Any]], None], words: str) -> None:
    damaged = body()
    damage(damaged)
    with pytest.raises(InvalidState, match=words):
        SigningKeyState.from_body(damaged)


def test_a_key_can_stand_in_a_set_and_shows_no_jwk() -> None:
    key: RingKey = STATE.keys[0]
    assert len({key, replace(key)}) == 1
    assert "jwk" not in repr(key)
