"""Users of another issuer, behind every gateway: their credentials reach Keyturn, and what it says of them reaches the API."""

import asyncio
import json
import time

import pytest

from tests.gateways.conftest import ANOTHER, SESSION, ZOE, World
from tests.gateways.gateways import WAYS, Way
from tests.gateways.upstream import Seen
from tests.gateways.wire import Header

pytestmark = pytest.mark.asyncio(loop_scope="session")

COOKIE: Header = ("Cookie", f"theme=dark; session={SESSION}")
BEARER: Header = ("Authorization", f"Bearer {SESSION}")


def text(seen: Seen, name: str) -> str:
    """The value of a header that stands once; Keyturn writes UTF-8."""
    (value,) = seen.values(name)
    return value.encode("latin-1").decode()


@pytest.mark.parametrize("credentials", [COOKIE, BEARER], ids=["a cookie", "an opaque token"])
@pytest.mark.parametrize("way", WAYS)
async def test_who_the_user_is_reaches_the_api(world: World, way: Way, credentials: Header) -> None:
    came_to = await world.gateway.ask("GET", "/orders", credentials, way=way)
    assert came_to.seen is not None, came_to.answer
    assert text(came_to.seen, "mia-userid") == "Zoë"
    assert text(came_to.seen, "mia-groups") == "ops,büro"
    assert json.loads(text(came_to.seen, "mia-userproperties")) == ZOE["userProperties"]
    assert not any(came_to.seen.values("mia-clientid"))


@pytest.mark.parametrize("way", ["plain", "HTTP/2"])
@pytest.mark.parametrize("hyphen", ["-", "_"], ids=["with a hyphen", "with an underscore"])
async def test_what_the_caller_claims_besides_reaches_nobody(world: World, way: Way, hyphen: str) -> None:
    forged = [
        (f"mia{hyphen}{name}", value)
        for name, value in (
            ("userid", "root"),
            ("groups", "admin"),
            ("userproperties", "{}"),
            ("clientid", "team.root"),
        )
    ]
    came_to = await world.gateway.ask("GET", "/orders", COOKIE, *forged, way=way)
    assert came_to.seen is not None, came_to.answer
    told = {name: [value for value in values if value] for name, values in came_to.seen.as_cgi().items()}
    assert len(told["MIA_USERID"]) == len(told["MIA_GROUPS"]) == len(told["MIA_USERPROPERTIES"]) == 1
    assert text(came_to.seen, "mia-groups") == "ops,büro"
    assert not told.get("MIA_CLIENTID")


@pytest.mark.parametrize("way", ["plain", "HTTP/2"])
@pytest.mark.parametrize(
    ("credentials", "status"),
    [
        pytest.param(("Cookie", "session=other"), 401, id="a session that is not known"),
        pytest.param(("Authorization", "Bearer other"), 401, id="a token that is not known"),
    ],
)
async def test_others_do_not_pass(world: World, way: Way, credentials: Header, status: int) -> None:
    came_to = await world.gateway.ask("GET", "/orders", credentials, way=way)
    assert (came_to.passed, came_to.answer.status) == (False, status)


@pytest.mark.parametrize("way", ["plain", "HTTP/2"])
@pytest.mark.parametrize("second", [SESSION, ANOTHER], ids=["the same twice", "two"])
async def test_two_authorization_headers_are_nobodys(world: World, way: Way, second: str) -> None:
    came_to = await world.gateway.ask("GET", "/orders", BEARER, ("Authorization", f"Bearer {second}"), way=way)
    assert not came_to.passed
    assert came_to.answer.status in (400, 401)


async def test_public_routes_stay_open_while_the_users_service_hangs_and_others_are_closed(world: World) -> None:
    world.users.delay = 2.5
    try:
        for number in range(2):
            begun = time.monotonic()
            opened = await world.gateway.ask("GET", "/info", ("Cookie", f"session=hangs-{number}"))
            assert opened.seen is not None, opened.answer
            assert time.monotonic() - begun < 2
            assert not any(opened.seen.values("mia-userid"))
        closed = await world.gateway.ask("GET", "/orders", ("Cookie", "session=hangs"))
        assert (closed.passed, closed.answer.status) == (False, 503)
    finally:
        world.users.delay = 0
    end = time.monotonic() + 15
    while world.users.busy:
        assert time.monotonic() < end, "a question was not answered within 15 s"
        await asyncio.sleep(0.05)
