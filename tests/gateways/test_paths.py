"""Every line of the path corpus through every gateway: what reaches the API was allowed, whatever the gateway made of the path.

A gateway may refuse a path itself, and it may make it simpler before it asks: then the simpler path counts, if the API gets that one.
"""

import re

import pytest

from keyturn.expressions import Subject
from keyturn.rules.decision import Outcome, decide
from tests.gateways.conftest import PERMISSIONS, TABLE, World
from tests.gateways.gateways import Way
from tests.unit.rules import corpus

pytestmark = pytest.mark.asyncio(loop_scope="session")

PERMITTED = Subject(permissions=frozenset(PERMISSIONS))
STATUS = {"allow": 200, "login": 401, "denied": 403}
# Nothing in them that a gateway could take in another way: these are decided exactly as the corpus says.
CLEAR = re.compile(r"/(?!/?\.)(?:[A-Za-z0-9/?=&-]|%69|%C3%A8)*", re.ASCII)
# What gateways refuse although it would be allowed, each with those that do.
REFUSED_BY = {
    r"/private/caff\xc3\xa8": {"envoy", "haproxy"},  # bytes that are not ASCII, in HTTP/1
    "http://shop.example/info": set[str](),
    "http://shop.example/private": set[str](),
    "HTTPS://shop.example:443/private": {"envoy"},  # https, on a connection that is not
    "http://shop.example/info/../private": set[str](),
}
ABSOLUTE = {text for text in REFUSED_BY if "://" in text}


@pytest.mark.parametrize("line", [pytest.param(line, id=line.text) for line in corpus.lines()])
async def test_what_reaches_the_api_was_allowed(world: World, line: corpus.Line) -> None:
    for way in ("plain", "HTTP/2"):
        await judge(world, line, way, line.anonymous, subject=None, token=None)
        await judge(world, line, way, line.permitted, subject=PERMITTED, token=world.tokens.permitted)


async def judge(
    world: World, line: corpus.Line, way: Way, expected: str, *, subject: Subject | None, token: str | None
) -> None:
    came_to = await world.gateway.ask("GET", line.target, token=token, way=way)
    situation = f"over {way}, {'without a token' if token is None else 'permitted'}"
    seen = came_to.seen
    if seen is not None:
        decision = decide(TABLE, method=seen.method, target=seen.target, host=seen.host, subject=subject)
        assert decision.outcome is Outcome.ALLOW, f"{situation}: the API got {seen.target!r}"
        assert seen.target != line.target or expected == "allow", situation
        assert came_to.answer.status == 200, situation
    else:
        assert came_to.answer.status == 0 or came_to.answer.status >= 400, situation
        if expected == "allow":
            # HTTP/2 has no absolute form; over HTTP/1 all gateways take it.
            refused = world.gateway.kind.program in REFUSED_BY.get(line.text, set())
            assert refused or (way == "HTTP/2" and line.text in ABSOLUTE), situation
    if CLEAR.fullmatch(line.text):
        assert came_to.answer.status == STATUS[expected], situation


async def test_there_are_clear_lines() -> None:
    assert sum(CLEAR.fullmatch(line.text) is not None for line in corpus.lines()) >= 20
