"""Registered clients: what an object and its Secret tell, and that neither grants anything."""

import dataclasses
from typing import Any

import pytest

from keyturn import reasons
from keyturn.clients.parse import parse_client
from keyturn.clients.registration import SECRET_TYPE, Registration, names_secret, read_registration
from keyturn.clients.registration_secret import held_registration, kept_registration, secret_of, with_registration
from keyturn.clients.state import CLIENT_SECRET_BASIC, ClientState, SecretHash
from keyturn.problems import Problem
from keyturn.secrets import hash_generated, hash_secret, is_generated_hash

SPEC: dict[str, Any] = {
    "clientName": "Shop",
    "contacts": ["a@shop.example"],
    "authMethod": CLIENT_SECRET_BASIC,
    "registration": {
        "secretName": "r-1-a",
        "clientUri": "https://shop.example/",
        "softwareId": "shop",
        "softwareVersion": "2",
        "requested": {"permissions": ["orders:read"], "audiences": ["orders"]},
    },
}
LABELS = {"keyturn.dev/approval": "pending", "other": "x"}
SECRET_HASH, TOKEN_HASH = hash_generated(b"secret"), hash_generated(b"token")
DATA = {"client_secret_hash": SECRET_HASH.encode(), "registration_token_hash": TOKEN_HASH.encode()}
REGISTRATION = Registration(
    secret_name="r-1-a",
    approval="pending",
    described={
        "client_name": "Shop",
        "contacts": ["a@shop.example"],
        "client_uri": "https://shop.example/",
        "software_id": "shop",
        "software_version": "2",
    },
    asked_permissions=("orders:read",),
    asked_audiences=("orders",),
)
STATE = ClientState("team.r-1", 1000.0, auth_method=CLIENT_SECRET_BASIC)


def given(
    state: ClientState = STATE,
    *,
    kind: str | None = SECRET_TYPE,
    data: dict[str, bytes] | None = DATA,
    last: ClientState | None = None,
    valid: bool = True,
    own_secret: bool = True,
) -> tuple[ClientState, list[Problem]]:
    return with_registration(
        state, REGISTRATION, kind=kind, data=data, origin="r-1-a/u/1", last=last, valid=valid, own_secret=own_secret
    )


def test_a_registration_is_read_from_spec_and_labels() -> None:
    assert read_registration(SPEC, LABELS) == REGISTRATION


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, None, id="an object that nobody registered"),
        pytest.param({"registration": "x"}, None, id="no object"),
        pytest.param({"registration": {}}, Registration(), id="nothing told"),
        pytest.param({"registration": {"secretName": 1, "requested": []}}, Registration(), id="of other kinds"),
        pytest.param(
            {"registration": {"requested": {"permissions": ["a", 1], "audiences": "b"}}},
            Registration(asked_permissions=("a",)),
            id="in part of other kinds",
        ),
    ],
)
def test_what_cannot_be_read_of_a_registration_is_not_there(
    spec: dict[str, Any], expected: Registration | None
) -> None:
    assert read_registration(spec, {}) == expected


def test_a_state_with_a_registration_is_read_back_from_its_row() -> None:
    state, _ = given()
    assert ClientState.from_body(state.to_body()) == state


def test_rows_of_other_clients_are_as_an_older_version_wrote_them() -> None:
    assert "registration" not in STATE.to_body()
    assert ClientState.from_body(STATE.to_body()) == STATE


def test_a_registered_client_needs_no_secret_of_the_usual_kind() -> None:
    state, problems = parse_client(SPEC, namespace="team", name="r-1", created_at=1.0, last=None)
    assert problems == []
    assert state is not None
    assert (state.permissions, state.audiences, state.secrets) == ((), (), ())
    assert names_secret(SPEC)


def test_an_unknown_member_of_the_registration_is_named() -> None:
    spec = {**SPEC, "registration": {**SPEC["registration"], "newer": 1}}
    _, problems = parse_client(spec, namespace="team", name="r-1", created_at=1.0, last=None)
    assert [(one.reason, one.field) for one in problems] == [(reasons.UNSUPPORTED_FIELD, "spec.registration.newer")]


