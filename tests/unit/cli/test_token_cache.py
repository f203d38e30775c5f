"""`keyturn token --cache`: one token for as long as it holds, for nobody else's eyes, and for nothing else than what was asked."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from keyturn.jose.signing import generate
from keyturn_cli.commands import token as command
from keyturn_cli.token_cache import MARGIN_SECONDS, Kept, TokenCache, cache_folder

from .command import ISSUER, TokenService, keyturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

CLIENT = "team-a.billing"


@pytest.fixture
def counting(service: TokenService) -> TokenService:
    """Each request is answered with another token."""

    def answer(_: httpx2.Request) -> dict[str, Any]:
        number = sum(request.method == "POST" for request in service.requests)
        return {"access_token": f"token-{number}", "token_type": "Bearer", "expires_in": 900}

    service.answer = (200, answer)
    return service


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the command's time on by so many seconds."""
    shift = 0.0

    def move(seconds: float) -> None:
        nonlocal shift
        shift += seconds

    class Time:
        @staticmethod
        def time() -> float:
            return time.time() + shift

    monkeypatch.setattr(command, "time", Time)
    return move


def token(key_file: str, *more: str, url: str = ISSUER, client: str = CLIENT) -> Result:
    return keyturn("token", "--url", url, "--client-id", client, "--key", key_file, *more)


def cached(key_file: str, *more: str, **named: str) -> str:
    result = token(key_file, "--cache", *more, **named)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout.strip()


def files(home: Path) -> list[Path]:
    return [path for path in sorted(home.rglob("*")) if path.is_file()]


def test_a_kept_token_is_printed_again_without_a_request(counting: TokenService, key_file: str) -> None:
    assert cached(key_file) == "token-1"
    before = len(counting.requests)
    assert cached(key_file) == "token-1"
    assert len(counting.requests) == before


def test_nothing_is_kept_and_nothing_kept_is_used_without_the_option(
    counting: TokenService, key_file: str, cache_home: Path
) -> None:
    assert token(key_file).stdout == "token-1\n"
    assert files(cache_home) == []
    assert cached(key_file) == "token-2"
    assert token(key_file).stdout == "token-3\n"


@pytest.mark.parametrize(
    ("seconds", "printed"),
    [
        pytest.param(900 - MARGIN_SECONDS - 5, "token-1", id="as long as it holds"),
        pytest.param(900 - MARGIN_SECONDS, "token-2", id="shortly before its end"),
        pytest.param(10_000, "token-2", id="long after"),
    ],
)
def test_it_is_renewed_before_it_ends(
    counting: TokenService, key_file: str, clock: Callable[[float], None], seconds: float, printed: str
) -> None:
    cached(key_file)
    clock(seconds)
    assert cached(key_file) == printed
    assert cached(key_file) == printed


def test_it_is_renewed_when_that_is_asked_for(counting: TokenService, key_file: str) -> None:
    cached(key_file)
    assert cached(key_file, "--renew") == "token-2"
    assert cached(key_file) == "token-2"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        pytest.param(["--scope", "a"], {}, id="a scope"),
        pytest.param(["--audience", "a"], {}, id="an audience"),
        pytest.param(["--kid", "mine"], {}, id="a kid"),
        pytest.param(["--issuer", ISSUER], {}, id="an issuer"),
        pytest.param([], {"client": "team-b.billing"}, id="another client"),
        pytest.param([], {"url": "http://127.0.0.1:8080"}, id="another service"),
    ],
)
def test_another_request_gets_another_token(
    counting: TokenService, key_file: str, more: list[str], named: dict[str, str]
) -> None:
    cached(key_file)
    assert cached(key_file, *more, **named) == "token-2"
    assert cached(key_file) == "token-1"


@pytest.mark.parametrize("kid", [[], ["--kid", "same"]], ids=["its own kid", "a kid that both have"])
def test_another_key_gets_another_token(counting: TokenService, key_file: str, tmp_path: Path, kid: list[str]) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(generate("ES256", 256).to_pem())
    cached(key_file, *kid)
    assert cached(str(other), *kid) == "token-2"


