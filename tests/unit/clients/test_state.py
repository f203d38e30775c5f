"""The state as the store keeps it, and what time makes of it."""

import json
from typing import Any

import pytest

from keyturn.clients.state import ClientKey, ClientState, SecretHash
from tests.unit.clients.keys import jwk

KEY = ClientKey("one", "thumb", "EdDSA", 256, "publicKeys", jwk("one"), 1.0, 2.0)
STATE = ClientState(
    client_id="shop.billing",
    created_at=1.5,
    auth_method="private_key_jwt",
    keys=(KEY,),
    secrets=(SecretHash("hash", 3.0, "origin"),),
    permissions=("b", "a"),
    audiences=("orders",),
    allowed_custom_claims=("tenant",),
    token_lifetime=60,
    suspended=True,
    expires_at=4.0,
    revoke_before=5.0,
    introspection="any",
)


@pytest.mark.parametrize(
    "state", [pytest.param(STATE, id="every field"), pytest.param(ClientState("a", 0.0), id="the defaults")]
)
def test_a_state_is_read_back_from_json_as_it_was_written(state: ClientState) -> None:
    assert ClientState.from_body(json.loads(json.dumps(state.to_body()))) == state


@pytest.mark.parametrize("member", ["suspended", "expiresAt", "revokeBefore", "permissions", "audiences", "keys"])
def test_a_body_that_lacks_a_restriction_is_not_read_as_unrestricted(member: str) -> None:
    body: dict[str, Any] = STATE.to_body()
    del body[member]
    with pytest.raises(KeyError):
        ClientState.from_body(body)


@pytest.mark.parametrize(
    ("now", "current"),
    [
        pytest.param(0.9, False, id="before its time"),
        pytest.param(1.0, True, id="from notBefore on"),
        pytest.param(1.9, True, id="until notAfter"),
        pytest.param(2.0, False, id="no longer at notAfter"),
    ],
)
def test_a_key_counts_in_its_time(now: float, current: bool) -> None:
    assert KEY.is_current(now) is current


@pytest.mark.parametrize(
    ("suspended", "expires_at", "enabled"),
    [
        pytest.param(False, None, True, id="without an expiry"),
        pytest.param(False, 10.1, True, id="before its expiry"),
        pytest.param(False, 10.0, False, id="at its expiry"),
        pytest.param(True, None, False, id="suspended"),
    ],
)
def test_a_client_is_enabled_unless_suspended_or_expired(
    suspended: bool, expires_at: float | None, enabled: bool
) -> None:
    assert ClientState("a", 0.0, suspended=suspended, expires_at=expires_at).is_enabled(10.0) is enabled


@pytest.mark.parametrize(("now", "current"), [(2.9, True), (3.0, False)])
def test_a_secret_counts_until_its_end(now: float, current: bool) -> None:
    assert STATE.secrets[0].is_current(now) is current


def test_a_key_is_found_by_its_kid() -> None:
    assert STATE.key("one") is KEY
    assert STATE.key("two") is None
