"""Where the operator fetches keys from, and when: never from the cluster's inside, never oftener than needed."""

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from keyturn import reasons
from keyturn.records import Kind
from keyturn_operator import allowed_addresses
from keyturn_operator.allowed_addresses import AddressPolicy, AddressRefused, CheckedResolver
from keyturn_operator.jwk_sets import FetchFailed, JwkSets, Latest
from keyturn_operator.queue import Key, Priority
from keyturn_operator.settings import Network
from tests.manifests import elliptic_jwk
from tests.unit.operator.fakes import NOW, settings

URI = "https://keys.shop.example/jwks.json"
CLIENT = Key(Kind.CLIENT, "shop", "a")


def networks(*given: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(one) for one in given)


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("127.0.0.1", id="loopback"),
        pytest.param("127.8.9.1", id="loopback in full"),
        pytest.param("0.0.0.0", id="this host"),
        pytest.param("10.96.0.1", id="private, class A"),
        pytest.param("172.16.0.1", id="private, class B"),
        pytest.param("192.168.1.1", id="private, class C"),
        pytest.param("100.64.0.1", id="shared by a carrier"),
        pytest.param("169.254.169.254", id="the cloud's metadata"),
        pytest.param("224.0.0.1", id="multicast"),
        pytest.param("240.0.0.1", id="reserved"),
        pytest.param("255.255.255.255", id="broadcast"),
        pytest.param("198.18.0.1", id="benchmarking"),
        pytest.param("192.0.2.1", id="documentation"),
        pytest.param("::1", id="loopback, IPv6"),
        pytest.param("::", id="unspecified, IPv6"),
        pytest.param("fe80::1", id="link-local, IPv6"),
        pytest.param("fec0::1", id="site-local, deprecated"),
        pytest.param("fe80::1%eth0", id="link-local with its zone"),
        pytest.param("2606:4700::1%eth0", id="a zone where none belongs"),
        pytest.param("fc00::1", id="unique local"),
        pytest.param("fd12:3456::1", id="unique local, as used"),
        pytest.param("ff02::1", id="multicast, IPv6"),
        pytest.param("ff0e::1", id="global multicast, IPv6"),
        pytest.param("2001:db8::1", id="documentation, IPv6"),
        pytest.param("::ffff:127.0.0.1", id="loopback, mapped"),
        pytest.param("::ffff:10.0.0.1", id="private, mapped"),
        pytest.param("::ffff:a9fe:a9fe", id="the cloud's metadata, mapped"),
        pytest.param("64:ff9b::7f00:1", id="loopback behind NAT64"),
        pytest.param("64:ff9b::a9fe:a9fe", id="the cloud's metadata behind NAT64"),
        pytest.param("2002:7f00:1::", id="loopback by 6to4"),
        pytest.param("2002:0a00:0001::1", id="private by 6to4"),
        pytest.param("2001:0:4136:e378:8000:63bf:80ff:fffe", id="loopback by Teredo"),
        pytest.param("keys.example", id="no address"),
        pytest.param("", id="nothing"),
        pytest.param("0x7f000001", id="an address in another writing"),
    ],
)
def test_an_address_that_is_not_public_is_never_connected_to(address: str) -> None:
    assert not AddressPolicy().permits(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_a_public_address_may_be_connected_to(address: str) -> None:
    assert AddressPolicy().permits(address)


def test_the_clusters_own_networks_are_closed_and_allowed_ones_open_whatever_they_are() -> None:
    policy = AddressPolicy(allowed=networks("10.1.0.0/16"), cluster=networks("8.8.0.0/16", "10.1.2.0/24"))
    assert [policy.permits(one) for one in ("8.8.8.8", "10.1.9.9", "10.2.0.1", "::ffff:10.1.9.9")] == [
        False,
        True,
        False,
        True,
    ]


async def test_a_name_with_one_address_that_is_not_permitted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "good.example": [(2, "8.8.8.8"), (2, "1.1.1.1")],
        "rebound.example": [(2, "8.8.8.8"), (2, "169.254.169.254")],
    }
    monkeypatch.setattr(allowed_addresses, "_look_up", lambda host, _port, _family: answers[host])
    with ThreadPoolExecutor(1) as pool:
        resolver = CheckedResolver(AddressPolicy(), pool)
        found = await resolver.resolve("good.example", 443)
        assert [(one["hostname"], one["host"]) for one in found] == [
            ("good.example", "8.8.8.8"),
            ("good.example", "1.1.1.1"),
        ]
        with pytest.raises(AddressRefused) as refused:
            await resolver.resolve("rebound.example", 443)
    assert "169.254" not in str(refused.value)


