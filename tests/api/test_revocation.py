"""Tokens that are given up or whose client was stopped: refused at every endpoint, by every replica, in time."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from keyturn.clients.state import ClientState
from keyturn.records import Kind
from tests.api.conftest import APP, SECRET, Running
from tests.api.installation import Installation, assertion, form
from tests.api.test_replicas import client, get_token, soon
from tests.api.test_token import basic

pytestmark = pytest.mark.asyncio(loop_scope="session")

API = basic("team.api", SECRET)  # may introspect any token
GONE: dict[str, Any] = {"active": False}


@dataclass(frozen=True)
class Worth:
    """What the endpoints make of one token, each by its own kind of answer."""

    tokeninfo: int
    auth: int
    introspection: dict[str, Any]

    @property
    def refused(self) -> bool:
        return (self.tokeninfo, self.auth, self.introspection) == (401, 401, GONE)

    @property
    def good(self) -> bool:
        return (self.tokeninfo, self.auth, self.introspection["active"]) == (200, 200, True)


async def ask(http: httpx2.AsyncClient, token: str, method: str = "GET") -> Worth:
    bearer = {"Authorization": f"Bearer {token}"}
    question = {"Original-Request-Uri": "/orders", "Original-Request-Method": method}
    info, auth, introspected = await asyncio.gather(
        http.get("/tokeninfo", headers=bearer),
        http.get("/auth", headers=bearer | question),
        http.post("/oauth/introspect", data={"token": token}, headers=API),
    )
    return Worth(info.status_code, auth.status_code, introspected.json())


async def revoke(http: httpx2.AsyncClient, token: str, client_id: str = "team.app", key: Any = APP) -> int:
    fields = form(assertion(key, client_id), token=token)
    return (await http.post("/oauth/revoke", data=fields)).status_code


async def test_a_revoked_token_is_refused_at_once_and_by_all_replicas_within_a_second(
    on_each_engine: Installation,
) -> None:
    installation = on_each_engine
    first, second = installation.start(), installation.start(workers="2")
    await asyncio.gather(first.ready(), second.ready())
    async with client(first) as one, client(second) as two:
        token, kept = await get_token(one), await get_token(one)

        async def everywhere(is_so: Callable[[Worth], bool]) -> bool:
            return all(is_so(worth) for worth in await asyncio.gather(*(ask(http, token) for http in (one, two) * 6)))

        assert await everywhere(lambda worth: worth.good)
        assert await revoke(one, token) == 200
        assert (await ask(one, token)).refused
        await soon(lambda: everywhere(lambda worth: worth.refused))
        assert (await ask(two, kept)).good
        # Again, elsewhere: no error, no effect.
        assert await revoke(two, token) == 200
        third = await installation.start().ready()
        async with client(third) as three:
            assert (await ask(three, token)).refused
            assert (await ask(three, kept)).good
    lines = [line for line in first.output().splitlines() if "token_revoked" in line]
    (record,) = [json.loads(line) for line in lines]
    assert (record["logger"], record["who"], record["client_id"]) == ("keyturn.audit", "team.app", "team.app")
    assert record["request_id"]
    assert token not in first.output()


async def test_a_replica_that_meets_a_rebuilt_store_brings_its_revocations_into_it(
    installation: Installation, tmp_path: Path
) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        token = await get_token(http)
        assert await revoke(http, token) == 200
        await installation.store.close()
        (tmp_path / "new").mkdir()
        rebuilt = Installation(tmp_path / "new")
        await rebuilt.store.open()
        await rebuilt.put(Kind.SIGNING_KEY, "keyturn", installation.ring.state().to_body())
        await rebuilt.add_key_client("team.app", APP)
        await rebuilt.add_secret_client("team.api", SECRET, introspection="any")
        await rebuilt.add_rules()
        await rebuilt.store.close()
        for file in tmp_path.glob("keyturn.sqlite*"):
            file.unlink()
        (tmp_path / "new" / "keyturn.sqlite").rename(tmp_path / "keyturn.sqlite")

        async def written_back() -> bool:
            return '"revocations_written_back": 1' in process.output() or (
                '"revocations_written_back":1' in process.output()
            )

        await soon(written_back, within=10)
        assert (await ask(http, token)).refused
        async with client(await installation.start().ready()) as other:

            async def refused() -> bool:
                return (await ask(other, token)).refused

            await soon(refused)


@dataclass
class World:
    """A running installation whose clients the tests of this module stop, each its own."""

    installation: Installation
    http: httpx2.AsyncClient

    async def token(self, client_id: str, **fields: Any) -> str:
        """A token of a client, as soon as the service knows it."""
        answers: list[httpx2.Response] = []

        async def given() -> bool:
            answers.append(await self.http.post("/oauth/token", data=form(assertion(APP, client_id), **fields)))
            return answers[-1].status_code == 200

        await soon(given, within=5)
        token: str = answers[-1].json()["access_token"]
        return token


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    installation = Installation(tmp_path_factory.mktemp("stopped"))
    await installation.open()
    await installation.add_secret_client("team.api", SECRET, introspection="any")
    await installation.add_rules()
    try:
        process = await installation.start(accepted_audiences="orders,stock").ready()
        async with client(process) as http:
            yield World(installation, http)
    finally:
        await installation.close()


Stop = Callable[[World, ClientState, str], Awaitable[object]]


def changed(**changes: Any) -> Stop:
    return lambda world, state, _: world.installation.put_client(replace(state, **changes))


async def _recreate(world: World, state: ClientState, _: str) -> None:
    await world.installation.remove(Kind.CLIENT, state.client_id)
    await world.installation.put_client(replace(state, created_at=float(int(time.time()) + 1)))


STOPS: dict[str, Stop] = {
    "deleted": lambda world, state, _: world.installation.remove(Kind.CLIENT, state.client_id),
    "deleted and made anew": _recreate,
    "suspended": changed(suspended=True),
    "expired": changed(expires_at=1.0),
    "told to revoke what it has": changed(revoke_before=4e9),
    "without any audience that is accepted here": changed(audiences=("elsewhere",)),
    "the holder of a revoked token": lambda world, state, token: revoke(world.http, token, state.client_id),
}


@pytest.mark.parametrize("name", STOPS)
async def test_the_token_of_a_client_that_is_is_refused_everywhere(world: World, name: str) -> None:
    client_id = f"team.{name.replace(' ', '-')}"
    state = await world.installation.add_key_client(client_id, APP)
    token = await world.token(client_id)
    assert (await ask(world.http, token)).good
    await STOPS[name](world, state, token)

    async def refused() -> bool:
        return (await ask(world.http, token)).refused

    await soon(refused)
    # A public route lets it pass, as it lets everybody, but as nobody.
    public = {"Original-Request-Uri": "/open", "Original-Request-Method": "GET", "Authorization": f"Bearer {token}"}
    answer = await world.http.get("/auth", headers=public)
    assert (answer.status_code, answer.headers["mia-clientid"]) == (200, "")


async def test_a_suspended_client_goes_on_with_its_old_token_once_it_is_resumed(world: World) -> None:
    state = await world.installation.add_key_client("team.paused", APP)
    token = await world.token("team.paused")
    await world.installation.put_client(replace(state, suspended=True))

    async def refused() -> bool:
        return (await ask(world.http, token)).refused

    async def good() -> bool:
        return (await ask(world.http, token)).good

    await soon(refused)
    assert (await world.http.post("/oauth/token", data=form(assertion(APP, "team.paused")))).status_code == 401
    await world.installation.put_client(state)
    await soon(good)
    assert await world.token("team.paused")


async def test_what_was_taken_from_a_client_is_gone_from_its_tokens_everywhere(world: World) -> None:
    state = await world.installation.add_key_client("team.less", APP, audiences=("orders", "stock"))
    token = await world.token("team.less")
    await world.installation.put_client(replace(state, permissions=("orders:write",), audiences=("stock",)))

    async def less() -> bool:
        worth = await ask(world.http, token)
        return (worth.auth, worth.introspection["permissions"]) == (403, ["orders:write"])

    await soon(less)
    info = (await world.http.get("/tokeninfo", headers={"Authorization": f"Bearer {token}"})).json()
    seen = (await ask(world.http, token, "POST")).introspection
    for claims in (info, seen):
        assert (claims["permissions"], claims["scope"], claims["aud"]) == (["orders:write"], "orders:write", ["stock"])
    assert (await ask(world.http, token, "POST")).good


@pytest.mark.parametrize(
    ("of_client", "of_installation", "refused"),
    [
        pytest.param(-60, None, False, id="the client's, and it is earlier"),
        pytest.param(60, None, True, id="the client's, and it is later"),
        pytest.param(None, -60, False, id="the installation's, and it is earlier"),
        pytest.param(None, 60, True, id="the installation's, and it is later"),
        pytest.param(60, -60, True, id="both, and the client's is later"),
        pytest.param(-60, 60, True, id="both, and the installation's is later"),
        pytest.param(-60, -30, False, id="both, and both are earlier"),
    ],
)
async def test_tokens_issued_before_a_moment_are_refused_by_the_later_one(
    world: World, of_client: int | None, of_installation: int | None, refused: bool
) -> None:
    now = time.time()
    moments = [None if shift is None else now + shift for shift in (of_client, of_installation)]
    state = await world.installation.add_key_client("team.moment", APP, created_at=float(int(now) - 300))
    token = await world.token("team.moment")
    await world.installation.put_client(replace(state, revoke_before=moments[0]))
    await world.installation.use_ring(world.installation.ring, mount=False, revoke_before=moments[1])
    try:
        revision = (await world.installation.store.changes(None)).position.revision

        async def applied() -> bool:
            rows = await world.installation.store.replicas(seen_since=0)
            return bool(rows) and all(row.applied_revision >= revision for row in rows)

        await soon(applied, within=3)
        worth = await ask(world.http, token)
        assert worth.refused if refused else worth.good
    finally:
        await world.installation.use_ring(world.installation.ring, mount=False)


async def test_a_client_sees_and_revokes_its_own_tokens_only(shared: Running) -> None:
    token = await get_token(shared.http)
    others = basic("team.secret", SECRET)
    assert (await shared.http.post("/oauth/introspect", data={"token": token}, headers=others)).json() == GONE
    for headers in (others, API):
        answer = await shared.http.post("/oauth/revoke", data={"token": token}, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
    assert (await ask(shared.http, token)).good
    assert await revoke(shared.http, token) == 200
    assert (await ask(shared.http, token)).refused


async def test_an_answer_about_a_token_is_kept_nowhere(shared: Running) -> None:
    for path in ("/oauth/introspect", "/oauth/revoke"):
        for headers, status in ((API, 200), (basic("team.api", b"wrong"), 401)):
            answer = await shared.http.post(path, data={"token": "x"}, headers=headers)
            assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")
        assert answer.headers["www-authenticate"].startswith("Basic")


async def test_with_the_store_away_nothing_is_revoked_and_the_answer_says_so(
    installation: Installation, tmp_path: Path
) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        token = (
            await http.post(
                "/oauth/token", data={"grant_type": "client_credentials"}, headers=basic("team.secret", SECRET)
            )
        ).json()["access_token"]
        for file in tmp_path.glob("keyturn.sqlite*"):
            file.rename(file.with_name(f"away-{file.name}"))
        (tmp_path / "keyturn.sqlite").mkdir()  # so that no new one can be made in its place
        answer = await http.post("/oauth/revoke", data={"token": token}, headers=basic("team.secret", SECRET))
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await ask(http, token)).good
        (tmp_path / "keyturn.sqlite").rmdir()
        for file in tmp_path.glob("away-*"):
            file.rename(file.with_name(file.name.removeprefix("away-")))

        async def revoked() -> bool:
            fields = {"token": token}
            answer = await http.post("/oauth/revoke", data=fields, headers=basic("team.secret", SECRET))
            return answer.status_code == 200

        await soon(revoked, within=10)
        assert (await ask(http, token)).refused
