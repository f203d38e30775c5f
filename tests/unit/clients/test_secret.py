"""The hash of a client's secret follows the Secret that the spec names, and its value is never shown."""

import bcrypt
import pytest

from keyturn import reasons
from keyturn.clients.secret import secret_origin, with_secret
from keyturn.clients.state import CLIENT_SECRET_BASIC, ClientState
from keyturn.problems import Problem
from keyturn.secrets import verify

COST = 4
VALUE = b"correct horse battery staple"
STATE = ClientState(client_id="shop.billing", created_at=0.0, auth_method=CLIENT_SECRET_BASIC, audiences=("orders",))


def origin(version: int, name: str = "billing") -> str:
    return secret_origin(name=name, uid="0-1", resource_version=f"{version}")


def fill(
    data: dict[str, bytes] | None,
    *,
    version: int = 1,
    last: ClientState | None = None,
    valid: bool = True,
    name: str = "billing",
    state: ClientState = STATE,
) -> tuple[ClientState, list[Problem]]:
    return with_secret(state, data, name=name, origin=origin(version, name), last=last, valid=valid, cost=COST)


def filled(value: bytes = VALUE, *, version: int = 1, last: ClientState | None = None) -> ClientState:
    state, problems = fill({"client_secret": value}, version=version, last=last)
    assert problems == []
    return state


def test_a_secret_is_kept_as_a_hash_that_it_verifies() -> None:
    (kept,) = filled().secrets
    assert verify(VALUE, kept.hash)
    assert kept.hash not in repr(kept)
    assert kept.origin == "billing/0-1/1"


def test_the_same_version_of_the_secret_changes_nothing() -> None:
    last = filled()
    assert filled(last=last) == last


def test_a_new_version_with_the_same_value_keeps_the_hash() -> None:
    last = filled()
    again = filled(version=2, last=last)
    assert again.secrets[0].hash == last.secrets[0].hash
    assert again.secrets[0].origin == "billing/0-1/2"


def test_an_edited_value_replaces_the_old_one() -> None:
    last = filled()
    edited = filled(b"another", version=2, last=last)
    assert [verify(b"another", kept.hash) for kept in edited.secrets] == [True]
    assert [verify(VALUE, kept.hash) for kept in edited.secrets] == [False]


def test_other_members_of_the_secret_are_left_alone() -> None:
    assert fill({"client_secret": VALUE, "client_id": b"x"})[1] == []


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        pytest.param(None, reasons.SECRET_NOT_FOUND, "no Secret billing", id="no such Secret"),
        pytest.param(
            {}, reasons.SECRET_INVALID, "expected the member client_secret, found: none", id="an empty Secret"
        ),
        pytest.param(
            {"password": b"hidden", "user": b"hidden"},
            reasons.SECRET_INVALID,
            "expected the member client_secret, found: password, user",
            id="another member",
        ),
        pytest.param(
            {f"member-{n:02}": b"hidden" for n in range(12)},
            reasons.SECRET_INVALID,
            "member-09, ...",
            id="many other members",
        ),
        pytest.param({"client_secret": b""}, reasons.SECRET_INVALID, "is empty", id="an empty value"),
        pytest.param(
            {"client_secret": b"hidden" * 13}, reasons.SECRET_INVALID, "at most 72", id="more than bcrypt reads"
        ),
        pytest.param(
            {"client_secret": b"hidden\n"}, reasons.SECRET_INVALID, "line break", id="a line break at the end"
        ),
        pytest.param({"client_secret": b"hid\0den"}, reasons.SECRET_INVALID, "control characters", id="a NUL"),
        pytest.param({"client_secret": b"hidden\xff"}, reasons.SECRET_INVALID, "not UTF-8", id="no text"),
    ],
)
def test_an_unusable_secret_grants_nothing_and_names_members_only(
    data: dict[str, bytes] | None, reason: str, said: str
) -> None:
    state, (problem,) = fill(data, last=filled(), version=2)
    assert state.secrets == ()
    assert (problem.reason, problem.field) == (reason, "spec.clientSecret.secretName")
    assert said in problem.message
    assert "hidden" not in problem.message


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"x" * 72, id="72 bytes"),
        pytest.param("grün +%:/=&".encode(), id="signs and other scripts"),
        pytest.param(b" x ", id="spaces"),
    ],
)
def test_a_usable_secret_counts_whole(value: bytes) -> None:
    (kept,) = filled(value).secrets
    assert verify(value, kept.hash)
    assert not verify(value[:-1] + b"y", kept.hash)


