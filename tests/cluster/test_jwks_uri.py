"""Keys that a client publishes at a URL: fetched over TLS from a real server, under bounds, and only from where it is allowed."""

import asyncio
import contextlib
import ipaddress
import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyturn import reasons
from keyturn_dev.waiting import wait_until
from keyturn_operator import jwk_sets
from keyturn_operator.allowed_addresses import AddressPolicy
from keyturn_operator.jwk_sets import MAX_BYTES, FetchFailed, SafeFetch
from tests.cluster.clients import Client, World
from tests.cluster.conftest import StartWorld
from tests.cluster.https_server import Handler, HttpsServer, answer, https_server
from tests.manifests import Manifest, manifest, private_jwk_members, public_jwk

LOOPBACK = AddressPolicy(allowed=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    with https_server(tmp_path_factory.mktemp("https")) as one:
        yield one


def fetch(server: HttpsServer, *, policy: AddressPolicy = LOOPBACK, **options: Any) -> SafeFetch:
    return SafeFetch(policy, **{"ca_file": str(server.ca_file), "port": server.port, **options})


async def test_a_document_is_fetched_by_name_from_the_checked_address(server: HttpsServer) -> None:
    server.answer = answer(200, b'{"keys": []}')
    assert await fetch(server)("https://localhost/jwks.json?v=1") == b'{"keys": []}'
    assert server.asked[-1] == "/jwks.json?v=1"
    assert server.hosts[-1] == f"localhost:{server.port}"
    assert server.names[-1] == "localhost"
    assert await fetch(server)("https://127.0.0.1/a") == b'{"keys": []}'


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["a name", "an address"])
async def test_loopback_is_refused_where_it_is_not_allowed_and_nobody_is_asked(server: HttpsServer, host: str) -> None:
    server.answer = answer(200, b'{"keys": []}')
    before = len(server.asked), len(server.names)
    with pytest.raises(FetchFailed) as refused:
        await fetch(server, policy=AddressPolicy())(f"https://{host}/")
    assert refused.value.failure.reason == reasons.JWKS_URI_NOT_ALLOWED
    assert (len(server.asked), len(server.names)) == before


def dribble(request: Handler) -> None:
    """A byte at a time: each is in time, the whole never is."""
    request.send_response(200)
    request.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(100):
            request.wfile.write(b" ")
            request.wfile.flush()
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(answer(302, Location="https://localhost/other"), "status 302", id="a redirect"),
        pytest.param(answer(301, Location="http://169.254.169.254/"), "status 301", id="a redirect to the inside"),
        pytest.param(answer(404, b"secret-in-a-page"), "status 404", id="no such document"),
        pytest.param(answer(500, b"secret-in-a-page"), "status 500", id="a failure"),
        pytest.param(answer(204), "status 204", id="no content"),
        pytest.param(answer(200, b" " * (MAX_BYTES + 1)), "longer than 64 KiB", id="too long"),
        pytest.param(answer(200, b"secret", Content_Encoding="gzip"), "compressed", id="compressed"),
        pytest.param(dribble, "no whole answer", id="too slow"),
    ],
)
async def test_what_is_no_plain_answer_in_time_is_refused_without_being_quoted(
    server: HttpsServer, given: Callable[[Handler], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwk_sets, "TIMEOUT", 1.0)
    server.answer = given
    before = len(server.asked)
    with pytest.raises(FetchFailed, match=said) as refused:
        await fetch(server)("https://localhost/")
    assert refused.value.failure.reason == reasons.JWKS_URI_UNAVAILABLE
    assert "secret" not in str(refused.value)
    assert len(server.asked) == before + 1, "nothing else was asked for"
    await connections_closed()


async def test_the_longest_document_is_read(server: HttpsServer) -> None:
    body = b'{"keys": []}'.ljust(MAX_BYTES)
    server.answer = answer(200, body)
    assert await fetch(server)("https://localhost/") == body


async def connections_closed() -> None:
    """asyncio closes a connection that was cut a moment later."""
    await asyncio.sleep(0.2)


async def test_a_certificate_that_nobody_trusts_is_refused(server: HttpsServer) -> None:
    server.answer = answer(200, b'{"keys": []}')
    with pytest.raises(FetchFailed, match="certificate"):
        await fetch(server, ca_file=None)("https://localhost/")
    await connections_closed()


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    with (
        https_server(tmp_path, names=("other.example",)) as other,
        pytest.raises(FetchFailed, match="certificate"),
    ):
        await fetch(other)("https://localhost/")
    await connections_closed()


async def test_a_name_that_is_unknown_and_a_port_that_is_closed_are_told(server: HttpsServer) -> None:
    with pytest.raises(FetchFailed, match="cannot be resolved"):
        await fetch(server)("https://no-such-host.invalid/")
    with pytest.raises(FetchFailed, match="connection failed"):
        await fetch(server, port=1)("https://localhost/")


# --- The whole way ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    """A server on the only port that keys are fetched from, at an address of its own among those of loopback."""
    address = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}.{secrets.randbelow(250) + 1}"
    folder = tmp_path_factory.mktemp("published")
    with https_server(folder, address=address, port=443, names=(address,)) as one:
        yield one


