"""Whose request it is, behind proxies that are trusted and callers that are not."""

from ipaddress import ip_network
from typing import Literal

import pytest

from keyturn_api.addresses import CallerAddresses, counted
from keyturn_api.guessing import GuessLimiter
from keyturn_api.http import Scope
from tests.unit.api.worlds import scope

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.0/8")]


def of(
    peer: str, *lines: str, chosen: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for", trusted: bool = True
) -> str:
    asked: Scope = scope("POST", "/register", *((chosen, line) for line in lines))
    asked["client"] = (peer, 4711)
    return CallerAddresses(TRUSTED if trusted else [], chosen).of(asked)


@pytest.mark.parametrize(
    ("peer", "lines", "expected"),
    [
        pytest.param("10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="one proxy"),
        pytest.param("10.0.0.1", ["203.0.113.9, 10.0.0.7"], "203.0.113.9", id="two proxies"),
        pytest.param("10.0.0.1", ["203.0.113.9", "10.0.0.7"], "203.0.113.9", id="two proxies that add a line each"),
        pytest.param("10.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9", id="the caller's own claim is not read"),
        pytest.param("10.0.0.1", ["203.0.113.9:5123"], "203.0.113.9", id="with a port"),
        pytest.param("10.0.0.1", ["[2001:db8::7]:5123"], "2001:db8::7", id="IPv6 with a port"),
        pytest.param("10.0.0.1", ["2001:DB8::7"], "2001:db8::7", id="IPv6 in another form"),
        pytest.param("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9", id="IPv4 within IPv6"),
        pytest.param("fd00::1", ["203.0.113.9"], "203.0.113.9", id="a proxy with IPv6"),
        pytest.param("203.0.113.5", ["198.51.100.1"], "203.0.113.5", id="a peer that is no proxy"),
        pytest.param("10.0.0.1", [], "10.0.0.1", id="a proxy that says nothing"),
        pytest.param("10.0.0.1", ["unknown"], "10.0.0.1", id="no address"),
        pytest.param("10.0.0.1", ["203.0.113.9, evil"], "10.0.0.1", id="malformed at the end"),
        pytest.param("10.0.0.1", ["203.0.113.9, evil, 10.0.0.7"], "10.0.0.7", id="malformed: the last trusted hop"),
        pytest.param("10.0.0.1", ["203.0.113.9,"], "10.0.0.1", id="an empty entry"),
        pytest.param("10.0.0.1", ["203.0.113.9:port"], "10.0.0.1", id="a port that is none"),
        pytest.param("10.0.0.1", ["[2001:db8::7"], "10.0.0.1", id="a bracket that stays open"),
        pytest.param("10.0.0.1", ["10.0.0.9," * 600], "10.0.0.1", id="too long to be meant"),
        pytest.param("10.0.0.1", ["203.0.113.9," + "10.0.0.9," * 20 + "10.0.0.8"], "10.0.0.9", id="too many hops"),
        pytest.param("no address", [], "", id="a connection without an address"),
    ],
)
def test_the_callers_address_is_read_from_the_end_for_as_long_as_hops_are_trusted(
    peer: str, lines: list[str], expected: str
) -> None:
    assert of(peer, *lines) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(["for=203.0.113.9;proto=https"], "203.0.113.9", id="one element"),
        pytest.param(['For="[2001:db8::7]:4711"'], "2001:db8::7", id="quoted IPv6"),
        pytest.param(["for=198.51.100.1, for=203.0.113.9"], "203.0.113.9", id="the caller's own claim is not read"),
        pytest.param(['for=198.51.100.1;by="a,b", for=203.0.113.9'], "203.0.113.9", id="a comma within quotes"),
        pytest.param(["for=203.0.113.9, for=10.0.0.7"], "203.0.113.9", id="two proxies"),
        pytest.param(["for=_hidden"], "10.0.0.1", id="an obfuscated name"),
        pytest.param(["proto=https"], "10.0.0.1", id="nobody named"),
        pytest.param(["for=203.0.113.9;for=198.51.100.1"], "10.0.0.1", id="two named in one element"),
        pytest.param(['for="203.0.113.9'], "10.0.0.1", id="a quote that stays open"),
    ],
)
def test_the_standard_header_is_read_the_same_way(lines: list[str], expected: str) -> None:
    assert of("10.0.0.1", *lines, chosen="forwarded") == expected


def test_only_the_chosen_header_counts() -> None:
    asked = scope("POST", "/register", ("forwarded", "for=198.51.100.1"), ("x-forwarded-for", "203.0.113.9"))
    asked["client"] = ("10.0.0.1", 4711)
    assert CallerAddresses(TRUSTED).of(asked) == "203.0.113.9"
    assert CallerAddresses(TRUSTED, "forwarded").of(asked) == "198.51.100.1"


def test_without_trusted_proxies_the_peer_is_the_caller_whatever_headers_say() -> None:
    assert of("10.0.0.1", "203.0.113.9", trusted=False) == "10.0.0.1"


def test_the_address_takes_the_peers_place_in_the_request() -> None:
    asked = scope("POST", "/oauth/token", ("x-forwarded-for", "203.0.113.9"))
    asked["client"] = ("10.0.0.1", 4711)
    CallerAddresses(TRUSTED).settle(asked)
    assert asked["client"] == ("203.0.113.9", 4711)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param("203.0.113.9", "203.0.113.9", id="IPv4"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", id="IPv6"),
        pytest.param("::1", "::1", id="loopback"),
        pytest.param("", "", id="none"),
    ],
)
def test_limits_count_by_ipv4_address_or_ipv6_network(address: str, expected: str) -> None:
    assert counted(address) == expected


def test_a_network_of_ipv6_has_no_more_guesses_than_one_address() -> None:
    limiter = GuessLimiter(2)
    waits = [limiter.begin("team.app", f"2001:db8::{number}", 1000.0) for number in range(1, 4)]
    assert [wait is None for wait in waits] == [True, True, False]