def test_the_order_of_audiences_makes_no_difference(counting: TokenService, key_file: str) -> None:
    cached(key_file, "--audience", "a", "--audience", "b")
    assert cached(key_file, "--audience", "b", "--audience", "a") == "token-1"


def test_a_kept_token_is_its_owner_s_alone(counting: TokenService, key_file: str, cache_home: Path) -> None:
    previous = os.umask(0)
    try:
        cached(key_file)
    finally:
        os.umask(previous)
    (path,) = files(cache_home)
    assert path.parent == cache_home / "keyturn" / "tokens"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert CLIENT not in path.name
    assert set(json.loads(path.read_text())) == {"access_token", "until"}


def spoil_with(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def link_elsewhere(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(spoil_with(b"{"), id="no JSON"),
        pytest.param(spoil_with(b"[" * 50_000), id="nested too deep"),
        pytest.param(spoil_with(b'{"access_token": "a\\u001b[2J", "until": 9e9}'), id="no token"),
        pytest.param(spoil_with(b'{"access_token": "a", "until": "later"}'), id="no time"),
        pytest.param(lambda path: path.chmod(0o644), id="others may read it"),
        pytest.param(lambda path: path.chmod(0o620), id="others may write it"),
        pytest.param(link_elsewhere, id="a link"),
    ],
)
def test_what_cannot_be_trusted_is_not_used_and_is_replaced(
    counting: TokenService, key_file: str, cache_home: Path, spoil: Callable[[Path], object]
) -> None:
    cached(key_file)
    (path,) = files(cache_home)
    spoil(path)
    assert cached(key_file) == "token-2"
    assert cached(key_file) == "token-2"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert not path.is_symlink()


def test_tokens_that_are_over_are_taken_away(
    counting: TokenService, key_file: str, cache_home: Path, clock: Callable[[float], None]
) -> None:
    for scope in ("a", "b", "c"):
        cached(key_file, "--scope", scope)
    assert len(files(cache_home)) == 3
    clock(1000)
    cached(key_file)
    assert len(files(cache_home)) == 1


@pytest.mark.parametrize("lifetime", [None, 0, -5, "900", True], ids=repr)
def test_a_token_without_a_lifetime_is_printed_and_not_kept(
    service: TokenService, key_file: str, cache_home: Path, lifetime: object
) -> None:
    service.answer = (200, {"access_token": "abc", "token_type": "Bearer", "expires_in": lifetime})
    assert cached(key_file) == "abc"
    assert files(cache_home) == []


def test_a_cache_that_cannot_be_written_costs_a_warning_only(
    counting: TokenService, key_file: str, cache_home: Path
) -> None:
    (cache_home / "keyturn").touch()
    result = token(key_file, "--cache")
    assert (result.exit_code, result.stdout) == (0, "token-1\n")
    assert "could not be kept" in result.stderr


def test_a_refusal_is_not_kept(service: TokenService, key_file: str, cache_home: Path) -> None:
    service.answer = (401, {"error": "invalid_client"})
    assert token(key_file, "--cache").exit_code == 1
    assert files(cache_home) == []


@pytest.mark.parametrize(
    "arguments", [["--cache", "--curl"], ["--cache", "--assertion-only"], ["--renew"]], ids=" ".join
)
def test_options_that_contradict_it_are_a_usage_error(
    service: TokenService, key_file: str, arguments: list[str]
) -> None:
    assert token(key_file, *arguments).exit_code == 2
    assert service.requests == []


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        pytest.param({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/keyturn/tokens", id="named"),
        pytest.param({"XDG_CACHE_HOME": "c", "HOME": "/h"}, "/h/.cache/keyturn/tokens", id="relative"),
        pytest.param({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/keyturn/tokens", id="empty"),
        pytest.param({"HOME": "/h"}, "/h/.cache/keyturn/tokens", id="unset"),
    ],
)
def test_the_folder_is_the_user_s_cache(environ: dict[str, str], folder: str) -> None:
    assert cache_folder(environ) == Path(folder)


def test_a_token_shows_in_no_repr(tmp_path: Path) -> None:
    assert "s3cret" not in repr(Kept("s3cret", 1.0))
    assert TokenCache(tmp_path).find(["x"], 0.0) is None
