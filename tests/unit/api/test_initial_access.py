"""Initial access tokens: files of a mounted Secret, and how often somebody may come with one."""

import hashlib
from pathlib import Path

import pytest

from keyturn_api.initial_access import InitialAccessTokens, InitialToken, InvalidTokenFile, parse_file
from keyturn_api.rate_limit import RateLimiter

TOKEN = "portal-token-0123456789abcdef"
DIGEST = hashlib.sha256(TOKEN.encode()).digest()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(f"{TOKEN}\n", InitialToken("n", DIGEST), id="the token itself"),
        pytest.param(TOKEN, InitialToken("n", DIGEST), id="without a line break"),
        pytest.param(f"sha256:{DIGEST.hex()}", InitialToken("n", DIGEST), id="its hash"),
        pytest.param(
            f"{TOKEN}\n\nexpires: 1970-01-01T01:00:00Z\n", InitialToken("n", DIGEST, 3600.0), id="with an end"
        ),
    ],
)
def test_a_file_is_a_token(text: str, expected: InitialToken) -> None:
    assert parse_file("n", text) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("short", id="a token that could be guessed"),
        pytest.param("x" * 1025, id="a token without end"),
        pytest.param("with a space in it, long enough", id="no Bearer token"),
        pytest.param("sha256:abc", id="half a hash"),
        pytest.param(f"{TOKEN}\nexpires: tomorrow", id="an end that is no time"),
        pytest.param(f"{TOKEN}\nexpires: 2027-01-01T00:00:00Z\nexpires: 2028-01-01T00:00:00Z", id="two ends"),
        pytest.param(f"{TOKEN}\nother: x", id="something else"),
    ],
)
def test_anything_else_is_none_and_is_not_repeated(text: str) -> None:
    with pytest.raises(InvalidTokenFile) as error:
        parse_file("n", text)
    assert not text or text.splitlines()[0] not in str(error.value)


def test_several_tokens_count_by_name_until_they_end(tmp_path: Path) -> None:
    clock = Clock()
    other = "other-token-0123456789abcdef"
    (tmp_path / "portal").write_text(TOKEN)
    (tmp_path / "batch").write_text(f"{other}\nexpires: 1970-01-01T00:20:00Z\n")
    (tmp_path / "..data").mkdir()
    tokens = InitialAccessTokens(tmp_path, clock=clock)
    assert (tokens.find(TOKEN), tokens.find(other), tokens.find("x" * 30)) == ("portal", "batch", None)
    clock.now = 1200.0
    assert (tokens.find(TOKEN), tokens.find(other)) == ("portal", None)


def test_an_edit_counts_within_a_second_and_a_bad_file_hides_no_other(tmp_path: Path) -> None:
    clock = Clock()
    tokens = InitialAccessTokens(tmp_path, clock=clock)
    assert tokens.find(TOKEN) is None
    (tmp_path / "portal").write_text(TOKEN)
    (tmp_path / "bad").write_bytes(b"\xff\xfe")
    (tmp_path / "worse").write_text("short")
    (tmp_path / "a name").write_text(TOKEN)
    assert tokens.find(TOKEN) is None
    clock.now += 1
    assert tokens.find(TOKEN) == "portal"
    (tmp_path / "portal").unlink()
    clock.now += 1
    assert tokens.find(TOKEN) is None


def test_without_a_directory_no_token_counts(tmp_path: Path) -> None:
    assert InitialAccessTokens(tmp_path / "absent").find(TOKEN) is None


def test_no_token_is_in_a_repr(tmp_path: Path) -> None:
    assert DIGEST.hex() not in repr(parse_file("n", TOKEN))
    assert repr(DIGEST) not in repr(parse_file("n", TOKEN))


def test_so_many_at_once_and_then_evenly() -> None:
    limiter = RateLimiter(3)
    assert [limiter.take("a", 100.0) for _ in range(3)] == [None, None, None]
    wait = limiter.take("a", 100.0)
    assert wait is not None
    assert 19 < wait <= 20
    assert limiter.take("b", 100.0) is None
    assert limiter.take("a", 100.0 + wait) is None
    assert limiter.take("a", 100.0 + wait) is not None


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    limiter = RateLimiter(1)
    assert limiter.take("a", 100.0) is None
    assert limiter.take("a", 50.0) is not None


def test_no_limit_counts_nothing() -> None:
    limiter = RateLimiter(0)
    assert {limiter.take("a", 1.0) for _ in range(100)} == {None}


def test_a_flood_of_addresses_is_bounded_in_memory() -> None:
    limiter = RateLimiter(1)
    for number in range(20_100):
        limiter.take(str(number), 1.0)
    assert len(limiter._buckets) == 20_000
    assert limiter.take("20099", 1.0) is not None
