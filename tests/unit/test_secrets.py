"""Hashes of secrets: each verifies its own secret and no other, and no damaged one verifies anything."""

import pytest

from keyturn.secrets import UnusableSecret, hash_generated, hash_secret, is_slow, verify

SECRET = b"correct horse battery staple"
CHOSEN = hash_secret(SECRET, 4)
GENERATED = hash_generated(SECRET)

both = pytest.mark.parametrize("hashed", [pytest.param(CHOSEN, id="chosen"), pytest.param(GENERATED, id="generated")])


@both
def test_a_hash_verifies_its_own_secret_only(hashed: str) -> None:
    assert verify(SECRET, hashed)
    for other in (b"", SECRET[:-1], SECRET + b"x", SECRET.upper(), b"x" * 73):
        assert not verify(other, hashed)


@both
def test_a_hash_does_not_hold_the_secret(hashed: str) -> None:
    assert SECRET.decode() not in hashed


def test_two_hashes_of_one_secret_differ() -> None:
    assert hash_secret(SECRET, 4) != CHOSEN
    assert hash_generated(SECRET) != GENERATED


def test_the_cost_of_a_chosen_secrets_hash_is_as_asked() -> None:
    assert CHOSEN.startswith("$2b$04$")
    assert hash_secret(SECRET, 5).startswith("$2b$05$")


def test_only_the_hash_of_a_chosen_secret_is_slow() -> None:
    assert (is_slow(CHOSEN), is_slow(GENERATED)) == (True, False)


@pytest.mark.parametrize("length", [0, 73, 1000])
def test_a_secret_that_cannot_be_hashed_whole_is_refused(length: int) -> None:
    for hashing in (hash_secret, hash_generated):
        with pytest.raises(UnusableSecret):
            hashing(b"x" * length)


def test_a_secret_of_72_bytes_is_hashed_whole() -> None:
    hashed = hash_secret(b"x" * 72, 4)
    assert verify(b"x" * 72, hashed)
    assert not verify(b"x" * 71 + b"y", hashed)


@pytest.mark.parametrize(
    "hashed",
    [
        "",
        "x",
        "$2b$04$",
        "$2b$04$short",
        "$2b$99$" + "a" * 53,
        "$keyturn-sha256$",
        "$keyturn-sha256$$",
        "$keyturn-sha256$AAAA",
        "$keyturn-sha256$A$A",
        "$keyturn-sha256$\N{SNOWMAN}$AAAA",
        "\N{SNOWMAN}",
        pytest.param(GENERATED[:-4], id="a cut hash of a generated secret"),
        pytest.param(CHOSEN[:-4], id="a cut hash of a chosen one"),
    ],
)
def test_a_damaged_hash_verifies_nothing(hashed: str) -> None:
    assert not verify(SECRET, hashed)
    assert not verify(b"x", hashed)
