"""A caller's trace goes on through the gateway into the check."""

import secrets

import pytest

from tests.gateways.conftest import World
from tests.gateways.wire import Connection, request

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_check_belongs_to_the_callers_trace(world: World) -> None:
    # W3C Trace Context section 3.2: version, trace, parent, flags.
    traceparent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    connection = await Connection.open(world.gateway.ports.http)
    try:
        headers = [
            ("Host", "shop.example"),
            ("Authorization", f"Bearer {world.tokens.permitted}"),
            ("Traceparent", traceparent),
        ]
        await connection.send(request("GET", b"/orders", headers))
        assert (await connection.answer()).status == 200
    finally:
        connection.close()
    # Also in a message of Envoy's by gRPC, where the header's value stands as it is.
    assert traceparent.encode() in bytes(world.relay.asked)