def test_in_an_invalid_edit_another_secret_waits() -> None:
    state, problems = fill({"client_secret": b"another"}, name="other", last=filled(), valid=False)
    assert (state.secrets, problems) == ((), [])


def test_in_an_invalid_edit_the_secret_in_force_still_counts() -> None:
    last = filled()
    assert fill({"client_secret": VALUE}, last=last, valid=False)[0] == last


def test_in_an_invalid_edit_an_edit_of_the_secret_itself_takes_effect() -> None:
    state, _ = fill({"client_secret": b"rotated"}, version=2, last=filled(), valid=False)
    assert [verify(b"rotated", kept.hash) for kept in state.secrets] == [True]


def test_in_an_invalid_edit_without_a_last_state_nothing_counts() -> None:
    assert fill({"client_secret": VALUE}, valid=False)[0].secrets == ()


def test_in_an_invalid_edit_that_took_the_last_audience_no_secret_counts() -> None:
    bare = ClientState(client_id="shop.billing", created_at=0.0, auth_method=CLIENT_SECRET_BASIC)
    assert fill({"client_secret": VALUE}, last=filled(), valid=False, state=bare)[0].secrets == ()


HASHED = bcrypt.hashpw(VALUE, bcrypt.gensalt(4))


@pytest.mark.parametrize("prefix", [b"$2a$", b"$2b$", b"$2y$"], ids=lambda prefix: prefix.decode())
def test_a_hash_that_another_system_made_lets_the_secret_in(prefix: bytes) -> None:
    state, problems = fill({"client_secret_hash": prefix + HASHED[4:]})
    assert problems == []
    (kept,) = state.secrets
    assert verify(VALUE, kept.hash)
    assert not verify(b"another", kept.hash)
    assert not verify(HASHED, kept.hash)


def test_the_plain_secret_counts_where_both_stand() -> None:
    state, _ = fill({"client_secret_hash": HASHED, "client_secret": b"plain"})
    assert [verify(b"plain", kept.hash) for kept in state.secrets] == [True]


def test_the_same_hash_in_a_new_version_stays_the_same_secret() -> None:
    last, _ = fill({"client_secret_hash": HASHED})
    again, _ = fill({"client_secret_hash": HASHED}, version=2, last=last)
    assert (again.secrets[0].id, again.secrets[0].origin) == (last.secrets[0].id, "billing/0-1/2")
    plain, _ = fill({"client_secret": VALUE}, version=3, last=last)
    assert plain.secrets[0].id == last.secrets[0].id


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"hidden", id="no hash"),
        pytest.param(HASHED[:-1], id="cut short"),
        pytest.param(HASHED + b"\n", id="a line break at the end"),
        pytest.param(b"$2b$15$" + HASHED[7:], id="a cost that would be a burden"),
        pytest.param(
            b"$keyturn-sha256$AAAAAAAAAAAAAAAAAAAAAA$" + b"A" * 43, id="a fast hash, for chosen secrets too weak"
        ),
    ],
)
def test_what_is_no_such_hash_grants_nothing(value: bytes) -> None:
    state, (problem,) = fill({"client_secret_hash": value}, last=filled(), version=2)
    assert (state.secrets, problem.reason) == ((), reasons.SECRET_INVALID)
    assert value.decode() not in problem.message


def test_in_an_invalid_edit_a_hash_of_another_secret_waits() -> None:
    assert fill({"client_secret_hash": HASHED}, name="other", last=filled(), valid=False)[0].secrets == ()
