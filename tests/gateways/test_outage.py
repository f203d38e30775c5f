"""Where Keyturn cannot be asked, nothing passes; as soon as it can, requests pass again."""

import asyncio
import time

import pytest

from tests.gateways.conftest import World
from tests.gateways.relay import State
from tests.gateways.wire import Connection, request

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Beyond the time that every file gives a check. Traefik's own is longer: its caller waits, and does not pass meanwhile.
PATIENCE = 4.0


async def status(world: World, target: str, token: str | None) -> int | None:
    """What a caller gets within its patience; None for nothing."""
    mark = f"down-{time.monotonic_ns()}"
    headers = [("Host", "shop.example"), ("X-Test-Id", mark)]
    if token is not None:
        headers.append(("Authorization", f"Bearer {token}"))
    connection = await Connection.open(world.gateway.ports.http)
    try:
        await connection.send(request("GET", target.encode(), headers))
        async with asyncio.timeout(PATIENCE):
            answered = (await connection.answer()).status
    except TimeoutError:
        return None
    finally:
        connection.close()
        passed = world.gateway.seen(mark) is not None
    assert not passed or answered == 200
    return answered


# What the gateways of their own answer where there is no answer; the others turn it into a 503.
NO_ANSWER = {("caddy", "refused"): 502, ("caddy", "silent"): 504, ("traefik", "refused"): 500}


@pytest.mark.parametrize("state", ["refused", "junk", "cut", "busy", "silent"])
async def test_nothing_passes_while_keyturn_cannot_be_asked(world: World, state: State) -> None:
    assert await status(world, "/orders", world.tokens.permitted) == 200
    await world.relay.turn(state)
    try:
        # With a good token, with none where none is needed: no decision, no pass.
        for target, token in (("/orders", world.tokens.permitted), ("/info", None))[: 1 if state == "silent" else 2]:
            answered = await status(world, target, token)
            if state == "silent" and world.gateway.kind.program == "traefik":
                assert answered is None
            elif state in ("refused", "silent", "busy"):
                assert answered == NO_ANSWER.get((world.gateway.kind.program, state), 503)
            else:
                assert answered is not None
                assert answered in (0, 403) or answered >= 500
    finally:
        await world.relay.turn("up")
    end = time.monotonic() + 30
    while await status(world, "/orders", world.tokens.permitted) != 200:
        assert time.monotonic() < end, "Keyturn could be asked again, and nothing passed for 30 s"
        await asyncio.sleep(0.1)