def jwk_set(*keys: Manifest) -> Callable[[Handler], None]:
    return answer(200, json.dumps({"keys": keys}).encode())


def settings(published: HttpsServer) -> dict[str, str]:
    return {
        "KEYTURN_JWKS_URI_HOSTS": published.address,
        "KEYTURN_JWKS_URI_NETWORKS": f"{published.address}/32",
        "KEYTURN_JWKS_URI_CA_FILE": str(published.ca_file),
        "KEYTURN_JWKS_URI_REFRESH": "2",
    }


def with_uri(client: Client, uri: str) -> Manifest:
    return manifest("ClientCredential", client.name, {"jwksUri": uri})


def answers(world: World, *clients: Client) -> list[list[int]]:
    return [[one.request(number).status_code for number in range(len(world.replicas))] for one in clients]


def test_published_keys_count_follow_the_document_and_survive_its_absence(
    start_world: StartWorld, published: HttpsServer
) -> None:
    world = start_world(settings=settings(published))
    old, new = world.client("published"), world.client("published")
    uri = f"https://{published.address}/jwks.json"
    published.answer = jwk_set(dict(old.key.public.jwk))
    world.apply(with_uri(old, uri))
    old.wait()
    world.objects.wait_for("clientcredentials", "published", kind="KeysFetched")
    assert answers(world, old, new) == [[200], [401]]
    (shown,) = world.objects.get("clientcredentials", "published")["status"]["keys"]
    assert (shown["kid"], shown["source"]) == (old.key.kid, "jwksUri")

    bad = {**public_jwk("bad"), **private_jwk_members()}
    published.answer = jwk_set(dict(new.key.public.jwk), bad)
    wait_until(lambda: answers(world, old, new) == [[401], [200]], "the document's key to count alone", seconds=15)
    told = world.objects.wait_for("clientcredentials", "published", "False", kind="KeysFetched", reason="KeysRefused")
    assert "PrivateKeyMaterial" in told["message"]
    assert not any(value in told["message"] for value in private_jwk_members().values())

    published.answer = answer(500)
    told = world.objects.wait_for(
        "clientcredentials", "published", "False", kind="KeysFetched", reason="JwksUriUnavailable"
    )
    assert "counts until" in told["message"]
    world.installation.restart_operator()
    new.patch(description="after a restart, with nothing to fetch")
    new.wait(seconds=20)
    assert answers(world, old, new) == [[401], [200]]

    new.patch(jwksUri=f"https://{published.address}/elsewhere.json")
    # A copy of another URL does not count, not even until this one has answered.
    wait_until(lambda: answers(world, new) == [[401]], "the copy to be withdrawn", seconds=5)
    new.wait("False", "JwksUriUnavailable")
    assert world.objects.condition("clientcredentials", "published", "KeysFetched") is not None
    new.patch(jwksUri=None, publicKeys=[{"jwk": dict(new.key.public.jwk)}])
    new.wait()
    assert world.objects.condition("clientcredentials", "published", "KeysFetched") is None


def test_without_a_setting_nothing_is_fetched(world: World, published: HttpsServer) -> None:
    client = world.client("unfetched")
    published.answer = jwk_set(dict(client.key.public.jwk))
    before = len(published.names)
    world.apply(with_uri(client, f"https://{published.address}/jwks.json"))
    told = client.wait("False", "JwksUriNotAllowed")
    assert "KEYTURN_JWKS_URI_HOSTS" in told["message"]
    time.sleep(1.0)
    assert len(published.names) == before
