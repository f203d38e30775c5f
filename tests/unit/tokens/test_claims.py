"""What a token may say."""

from typing import Any

import orjson
import pytest

from keyturn.clients.claims import RESERVED_CLAIMS
from keyturn.tokens.claims import Grant, encode_access_claims, grant, lifetime
from keyturn.tokens.refusal import TokenRefused
from tests.unit.tokens.worlds import ISSUER, NOW, client_state

BOTH = ("orders:read", "orders:write")


@pytest.mark.parametrize(
    ("held", "asked", "scope", "expected"),
    [
        pytest.param(("orders", "stock"), (), None, Grant(BOTH, ("orders", "stock")), id="nothing asked: everything"),
        pytest.param((), (), None, Grant(BOTH, (ISSUER,)), id="a client without audiences: the issuer"),
        pytest.param((), (ISSUER,), None, Grant(BOTH, (ISSUER,)), id="the issuer asked for by name"),
        pytest.param(("orders", "stock"), ("stock", "stock"), None, Grant(BOTH, ("stock",)), id="one audience"),
        pytest.param(
            ("orders",), (), "orders:read", Grant(("orders:read",), ("orders",), narrowed=True), id="scope narrows"
        ),
    ],
)
def test_a_token_carries_what_is_held_or_the_part_asked_for(
    held: tuple[str, ...], asked: tuple[str, ...], scope: str | None, expected: Grant
) -> None:
    assert grant(client_state(audiences=held), audiences=asked, scope=scope, issuer=ISSUER) == expected


@pytest.mark.parametrize(
    ("held", "asked", "scope", "code"),
    [
        pytest.param(("orders",), ("billing",), None, "invalid_target", id="an audience not held"),
        pytest.param(("orders",), ("orders", "billing"), None, "invalid_target", id="one held and one not"),
        pytest.param(("orders",), (ISSUER,), None, "invalid_target", id="the issuer, which the client has not"),
        pytest.param(("orders",), (), "admin", "invalid_scope", id="a permission not held"),
        pytest.param(("orders",), (), "orders:read  orders:write", "invalid_scope", id="two spaces between"),
        pytest.param(("orders",), (), "orders:read admin", "invalid_scope", id="one held and one not in scope"),
    ],
)
def test_what_the_client_does_not_hold_is_refused_by_the_standard_code(
    held: tuple[str, ...], asked: tuple[str, ...], scope: str | None, code: str
) -> None:
    with pytest.raises(TokenRefused) as caught:
        grant(client_state(audiences=held), audiences=asked, scope=scope, issuer=ISSUER)
    assert caught.value.reason == code


def encoded(assertion: dict[str, Any], **changes: Any) -> dict[str, Any]:
    client = client_state(**changes)
    body: dict[str, Any] = orjson.loads(
        encode_access_claims(
            client=client,
            granted=Grant(client.permissions, client.audiences),
            issuer=ISSUER,
            jti="j",
            now=int(NOW),
            lifetime=900,
            assertion_claims=assertion,
        )
    )
    return body


def test_every_claim_of_rfc_9068_is_there() -> None:
    assert encoded({}) == {
        "iss": ISSUER,
        "sub": "team.app",
        "client_id": "team.app",
        "aud": ["orders", "stock"],
        "iat": int(NOW),
        "exp": int(NOW) + 900,
        "jti": "j",
        "permissions": list(BOTH),
        "scope": "orders:read orders:write",
    }


def test_only_allowed_custom_claims_are_copied() -> None:
    claims = encoded({"tenant": {"id": 7}, "other": 1}, allowed_custom_claims=("tenant", "absent"))
    assert claims["tenant"] == {"id": 7}
    assert "other" not in claims
    assert "absent" not in claims


@pytest.mark.parametrize("name", sorted(RESERVED_CLAIMS))
def test_a_reserved_claim_is_never_copied_even_if_the_row_allows_it(name: str) -> None:
    claims = encoded({name: "forged"}, allowed_custom_claims=(name,))
    assert claims.get(name) != "forged"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param(None, 900, id="the default"),
        pytest.param(60, 60, id="its own"),
        pytest.param(9000, 3600, id="capped"),
    ],
)
def test_a_tokens_life_is_the_clients_capped_by_the_installation(own: int | None, expected: int) -> None:
    assert lifetime(client_state(token_lifetime=own), default=900, maximum=3600) == expected
