"""What the generator sends is what clients and gateways would send."""

import base64
import time
from pathlib import Path
from urllib.parse import parse_qs

import orjson
import pytest

from keyturn.clients.state import ClientState
from keyturn.jose.jws import parse_compact
from keyturn.records import Kind
from keyturn.rules.table import RouteTable
from keyturn.snapshot import Client
from keyturn.tokens.assertion import AssertionPolicy, verify_assertion
from keyturn_dev.bench import wire, world
from keyturn_dev.bench.database import with_database
from keyturn_dev.bench.machine import cpu_model, total_memory
from tests.sample_keys import sample_key


def parsed(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def test_a_token_request_carries_the_assertion_in_a_form() -> None:
    first, headers, body = parsed(wire.token_by_assertion(b"a.b.c"))
    assert first == "POST /oauth/token HTTP/1.1"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert int(headers["content-length"]) == len(body)
    assert parse_qs(body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_assertion_type": ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"],
        "client_assertion": ["a.b.c"],
    }


def test_a_gateway_check_carries_method_and_uri_of_the_original_request() -> None:
    first, headers, body = parsed(wire.gateway_check(b"t", method="GET", uri="/api/x?page=2"))
    assert (first, body) == ("GET /auth HTTP/1.1", b"")
    assert headers["original-request-uri"] == "/api/x?page=2"
    assert headers["original-request-method"] == "GET"
    assert headers["authorization"] == "Bearer t"
    assert "content-length" not in headers


def test_the_generators_file_holds_each_request_with_its_length(tmp_path: Path) -> None:
    path = tmp_path / "requests"
    wire.write_requests(path, [b"one\n", b"three"])
    assert path.read_bytes() == b"4\none\n5\nthree"


def test_all_routes_are_there_and_every_check_meets_one() -> None:
    rules = world.make_rules()
    assert sum(len(rule.routes) for rule in rules) == world.ROUTES
    table = RouteTable.build((f"bench/rule-{number}", rule) for number, rule in enumerate(rules))
    tokens = [b"t"] * world.ROUTES
    for request in world.gateway_requests(tokens):
        headers = parsed(request)[1]
        match = table.match(headers["original-request-method"], headers["original-request-uri"].encode(), None)
        assert match.requirements, headers["original-request-uri"]


class Known:
    """The clients of a world, as an API replica would know them."""

    def __init__(self, made: world.World) -> None:
        self._clients = {client.client_id: Client("uid", client) for client in made.clients}

    def client(self, client_id: str) -> Client | None:
        return self._clients.get(client_id)


@pytest.fixture(scope="module")
def made() -> world.World:
    """A world with few clients and one key for all of them, made quickly."""
    keys = (sample_key(number=number) for number in range(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "generate", lambda _algorithm, _size: next(keys))
        return world.make_world(time.time(), clients=3, client_keys=1, cost=4)


def test_every_object_has_a_record_that_reads_back(made: world.World) -> None:
    records = made.records()
    kinds = [record.kind for record in records]
    assert kinds.count(Kind.SIGNING_KEY) == 1
    assert kinds.count(Kind.ACCESS_RULE) == world.ROUTES // world.PER_RULE
    clients = [record for record in records if record.kind is Kind.CLIENT]
    assert [ClientState.from_body(record.body) for record in clients] == [*made.clients, *made.secret_clients]
    assert len({record.uid for record in records}) == len(records)
    assert all(record.client_id == record.body["clientId"] for record in clients)


def test_secrets_and_keys_show_in_no_repr(made: world.World) -> None:
    assert not any(secret in repr(made) for secret in made.secrets)


def test_basic_requests_name_client_and_secret(made: world.World) -> None:
    _, headers, _ = parsed(world.basic_requests(made)[0])
    scheme, _, credentials = headers["authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(credentials).decode() == f"{made.secret_clients[0].client_id}:{made.secrets[0]}"


def test_every_assertion_is_fresh_and_holds_before_the_api(made: world.World) -> None:
    now = time.time()
    policy = AssertionPolicy(frozenset({world.ISSUER}), 0.0)
    verified = [
        verify_assertion(assertion, clients=Known(made), policy=policy, store_born_at=now - 1, now=now)
        for assertion in world.sign_assertions(made, 6, now)
    ]
    assert [each.client for each in verified] == [*made.clients, *made.clients]
    assert len({each.used.key for each in verified}) == 6


def test_access_tokens_are_signed_by_the_active_key_and_differ(made: world.World) -> None:
    tokens = world.sign_tokens(made, 6, time.time())
    active = made.ring.signing_key()
    assert active is not None
    assert len(set(tokens)) == 6
    for number, token in enumerate(tokens):
        jws = parse_compact(token)
        assert active.public.verify(jws.signing_input, jws.signature)
        assert orjson.loads(jws.payload)["sub"] == made.clients[number % 3].client_id


def test_the_signing_keys_lie_where_only_their_owner_reads(made: world.World, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    world.write_signing_keys(folder, made.ring)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.iterdir()} == set(made.ring.to_secret_data())
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%2F@127.0.0.1:5432/postgres", "postgresql://u:p%2F@127.0.0.1:5432/mine"),
        ("postgresql://u@h/old?sslmode=require", "postgresql://u@h/mine?sslmode=require"),
    ],
    ids=["with password", "with parameters"],
)
def test_another_database_changes_nothing_else_of_the_url(url: str, expected: str) -> None:
    assert with_database(url, "mine") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor: 0\nmodel name\t: AMD  EPYC\nmodel name: other\n", "AMD EPYC"),
        ("CPU part: 1\n", "unknown processor"),
    ],
    ids=["named", "not named"],
)
def test_the_processor_is_named_if_it_has_a_name(text: str, expected: str) -> None:
    assert cpu_model(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("MemTotal: 25165824 kB\n", 24), ("MemFree: 1 kB\n", 0)], ids=["said", "not said"]
)
def test_memory_is_told_in_gib(text: str, expected: int) -> None:
    assert total_memory(text) == expected
