"""Whatever is issued is read again, and passes the servers on its way; what would be too long is refused and says what to do."""

from typing import Any

import pytest

from keyturn.clients.state import ClientState
from keyturn.jose.jws import MAX_TOKEN_BYTES
from keyturn.jose.signing import TokenSigner
from keyturn.snapshot import Client
from keyturn.tokens.access import read_access_token
from keyturn.tokens.claims import MAX_CLAIMS_BYTES, encode_access_claims, everything_fits, grant, issued_at
from keyturn.tokens.refusal import TokenRefused
from tests.unit.tokens.worlds import CLIENT_ID, ISSUER, NOW, SIGNING, World, client_state

JTI = "j" * 22
# `Authorization: Bearer ` and the line's end, in one of nginx's buffers.
HEADER = len("Authorization: Bearer \r\n")
BUFFER = 8192


def claims(client: ClientState, *, scope: str | None = None, **assertion: Any) -> bytes:
    granted = grant(client, audiences=(), scope=scope, issuer=ISSUER)
    return encode_access_claims(
        client=client,
        granted=granted,
        issuer=ISSUER,
        jti=JTI,
        now=int(NOW),
        lifetime=900,
        assertion_claims=assertion,
    )


def permissions(count: int, length: int = 26) -> tuple[str, ...]:
    return tuple(f"{number:0{length}}" for number in range(count))


def longest() -> tuple[str, ...]:
    """As many permissions as one token holds."""
    count = 1
    while everything_fits(client_state(permissions=permissions(count + 1)), issuer=ISSUER):
        count += 1
    return permissions(count)


def encoded_length(claims_length: int, signature_length: int, kid_length: int) -> int:
    header = len('{"alg":"RS256","typ":"at+jwt","kid":""}') + kid_length
    return sum(-(-length * 4 // 3) for length in (header, claims_length, signature_length)) + 2


@pytest.mark.parametrize(
    ("bits", "kid", "room"),
    [
        # What Tomcat and Jetty have for all headers together: an eighth of it is left to the others.
        pytest.param(4096, 43, 7 * 1024 - HEADER, id="the largest key that is made here, with its thumbprint as kid"),
        pytest.param(8192, 256, BUFFER - HEADER, id="the largest key and the longest kid that can be imported"),
    ],
)
def test_the_longest_token_fits_into_one_header_of_common_servers(bits: int, kid: int, room: int) -> None:
    longest_token = encoded_length(MAX_CLAIMS_BYTES, bits // 8, kid)
    assert longest_token <= min(room, MAX_TOKEN_BYTES)


def test_a_client_with_as_much_as_a_token_holds_gets_one_that_is_read_again() -> None:
    client = client_state(permissions=longest())
    token = TokenSigner(SIGNING, typ="at+jwt").encode(claims(client))
    assert len(token) == encoded_length(len(claims(client)), 256, len(SIGNING.kid))
    world = World(clients={CLIENT_ID: Client("uid-1", client)})
    assert read_access_token(token, world=world, issuer=ISSUER, now=NOW).permissions == client.permissions


@pytest.mark.parametrize(
    ("changes", "scope", "assertion", "code", "named"),
    [
        pytest.param({"permissions": permissions(512, 20)}, None, {}, "invalid_scope", "scope", id="permissions"),
        pytest.param(
            {"permissions": permissions(512, 20)},
            " ".join(permissions(200, 20)),
            {},
            "invalid_scope",
            "scope",
            id="a part of them that is too large still",
        ),
        pytest.param(
            {"audiences": tuple(f"{number:0256}" for number in range(16)), "permissions": permissions(64, 160)},
            None,
            {},
            "invalid_scope",
            "scope",
            id="permissions beside audiences",
        ),
        pytest.param(
            {"audiences": tuple(f"{number:0{290}}" for number in range(16))},
            None,
            {},
            "invalid_target",
            "audiences",
            id="audiences",
        ),
        pytest.param(
            {"allowed_custom_claims": ("tenant",)},
            None,
            {"tenant": "t" * 4600},
            "invalid_request",
            "claims",
            id="a claim of the assertion",
        ),
    ],
)
def test_what_is_too_long_for_a_token_is_refused_by_the_code_of_what_can_be_made_shorter(
    changes: dict[str, Any], scope: str | None, assertion: dict[str, Any], code: str, named: str
) -> None:
    with pytest.raises(TokenRefused) as caught:
        claims(client_state(**changes), scope=scope, **assertion)
    assert caught.value.reason == code
    assert named in caught.value.description


def test_a_part_named_in_scope_fits() -> None:
    client = client_state(permissions=permissions(512, 20))
    assert len(claims(client, scope=" ".join(permissions(80, 20)))) <= MAX_CLAIMS_BYTES


def test_whether_everything_fits_is_told_to_the_byte() -> None:
    held = longest()
    assert everything_fits(client_state(permissions=held), issuer=ISSUER)
    claims(client_state(permissions=held))
    # Each character stands twice: in `permissions` and in `scope`.
    room = MAX_CLAIMS_BYTES - len(claims(client_state(permissions=held)))
    grown = (*held[:-1], held[-1] + "x" * (room // 2))
    claims(client_state(permissions=grown))
    assert everything_fits(client_state(permissions=grown), issuer=ISSUER)
    over = (*held[:-1], held[-1] + "x" * (room // 2 + 1))
    assert not everything_fits(client_state(permissions=over), issuer=ISSUER)
    with pytest.raises(TokenRefused):
        claims(client_state(permissions=over))


@pytest.mark.parametrize(
    ("born", "skew", "expected"),
    [
        pytest.param(-1000.0, 10, 0, id="a client from long ago"),
        pytest.param(0.0, 10, 0, id="born in this second"),
        pytest.param(2.0, 10, 2, id="the API server's clock is ahead of ours"),
        pytest.param(2.5, 10, 3, id="a birth within a second"),
        pytest.param(11.0, 10, 0, id="further ahead than clocks may be"),
        pytest.param(2.0, 0, 0, id="no difference of clocks is allowed for"),
    ],
)
def test_no_token_is_older_than_its_client_by_a_clock_that_is_behind(born: float, skew: float, expected: int) -> None:
    client = client_state(created_at=NOW + born)
    assert issued_at(client, now=NOW + 0.3, clock_skew=skew) == NOW + expected
