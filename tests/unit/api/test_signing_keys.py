"""Which key a replica signs with, and what it publishes: rotations, withdrawals and older mounts as one replica meets them."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from keyturn.jose.keys import PublicKey
from keyturn.keys.plan import Fleet, decide, ensure, with_generated, withdraw
from keyturn.keys.ring import KeyRing
from keyturn.keys.schedule import MAX_JWKS_AGE, Ceilings, Policy
from keyturn.keys.state import Ceiling, KeyPhase, SigningKeyState
from keyturn.records import Kind
from keyturn.tokens.refusal import TokenRefused
from keyturn_api.http import Response
from keyturn_api.metadata import Jwks
from keyturn_api.signing_keys import SigningKeys
from tests.sample_keys import sample_key
from tests.unit.api.worlds import RING, World, access_token, content, fields, metrics, scope
from tests.unit.tokens.worlds import NOW, SIGNING, encode

FIRST, SECOND = (key.kid for key in RING.keys)
POLICY = Policy("RS256", 2048, publish_before=10)
LIMITS = Ceilings(Ceiling(5), Ceiling(3600))
LATER = replace(RING, serial=10)


def rotated(ring: KeyRing) -> KeyRing:
    plan = decide(ring, POLICY, LIMITS, now=NOW, owner="uid", requested="now", fleet=Fleet(applied=True, loaded=None))
    assert plan.ring.owner == "uid"
    plan = decide(
        plan.ring, POLICY, LIMITS, now=NOW, owner="uid", requested="again", fleet=Fleet(applied=True, loaded=None)
    )
    assert plan.rotates
    return replace(with_generated(plan, {KeyPhase.NEXT: sample_key(number=5)}, now=NOW), serial=ring.serial + 1)


def store_says(world: World, ring: KeyRing, *, publish_before: float | None = None) -> None:
    state = ring.state()
    if publish_before is not None:
        state = replace(state, cache=Ceiling(publish_before // 2))
    world.change((Kind.SIGNING_KEY, "k1", state.to_body()))


def loaded(world: World, ring: KeyRing = LATER) -> SigningKeys:
    keys = SigningKeys(Path("/nowhere"), world.snapshot, typ="at+jwt")
    keys.use(ring)
    return keys


def signs(keys: SigningKeys) -> str | None:
    signer = keys.signer()
    return None if signer is None else signer.kid


def jwks(world: World, *headers: tuple[str, str]) -> Response:
    return Jwks(world.snapshot, metrics(), clock=lambda: NOW)(scope("GET", "/.well-known/jwks.json", *headers))


# Signing


def test_the_mount_alone_rotates_nothing_and_the_store_does() -> None:
    world = World()
    keys = loaded(world)
    keys.use(rotated(LATER))
    assert signs(keys) == FIRST, "the store still calls it Active"
    store_says(world, rotated(LATER))
    assert signs(keys) == SECOND


def test_a_replica_whose_mount_lags_signs_with_next_which_it_has_loaded_before() -> None:
    world = World()
    keys = loaded(world)
    store_says(world, rotated(LATER))
    assert signs(keys) == SECOND


def test_an_older_mount_takes_no_key_away() -> None:
    world = World()
    newer = rotated(LATER)
    keys = loaded(world, newer)
    store_says(world, newer)
    old = ensure(None, algorithm="RS256", size=2048, now=NOW - 900)
    backup = with_generated(
        old, {KeyPhase.ACTIVE: sample_key(number=7), KeyPhase.NEXT: sample_key(number=8)}, now=NOW - 900
    )
    keys.use(backup)
    assert signs(keys) == SECOND
    assert set(backup.private) < set(keys.loaded_kids)


def test_an_older_mount_still_withdraws() -> None:
    world = World()
    keys = loaded(world, rotated(LATER))
    keys.use(withdraw(RING, {FIRST, SECOND}))
    assert signs(keys) is None
    assert world.snapshot.published_keys(NOW) == []


def test_the_successor_signs_when_the_secret_has_withdrawn_the_active_key_before_the_store_says_so() -> None:
    world = World()
    keys = loaded(world)
    plan = ensure(LATER, algorithm="RS256", size=2048, now=NOW, compromised={FIRST})
    keys.use(replace(plan.ring, serial=11))
    assert signs(keys) == SECOND


def test_a_successor_that_is_not_published_never_signs() -> None:
    world = World()
    keys = loaded(world)
    plan = ensure(LATER, algorithm="RS256", size=2048, now=NOW, compromised={FIRST, SECOND})
    generated = {KeyPhase.ACTIVE: sample_key(number=5), KeyPhase.NEXT: sample_key(number=6)}
    keys.use(replace(with_generated(plan, generated, now=NOW), serial=11))
    assert signs(keys) is None


def test_kids_that_were_withdrawn_without_a_key_are_refused_when_one_comes() -> None:
    world = World()
    store_says(world, withdraw(RING, {"a-kid-of-before"}))
    assert world.snapshot.knows_kid("a-kid-of-before")
    store_says(world, replace(RING, withdrawn=(FIRST,)))
    assert world.snapshot.verification_key(FIRST, NOW) is None


# The JWKS


@pytest.mark.parametrize(
    ("publish_before", "max_age"),
    [
        pytest.param(None, MAX_JWKS_AGE, id="of a store that does not say"),
        pytest.param(600.0, MAX_JWKS_AGE, id="of a long lead time"),
        pytest.param(30.0, 15, id="half of the lead time"),
        pytest.param(3.0, 1, id="cut to whole seconds"),
        pytest.param(1.0, 0, id="of the shortest"),
    ],
)
def test_the_jwks_may_be_kept_for_half_of_the_lead_time(publish_before: float | None, max_age: int) -> None:
    world = World()
    store_says(world, RING, publish_before=publish_before)
    assert fields(jwks(world))["cache-control"] == f"public, max-age={max_age}"


def test_the_jwks_is_not_kept_past_a_key_s_removal() -> None:
    world = World()
    keys = tuple(
        replace(key, phase=KeyPhase.RETIRED, remove_at=NOW + 7.5) if key.kid == SECOND else key for key in RING.keys
    )
    store_says(world, replace(RING, keys=keys))
    assert fields(jwks(world))["cache-control"] == "public, max-age=7"


def test_without_a_key_that_signs_nobody_keeps_the_jwks() -> None:
    world = World()
    store_says(world, withdraw(RING, {FIRST, SECOND}))
    answer = jwks(world)
    assert fields(answer)["cache-control"] == "public, max-age=0"
    assert content(answer) == {"keys": []}


def test_whoever_has_the_jwks_already_is_told_that_it_still_holds() -> None:
    world = World()
    tag = fields(jwks(world))["etag"]
    for value in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = jwks(world, ("if-none-match", value))
        assert (answer.status, answer.body["body"]) == (304, b"")
        assert fields(answer)["etag"] == tag
    assert jwks(world, ("if-none-match", '"other"')).status == 200
    store_says(world, rotated(RING))
    assert jwks(world, ("if-none-match", tag)).status == 200


# Unknown keys


def test_a_flood_of_unknown_kids_costs_no_signature_and_keeps_nothing() -> None:
    world = World()
    tokens = world.tokens()
    tokens.verify(b"Bearer " + access_token(), NOW)
    with patch.object(PublicKey, "verify", side_effect=AssertionError("a signature was computed")):
        for number in range(500):
            header = {"alg": "RS256", "kid": f"unknown-{number}", "typ": "at+jwt"}
            forged = (
                encode(SIGNING, header, {"iss": "x"}) if number == 0 else b"%b.e30.AA" % _header(f"unknown-{number}")
            )
            with pytest.raises(TokenRefused) as caught:
                tokens.verify(b"Bearer " + forged, NOW)
            assert caught.value.reason == "unknown_key"
        assert len(tokens._cache) == 1


def _header(kid: str) -> bytes:
    return encode(SIGNING, {"alg": "RS256", "kid": kid, "typ": "at+jwt"}, b"{}").partition(b".")[0]


def test_a_state_that_an_older_program_wrote_is_read() -> None:
    body = SigningKeyState(RING.keys).to_body()
    for member in ("withdrawn", "serial", "cache", "tokens"):
        del body[member]
    state = SigningKeyState.from_body(body)
    assert (state.withdrawn, state.serial, state.cache, state.tokens) == ((), 0, None, None)