def test_the_secret_gives_both_hashes() -> None:
    state, problems = given()
    assert problems == []
    assert state.secrets == (SecretHash(SECRET_HASH, None, "r-1-a/u/1"),)
    assert state.registration == dataclasses.replace(REGISTRATION, token_hash=TOKEN_HASH)


def test_no_hash_is_in_the_repr() -> None:
    state, _ = given()
    assert SECRET_HASH not in repr(state)
    assert TOKEN_HASH not in repr(state)


def test_a_client_with_keys_takes_the_tokens_hash_alone() -> None:
    state, problems = given(ClientState("team.r-1", 1000.0))
    assert (state.secrets, problems) == ((), [])
    assert state.registration is not None
    assert state.registration.token_hash == TOKEN_HASH


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        pytest.param({"data": None}, reasons.SECRET_NOT_FOUND, id="no such Secret"),
        pytest.param({"kind": "Opaque"}, reasons.SECRET_INVALID, id="a Secret of another type"),
        pytest.param({"data": {}}, reasons.SECRET_INVALID, id="an empty Secret"),
        pytest.param({"data": {"client_secret_hash": b"plain"}}, reasons.SECRET_INVALID, id="a plain secret"),
        pytest.param(
            {"data": {"client_secret_hash": hash_secret(b"x", 4).encode()}}, reasons.SECRET_INVALID, id="a slow hash"
        ),
        pytest.param({"data": {"client_secret_hash": b"\xff"}}, reasons.SECRET_INVALID, id="no text"),
    ],
)
def test_anything_else_in_its_place_gives_nothing(secret: dict[str, Any], reason: str) -> None:
    state, problems = given(**secret)
    assert state.secrets == ()
    assert [(one.reason, one.field) for one in problems] == [(reason, "spec.registration.secretName")]


def test_another_secret_named_in_an_invalid_edit_adds_no_credential() -> None:
    before, _ = given()
    assert given(valid=False)[0].secrets == ()
    assert given(valid=False, last=before)[0].secrets == before.secrets


def test_a_secret_of_the_usual_kind_goes_before() -> None:
    state, problems = given(own_secret=False, data={"registration_token_hash": TOKEN_HASH.encode()})
    assert (state.secrets, problems) == ((), [])


def test_while_the_secret_cannot_be_read_what_was_in_force_counts_on() -> None:
    before, _ = given()
    kept = kept_registration(STATE, REGISTRATION, before)
    assert (kept.secrets, kept.registration) == (before.secrets, before.registration)
    other = dataclasses.replace(REGISTRATION, secret_name="r-1-b")
    assert kept_registration(STATE, other, before) == dataclasses.replace(STATE, registration=other)
    assert kept_registration(STATE, REGISTRATION, None).secrets == ()


def test_a_paused_client_keeps_its_secret_and_takes_no_other() -> None:
    before, _ = given()
    other = SecretHash(hash_generated(b"other"), None, "p")
    wanted = dataclasses.replace(before, secrets=(other,))
    bare = dataclasses.replace(STATE, registration=None)
    assert held_registration(bare, before, before).secrets == before.secrets
    assert held_registration(bare, wanted, before).secrets == ()
    assert held_registration(bare, before, None).secrets == ()
    assert held_registration(bare, STATE, before) == bare


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("r-1", "r-1", id="a name"),
        pytest.param("../x", None, id="a path"),
        pytest.param(None, None, id="none"),
    ],
)
def test_only_a_name_is_looked_for(name: str | None, expected: str | None) -> None:
    assert secret_of(Registration(secret_name=name)) == expected
    assert secret_of(None) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(SECRET_HASH, True, id="a hash"),
        pytest.param(SECRET_HASH.removeprefix("$keyturn-sha256$"), False, id="without its mark"),
        pytest.param(SECRET_HASH[:-8], False, id="cut"),
        pytest.param("$keyturn-sha256$$", False, id="empty"),
        pytest.param("$keyturn-sha256$AAAA", False, id="half"),
        pytest.param("", False, id="nothing"),
        pytest.param("$keyturn-sha256$\u00e4$\u00e4", False, id="no ASCII"),
    ],
)
def test_a_generated_hash_is_told_from_anything_else(text: str, *, expected: bool) -> None:
    assert is_generated_hash(text) is expected
