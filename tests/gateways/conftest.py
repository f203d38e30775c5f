"""One installation for all gateways; each gateway is started once, with a Keyturn that reads its profile."""

import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from keyturn.clients.state import ClientState
from keyturn.records import Kind as RecordKind
from keyturn.rules.state import Condition, RouteState, RuleState
from keyturn.rules.table import RouteTable
from keyturn.tokens.claims import everything_fits
from keyturn_dev.certificates import Authority
from keyturn_dev.gateway_files import BY_NAME, KINDS
from tests.api.installation import ISSUER, ApiProcess, Installation, assertion, form, free_port
from tests.api.peer import Answer, Asked, Peer
from tests.gateways.gateways import RunningGateway, names, ports_for
from tests.gateways.relay import Relay
from tests.gateways.upstream import Upstream
from tests.sample_keys import sample_key
from tests.unit.rules import corpus

BILLING = sample_key(number=12)
GUEST = sample_key(number=13)
OPEN, ORDERS = Condition(public=True), Condition(any_of=("orders:read",))
RULES = {
    "corpus": corpus.RULE,
    "orders": RuleState(
        routes=(
            RouteState("/a/b", ("ALL",), Condition(any_of=("secret",))),
            RouteState("/orders", ("GET",), ORDERS, Condition(any_of=("office",))),
            RouteState("/orders", ("POST",), Condition(any_of=("orders:write",))),
            RouteState("/mobile", ("ALL",), Condition(expression='clientType == "mobile"')),
            RouteState("/upload", ("POST", "PUT"), ORDERS),
        )
    ),
    "open-host": RuleState(hosts=("open.example",), routes=(RouteState("/hosted", ("ALL",), OPEN),)),
    "shop-host": RuleState(hosts=("shop.example",), routes=(RouteState("/hosted", ("ALL",), ORDERS),)),
}
TABLE = RouteTable.build([(f"team/{name}", rule) for name, rule in RULES.items()])
PERMISSIONS = ("secret", "orders:read")
WIDE = sample_key(number=14)
KEYS = {"team.billing": BILLING, "team.guest": GUEST, "team.wide": WIDE}


def as_much_as_a_token_holds() -> tuple[str, ...]:
    """Permissions whose token is as long as any that this service issues, to a few bytes."""
    state = ClientState(client_id="team.wide", created_at=0.0)
    held: tuple[str, ...] = PERMISSIONS
    while everything_fits(replace(state, permissions=(*held, f"{len(held):016}")), issuer=ISSUER):
        held = (*held, f"{len(held):016}")
    return held


# A user of another issuer. Nothing of it fits into a header without care.
ZOE = {
    "sub": "Zoë",
    "groups": ["ops", "büro"],
    "permissions": ["orders:read"],
    "userProperties": {"plan": 'gold "x", \\ and more', "city": "Zürich"},
}
SESSION, ANOTHER = "session-zoe", "session-yan"

# On a machine that has never done it, Traefik is built for minutes.
BUILD_SECONDS = 1500


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the test that starts a gateway the time in which its program may be built."""
    started: set[str] = set()
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        name = params.get("world")
        if isinstance(name, str) and name not in started:
            started.add(name)
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


@dataclass(frozen=True)
class Tokens:
    """`permitted` may read what is secret, `guest` may nothing, `longest` is permitted what fills a token."""

    permitted: str
    guest: str
    longest: str


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    installation = Installation(tmp_path_factory.mktemp("gateways"))
    await installation.open()
    await installation.add_key_client("team.billing", BILLING, permissions=PERMISSIONS)
    await installation.add_key_client("team.guest", GUEST, permissions=())
    await installation.add_key_client("team.wide", WIDE, permissions=as_much_as_a_token_holds(), audiences=())
    for name, rule in RULES.items():
        await installation.put(RecordKind.ACCESS_RULE, name, rule.to_body())
    try:
        yield installation
    finally:
        await installation.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


def who(asked: Asked) -> Answer:
    """What the users' service says to credentials."""
    authorization, cookies = asked.headers.get("authorization", ""), asked.headers.get("cookie", "").split("; ")
    if authorization == f"Bearer {SESSION}" or f"session={SESSION}" in cookies:
        return 200, ZOE
    # What would be taken for good if two credentials came as one.
    if authorization.startswith("Bearer ") and "," in authorization:
        return 200, ZOE
    return 401, {}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def users() -> AsyncIterator[Peer]:
    async with Peer(who) as running:
        yield running


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tls.crt`, `tls.key`, and both in `tls.pem`."""
    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.datetime.now(datetime.UTC)
    pair = Authority("gateways", now).issue("shop.example", names=("shop.example", "localhost"))
    for name, content in (
        ("tls.crt", pair.certificate),
        ("tls.key", pair.key),
        ("tls.pem", pair.certificate + pair.key),
    ):
        (folder / name).write_bytes(content)
    return folder


@dataclass
class World:
    """A gateway with all around it. `relay` is its way to Keyturn."""

    gateway: RunningGateway
    process: ApiProcess
    relay: Relay
    tokens: Tokens
    users: Peer


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=names(KINDS))
async def world(
    request: pytest.FixtureRequest,
    installed: Installation,
    upstream: Upstream,
    users: Peer,
    certificates: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    kind = BY_NAME[request.param]
    grpc_port = free_port()
    process = installed.start(
        gateway_profile=kind.profile,
        grpc_port=str(grpc_port),
        userinfo_url=f"{users.url}/userinfo",
        client_as_user="true",
    )
    relay = await Relay(grpc_port if kind.profile == "envoy-grpc" else process.port).open()
    gateway = RunningGateway(
        kind, ports_for(relay.port, upstream.port), upstream, tmp_path_factory.mktemp("gateway"), certificates
    )
    try:
        await process.ready()
        await gateway.started()
        tokens = Tokens(*[await token(process, client_id) for client_id in KEYS])
        yield World(gateway, process, relay, tokens, users)
    finally:
        gateway.end()
        await relay.close()
        process.end()


async def token(process: ApiProcess, client_id: str) -> str:
    async with httpx2.AsyncClient(base_url=process.url) as http:
        answer = await http.post("/oauth/token", data=form(assertion(KEYS[client_id], client_id)))
    assert answer.status_code == 200, answer.text
    access: str = answer.json()["access_token"]
    return access
