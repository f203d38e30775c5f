"""Access tokens: their form, and what the current state leaves of them."""

from typing import Any

import pytest

from keyturn.tokens import refusal
from keyturn.tokens.access import AccessToken, Effective, effective, read_access_token
from keyturn.tokens.assertion import token_hash
from keyturn.tokens.refusal import TokenRefused
from tests.sample_keys import sample_key
from tests.unit.tokens.worlds import CLIENT_ID, ISSUER, MISSING, NOW, SIGNING, World, changed, encode

BASE = {
    "iss": ISSUER,
    "sub": CLIENT_ID,
    "client_id": CLIENT_ID,
    "aud": ["orders", "stock"],
    "iat": NOW - 60,
    "exp": NOW + 600,
    "jti": "token-1",
    "permissions": ["orders:read", "orders:write"],
}


def token(header: dict[str, Any] | None = None, **changes: Any) -> bytes:
    whole = changed({"alg": "RS256", "kid": SIGNING.kid, "typ": "at+jwt"}, header or {})
    return encode(SIGNING, whole, changed(BASE, changes))


def read(raw: bytes, world: World | None = None) -> AccessToken:
    return read_access_token(raw, world=world or World(), issuer=ISSUER, now=NOW)


def worth(world: World, *, accepted: frozenset[str] = frozenset(), now: float = NOW, **changes: Any) -> Effective:
    parsed = read(token(**changes), World())
    return effective(parsed, world=world, issuer=ISSUER, accepted=accepted, now=now, clock_skew=10)


def test_a_token_of_ours_is_worth_what_it_says_while_nothing_has_changed() -> None:
    assert worth(World()) == Effective(("orders:read", "orders:write"), ("orders", "stock"), NOW + 600)


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT", "JWT"])
def test_both_types_of_access_tokens_are_read(typ: str) -> None:
    assert read(token({"typ": typ})).client_id == CLIENT_ID


@pytest.mark.parametrize(
    ("header", "changes", "reason"),
    [
        pytest.param({"kid": "unknown"}, {}, refusal.UNKNOWN_KEY, id="an unknown kid"),
        pytest.param({"kid": MISSING}, {}, refusal.UNKNOWN_KEY, id="no kid"),
        pytest.param({"alg": "PS256"}, {}, refusal.WRONG_ALGORITHM, id="another algorithm than the key's"),
        pytest.param({"alg": "none"}, {}, refusal.MALFORMED, id="alg none"),
        pytest.param({"typ": MISSING}, {}, refusal.WRONG_TYPE, id="no typ"),
        pytest.param({"typ": "logout+jwt"}, {}, refusal.WRONG_TYPE, id="another typ"),
        pytest.param({}, {"iss": "https://other.example"}, refusal.WRONG_ISSUER, id="another issuer"),
        pytest.param({}, {"jti": MISSING}, refusal.INVALID_CLAIM, id="no jti"),
        pytest.param({}, {"exp": MISSING}, refusal.INVALID_CLAIM, id="no exp"),
        pytest.param({}, {"iat": MISSING}, refusal.INVALID_CLAIM, id="no iat"),
        pytest.param({}, {"aud": MISSING}, refusal.INVALID_CLAIM, id="no aud"),
        pytest.param({}, {"sub": "other"}, refusal.INVALID_CLAIM, id="sub is not the client"),
        pytest.param({}, {"permissions": [1]}, refusal.INVALID_CLAIM, id="permissions that are no strings"),
    ],
)
def test_a_token_of_a_wrong_form_is_refused(header: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokenRefused) as caught:
        read(token(header, **changes))
    assert caught.value.reason == reason


def test_a_token_signed_by_another_key_under_our_kid_is_refused() -> None:
    forged = encode(sample_key(number=9), {"alg": "RS256", "kid": SIGNING.kid, "typ": "at+jwt"}, BASE)
    with pytest.raises(TokenRefused) as caught:
        read(forged)
    assert caught.value.reason == refusal.BAD_SIGNATURE


def _world(**changes: Any) -> World:
    world = World()
    world.change_client(**changes)
    return world


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        pytest.param(World(clients={}), refusal.UNKNOWN_CLIENT, id="the client is gone"),
        pytest.param(_world(suspended=True), refusal.CLIENT_SUSPENDED, id="the client is suspended"),
        pytest.param(_world(expires_at=NOW), refusal.CLIENT_EXPIRED, id="the client's end has come"),
        pytest.param(_world(created_at=NOW - 59), refusal.REVOKED, id="the client was made anew since"),
        pytest.param(_world(revoke_before=NOW - 59), refusal.REVOKED, id="the client's older tokens are revoked"),
        pytest.param(World(revoke_before=NOW - 59), refusal.REVOKED, id="the installation's older tokens are revoked"),
        pytest.param(
            World(revoked={token_hash(CLIENT_ID, "token-1").hex()}), refusal.REVOKED, id="this token is revoked"
        ),
        pytest.param(World(keys={}), refusal.UNKNOWN_KEY, id="its key was withdrawn"),
        pytest.param(
            World(keys={SIGNING.kid: sample_key(number=9).public}), refusal.UNKNOWN_KEY, id="its kid is another key now"
        ),
        pytest.param(_world(audiences=("billing",)), refusal.WRONG_AUDIENCE, id="no audience of it is left"),
    ],
)
def test_what_happened_since_it_was_issued_counts(world: World, reason: str) -> None:
    with pytest.raises(TokenRefused) as caught:
        worth(world)
    assert caught.value.reason == reason


def test_a_token_of_an_imported_key_may_be_older_than_its_client() -> None:
    world = _world(created_at=NOW - 59)
    world.imported = {SIGNING.kid}
    assert worth(world).permissions
    world.imported = {"another"}
    with pytest.raises(TokenRefused):
        worth(world)


def test_permissions_and_audiences_that_were_taken_away_are_gone_from_it() -> None:
    world = _world(permissions=("orders:read", "new:one"), audiences=("stock",))
    assert worth(world) == Effective(("orders:read",), ("stock",), NOW + 600)


def test_an_audience_that_is_not_accepted_here_is_refused() -> None:
    assert worth(World(), accepted=frozenset({"stock"})).audiences == ("orders", "stock")
    with pytest.raises(TokenRefused) as caught:
        worth(World(), accepted=frozenset({"billing"}))
    assert caught.value.reason == refusal.WRONG_AUDIENCE


@pytest.mark.parametrize("now", [NOW + 600, NOW + 601])
def test_an_expired_token_is_refused_to_the_second(now: float) -> None:
    with pytest.raises(TokenRefused) as caught:
        worth(World(), now=now)
    assert caught.value.reason == refusal.EXPIRED


def test_a_token_from_the_future_is_refused() -> None:
    with pytest.raises(TokenRefused) as caught:
        worth(World(), iat=NOW + 11)
    assert caught.value.reason == refusal.NOT_YET_VALID


@pytest.mark.parametrize(
    ("world", "until"),
    [
        pytest.param(_world(expires_at=NOW + 30), NOW + 30, id="the client's end"),
        pytest.param(World(removed_at=NOW + 20), NOW + 20, id="the key's removal"),
        pytest.param(World(), NOW + 600, id="the token's own end"),
    ],
)
def test_its_worth_holds_until_the_first_moment_that_ends_it(world: World, until: float) -> None:
    assert worth(world).valid_until == until