class Fetches:
    """Documents as they would be fetched, and what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: bytes | Exception = json.dumps({"keys": [elliptic_jwk("a")]}).encode()

    async def __call__(self, uri: str) -> bytes:
        self.asked.append(uri)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Stage:
    def __init__(self, *hosts: str) -> None:
        self.now = NOW
        self.fetches = Fetches()
        self.queued: list[Key] = []
        enqueue: Callable[[Key, Priority], None] = lambda key, _priority: self.queued.append(key)  # noqa: E731
        self.sets = JwkSets(
            settings(jwks_uri_hosts=hosts, jwks_uri_refresh=900.0),
            enqueue,
            fetch=self.fetches,
            now=lambda: self.now,
            jitter=lambda: 1.0,
        )

    async def look(self, uri: str = URI, copy: float | None = None) -> Latest:
        """Looks, lets a fetch that began come to its end, and looks again."""
        self.sets.look(CLIENT, uri, copy)
        for _ in range(5):
            await asyncio.sleep(0)
        return self.sets.look(CLIENT, uri, copy)


@pytest.mark.parametrize(
    ("hosts", "uri", "allowed"),
    [
        pytest.param((), URI, False, id="nothing is listed"),
        pytest.param(("keys.shop.example",), URI, True, id="the host is listed"),
        pytest.param(("KEYS.shop.example",), URI, True, id="in capitals"),
        pytest.param(("shop.example",), URI, False, id="only the domain is listed"),
        pytest.param(("*.shop.example",), URI, True, id="everything below the domain is"),
        pytest.param(("*.shop.example",), "https://shop.example/", False, id="which the domain itself is not"),
        pytest.param(("*.shop.example",), "https://badshop.example/", False, id="nor a name that ends alike"),
        pytest.param(("keys.shop.example",), "https://keys.shop.example.evil.example/", False, id="a longer name"),
        pytest.param(("keys.shop.example",), "https://evil.example/keys.shop.example", False, id="in the path"),
        pytest.param(("keys.shop.example",), "http://keys.shop.example/", False, id="without TLS"),
        pytest.param(("keys.shop.example",), "https://keys.shop.example:8443/", False, id="another port"),
    ],
)
async def test_only_listed_hosts_are_fetched_from(hosts: tuple[str, ...], uri: str, allowed: bool) -> None:
    forbidden = Stage(*hosts).sets.forbidden(uri)
    assert (forbidden is None) == allowed
    assert forbidden is None or forbidden.reason == reasons.JWKS_URI_NOT_ALLOWED


async def test_keys_are_fetched_at_once_and_then_at_the_interval() -> None:
    stage = Stage("keys.shop.example")
    latest = await stage.look()
    assert latest.fetched is not None
    assert [key.kid for key in latest.fetched.keys] == ["a"]
    assert (latest.failure, latest.again, stage.queued) == (None, 900.0, [CLIENT])
    stage.now += 899
    await stage.look()
    assert len(stage.fetches.asked) == 1
    stage.now += 1
    await stage.look()
    assert len(stage.fetches.asked) == 2


async def test_a_restart_does_not_ask_for_what_is_fresh() -> None:
    stage = Stage("keys.shop.example")
    latest = await stage.look(copy=NOW - 100)
    assert (stage.fetches.asked, latest.fetched, latest.again) == ([], None, 800.0)


async def test_a_failure_is_told_keeps_the_last_copy_and_is_tried_again_ever_later() -> None:
    stage = Stage("keys.shop.example")
    first = await stage.look()
    stage.now += 900
    stage.fetches.answer = FetchFailed("it answered with status 500, expected 200")
    pauses = []
    for _ in range(9):
        latest = await stage.look()
        assert latest.fetched == first.fetched
        assert latest.failure is not None
        assert latest.failure.reason == reasons.JWKS_URI_UNAVAILABLE
        assert latest.again is not None
        pauses.append(latest.again)
        stage.now += latest.again
    assert pauses == [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 900.0, 900.0]
    stage.fetches.answer = json.dumps({"keys": []}).encode()
    latest = await stage.look()
    assert (latest.failure, latest.fetched is not None and latest.fetched.keys) == (None, ())


async def test_what_is_no_jwk_set_is_told_and_an_unforeseen_failure_too() -> None:
    stage = Stage("keys.shop.example")
    for answer, reason in ((b"<html>", reasons.JWKS_URI_INVALID), (KeyError("x"), reasons.JWKS_URI_UNAVAILABLE)):
        stage.fetches.answer = answer
        latest = await stage.look()
        assert latest.failure is not None
        assert latest.failure.reason == reason
        stage.now += 10_000


async def test_another_url_is_fetched_at_once_and_the_former_one_forgotten() -> None:
    stage = Stage("*.shop.example")
    await stage.look()
    latest = await stage.look("https://new.shop.example/")
    assert stage.fetches.asked == [URI, "https://new.shop.example/"]
    assert latest.fetched is not None
    assert latest.fetched.uri == "https://new.shop.example/"


async def test_few_are_fetched_at_a_time() -> None:
    running, most = 0, 0

    async def slow(_uri: str) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return b'{"keys": []}'

    fetch: Callable[[str], Awaitable[bytes]] = slow
    sets = JwkSets(settings(jwks_uri_hosts=("keys.shop.example",)), lambda _key, _priority: None, fetch=fetch)
    for number in range(20):
        sets.look(Key(Kind.CLIENT, "shop", f"c{number}"), URI, None)
    await asyncio.sleep(0.3)
    assert most == 4
