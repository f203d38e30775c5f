"""Replicas and workers: what one of them may do once, and how soon all of them follow a change."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from keyturn.keys.plan import withdraw
from keyturn.keys.state import KeyPhase
from keyturn.records import Kind
from keyturn.store import schema
from tests.api.conftest import APP, SECRET
from tests.api.installation import ApiProcess, Installation, assertion, form
from tests.api.test_token import basic

pytestmark = pytest.mark.asyncio(loop_scope="session")
PROPAGATION = 1.0


async def get_token(http: httpx2.AsyncClient) -> str:
    answer = await http.post("/oauth/token", data=form(assertion(APP, "team.app")))
    assert answer.status_code == 200, answer.text
    value: str = answer.json()["access_token"]
    return value


async def soon(probe: Callable[[], Awaitable[bool]], within: float = PROPAGATION) -> float:
    """Seconds until the probe holds; fails when that takes longer than `within`."""
    started = time.monotonic()
    while not await probe():
        assert time.monotonic() - started < within, "not in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - started


def client(process: ApiProcess) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=process.url)


async def decide(http: httpx2.AsyncClient, token: str, path: str = "/orders", method: str = "GET") -> int:
    headers = {
        "Authorization": f"Bearer {token}",
        "Original-Request-Uri": path,
        "Original-Request-Method": method,
    }
    return (await http.get("/auth", headers=headers)).status_code


async def test_an_assertion_replayed_at_two_replicas_at_once_counts_once(on_each_engine: Installation) -> None:
    installation = on_each_engine
    first, second = installation.start(), installation.start(workers="2")
    await asyncio.gather(first.ready(), second.ready())
    async with client(first) as one, client(second) as two:
        for _ in range(10):
            fields = form(assertion(APP, "team.app"))
            answers = await asyncio.gather(*(http.post("/oauth/token", data=fields) for http in (one, two) * 4))
            assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7


async def test_a_change_reaches_every_worker_and_tokens_already_issued_within_a_second(
    on_each_engine: Installation,
) -> None:
    installation = on_each_engine
    first, second = installation.start(), installation.start(workers="2")
    await asyncio.gather(first.ready(), second.ready())
    async with client(first) as one, client(second) as two:
        token = await get_token(one)
        state = replace(await installation.add_key_client("team.app", APP), permissions=("orders:read", "orders:write"))

        async def everywhere(expected: int) -> bool:
            answers = await asyncio.gather(*(decide(http, token) for http in (one, two) * 6))
            return set(answers) == {expected}

        await soon(lambda: everywhere(200))
        await installation.put_client(replace(state, permissions=("orders:write",)))
        await soon(lambda: everywhere(403))
        await installation.put_client(replace(state, suspended=True))
        await soon(lambda: everywhere(401))
        assert (await one.post("/oauth/token", data=form(assertion(APP, "team.app")))).status_code == 401
        await installation.put_client(state)
        await soon(lambda: everywhere(200))
        await installation.remove(Kind.ACCESS_RULE, "orders")
        await soon(lambda: everywhere(403))
        await installation.add_rules()
        await soon(lambda: everywhere(200))
        await installation.remove(Kind.CLIENT, "team.app")
        await soon(lambda: everywhere(401))


async def test_every_worker_is_a_replica_that_tells_its_revision_and_leaves_at_the_end(
    installation: Installation,
) -> None:
    process = await installation.start(workers="2").ready()
    revision = (await installation.store.changes(None)).position.revision
    kids = tuple(sorted(installation.ring.private))

    async def told() -> bool:
        found = await installation.store.replicas(seen_since=0)
        return [(row.applied_revision, row.loaded_kids) for row in found] == [(revision, kids)] * 2

    await soon(told, within=3)
    assert process.end() == 0
    assert await installation.store.replicas(seen_since=0) == []


async def test_without_the_active_keys_private_half_it_gives_no_token_and_decides_on(
    installation: Installation,
) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        token = await get_token(http)
        promoted = replace(
            installation.ring,
            keys=tuple(
                replace(key, phase=KeyPhase.ACTIVE if key.phase is KeyPhase.NEXT else KeyPhase.RETIRED)
                for key in installation.ring.keys
            ),
        )
        installation.mount(replace(installation.ring, keys=promoted.keys[:0], private={}))
        await installation.use_ring(promoted, mount=False)

        async def without() -> bool:
            return (await http.post("/oauth/token", data=form(assertion(APP, "team.app")))).status_code == 503

        await soon(without, within=5)
        answer = await http.post("/oauth/token", data=form(assertion(APP, "team.app")))
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert answer.headers["retry-after"]
        assert (await http.get("/readyz")).status_code == 200, "for a while, since all else goes on"
        assert await decide(http, token) == 200
        installation.mount(promoted)

        async def again() -> bool:
            return not await without()

        await soon(again, within=5)
        fresh = await get_token(http)
        assert await decide(http, fresh) == 200
        assert await decide(http, token) == 200


async def test_a_damaged_key_directory_changes_nothing(installation: Installation) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        current = (installation.keys / "..data").resolve()
        (current / "keyring.json").write_text("{")
        broken = installation.keys / "..broken"
        broken.mkdir()
        (broken / "keyring.json").write_text("{")
        link = installation.keys / "..data.new"
        link.symlink_to(broken.name)
        link.rename(installation.keys / "..data")

        async def noticed() -> bool:
            return "signing_keys_damaged" in process.output()

        await soon(noticed, within=5)
        assert (await http.get("/readyz")).status_code == 200
        assert await get_token(http)


async def test_a_compromised_key_is_gone_from_jwks_and_verifies_nothing(installation: Installation) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        token = await get_token(http)
        active = installation.ring.in_phase(KeyPhase.ACTIVE)[0].kid
        await installation.use_ring(withdraw(installation.ring, {active}), mount=False)

        async def withdrawn() -> bool:
            return await decide(http, token) == 401

        await soon(withdrawn)
        assert (await http.get("/tokeninfo", headers={"Authorization": f"Bearer {token}"})).status_code == 401
        introspected = await http.post("/oauth/introspect", data={"token": token}, headers=basic("team.api", SECRET))
        assert introspected.json() == {"active": False}
        keys = (await http.get("/.well-known/jwks.json")).json()["keys"]
        assert active not in [key["kid"] for key in keys]
        assert (await http.post("/oauth/token", data=form(assertion(APP, "team.app")))).status_code == 503


@contextlib.contextmanager
def store_away(folder: Path) -> Iterator[Path]:
    """The file of the store, where no replica finds it."""
    database = folder / "keyturn.sqlite"
    for file in folder.glob("keyturn.sqlite*"):
        file.rename(file.with_name(f"away-{file.name}"))
    database.mkdir()  # so that no new one can be made in its place
    try:
        yield folder / "away-keyturn.sqlite"
    finally:
        database.rmdir()
        for file in folder.glob("away-*"):
            file.rename(file.with_name(file.name.removeprefix("away-")))


def set_schema_version(database: Path, version: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as file, file:
        file.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '{version}'")


async def test_a_replica_of_the_older_version_serves_on_when_a_newer_one_has_migrated_and_the_store_went_away_once(
    installation: Installation, tmp_path: Path
) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        token = await get_token(http)
        with store_away(tmp_path) as database:
            assert (await http.post("/oauth/token", data=form(assertion(APP, "team.app")))).status_code == 503
            set_schema_version(database, "9999")
        for _ in range(20):
            assert await decide(http, token) == 200
            refused = await http.post("/oauth/token", data=form(assertion(APP, "team.app")))
            assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
            await asyncio.sleep(0.1)
        set_schema_version(tmp_path / "keyturn.sqlite", schema.HEAD)

        async def back() -> bool:
            return (await http.post("/oauth/token", data=form(assertion(APP, "team.app")))).status_code == 200

        await soon(back, within=10)


async def test_with_the_store_away_decisions_go_on_and_assertions_get_503(
    installation: Installation, tmp_path: Path
) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        token = await get_token(http)
        with store_away(tmp_path):
            answer = await http.post("/oauth/token", data=form(assertion(APP, "team.app")))
            assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
            assert answer.headers["retry-after"]
            assert await decide(http, token) == 200
            assert (await http.get("/tokeninfo", headers={"Authorization": f"Bearer {token}"})).status_code == 200
            assert (await http.get("/.well-known/jwks.json")).status_code == 200
            secret = await http.post(
                "/oauth/token", data={"grant_type": "client_credentials"}, headers=basic("team.secret", SECRET)
            )
            assert secret.status_code == 200

        async def back() -> bool:
            return (await http.post("/oauth/token", data=form(assertion(APP, "team.app")))).status_code == 200

        await soon(back, within=10)


async def test_an_assertion_used_before_the_store_was_replaced_is_never_accepted_again(
    installation: Installation, tmp_path: Path
) -> None:
    process = await installation.start(workers="2").ready()
    used = [form(assertion(APP, "team.app")) for _ in range(20)]
    async with client(process) as http:
        answers = await asyncio.gather(*(http.post("/oauth/token", data=fields) for fields in used))
        assert {answer.status_code for answer in answers} == {200}
        # A store that holds all but the used jtis and the revocations, as the operator rebuilds it; it is put in place
        # while the replica does not look.
        await installation.store.close()
        (tmp_path / "new").mkdir()
        rebuilt = Installation(tmp_path / "new")
        await rebuilt.store.open()
        await rebuilt.put(Kind.SIGNING_KEY, "keyturn", installation.ring.state().to_body())
        await rebuilt.add_key_client("team.app", APP)
        await rebuilt.store.close()
        for file in tmp_path.glob("keyturn.sqlite*"):
            file.unlink()
        (tmp_path / "new" / "keyturn.sqlite").rename(tmp_path / "keyturn.sqlite")
        # At once: before anyone noticed; and again and again, until long after all have.
        statuses: set[int] = set()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            answers = await asyncio.gather(*(http.post("/oauth/token", data=fields) for fields in used))
            statuses |= {answer.status_code for answer in answers}
            refused = [answer for answer in answers if answer.status_code == 503]
            assert all(answer.json()["error"] == "temporarily_unavailable" for answer in refused)
            assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert statuses == {503, 401}

        async def goes_on() -> bool:
            return (await http.post("/oauth/token", data=form(assertion(APP, "team.app")))).status_code == 200

        await soon(goes_on, within=3)
    assert "store_replaced" in process.output()


async def test_after_ten_wrong_secrets_an_address_waits(installation: Installation) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        grant = {"grant_type": "client_credentials"}
        for _ in range(10):
            assert (await http.post("/oauth/token", data=grant, headers=basic("team.secret", b"no"))).status_code == 401
        answer = await http.post("/oauth/token", data=grant, headers=basic("team.secret", SECRET))
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 61
        assert await get_token(http)


async def test_a_storm_of_wrong_secrets_neither_fails_nor_slows_decisions(installation: Installation) -> None:
    process = await installation.start(secret_failures_per_minute="0", bcrypt_cost="12", hash_queue="4").ready()
    async with client(process) as http:
        token = await get_token(http)
        grant = {"grant_type": "client_credentials"}
        began = time.monotonic()
        assert (await http.post("/oauth/token", data=grant, headers=basic("team.secret", b"no"))).status_code == 401
        one_hash = time.monotonic() - began
        storm = [
            asyncio.ensure_future(
                http.post("/oauth/token", data=grant, headers=basic("team.secret", b"no %d" % number), timeout=60)
            )
            for number in range(20)
        ]
        taken = []
        while not all(request.done() for request in storm):
            began = time.monotonic()
            assert await decide(http, token) == 200
            taken.append(time.monotonic() - began)
            await asyncio.sleep(0.01)
        assert {answer.status_code for answer in await asyncio.gather(*storm)} == {401, 503}
        # Four hashes take about a second. A decision that had to wait for one of them would take as long as that one.
        assert len(taken) > 10
        assert sorted(taken)[int(len(taken) * 0.95)] < one_hash / 2


async def test_at_sigterm_it_is_not_ready_and_still_serves_until_the_delay_is_over(installation: Installation) -> None:
    process = await installation.start(shutdown_delay="2").ready()
    async with client(process) as http:
        token = await get_token(http)
        process.process.send_signal(signal.SIGTERM)

        async def ending() -> bool:
            return (await http.get("/readyz")).status_code == 503

        await soon(ending, within=1.5)
        assert await decide(http, token) == 200
    assert process.end() == 0


async def test_a_worker_that_dies_is_replaced(installation: Installation) -> None:
    process = await installation.start(workers="2").ready()
    children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text().split()
    assert len(children) == 2
    subprocess.run(["kill", "-9", children[0]], check=True)
    await asyncio.sleep(0.3)
    await process.ready()
    async with client(process) as http:
        assert await get_token(http)

        async def counted() -> bool:
            return (
                'keyturn_api_requests_total{endpoint="token",outcome="ok"}'
                in (await http.get(process.metrics_url)).text
            )

        await soon(counted, within=3)
    assert process.end() == 0


async def test_several_workers_show_all_their_requests_also_when_they_have_ended_since(
    installation: Installation,
) -> None:
    process = await installation.start(workers="2").ready()
    children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text().split()
    async with client(process) as http:
        for _ in range(20):
            await http.get("/.well-known/jwks.json", headers={"Connection": "close"})
        # At their end they hand on what they have counted since the last time.
        subprocess.run(["kill", *children], check=True)

        async def all_counted() -> bool:
            text = (await http.get(process.metrics_url)).text
            timed = 'keyturn_api_request_seconds_bucket{endpoint="jwks",le="+Inf",outcome="ok"} 20.0' in text
            return timed and 'keyturn_api_requests_total{endpoint="jwks",outcome="ok"} 20.0' in text

        await soon(all_counted, within=10)


async def test_when_the_supervisor_dies_its_workers_end_too(installation: Installation) -> None:
    process = await installation.start(workers="2").ready()
    children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text().split()
    process.end(signal.SIGKILL)

    async def gone() -> bool:
        return not any(_alive(int(child)) for child in children)

    await soon(gone, within=5)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_starts_before_the_store_has_anything_and_says_that_it_is_not_ready(tmp_path: Path) -> None:
    empty = Installation(tmp_path)
    try:
        process = empty.start()
        async with client(process) as http:

            async def answering() -> bool:
                try:
                    reasons: list[str] = (await http.get("/readyz")).json()["reasons"]
                except httpx2.TransportError:
                    return False
                return reasons == ["active_signing_key_missing"]

            await soon(answering, within=20)
            assert (await http.get("/healthz")).status_code == 200
    finally:
        await empty.close()


async def test_under_a_prefix_with_profile_envoy_and_an_issuer_with_a_path(installation: Installation) -> None:
    issuer = "https://api.example/tenant"
    process = await installation.start(
        issuer=issuer, service_prefix="/tenant", gateway_profile="envoy", header_prefix="x-auth-", token_typ="JWT"
    ).ready()
    async with client(process) as http:
        inserted = (await http.get("/.well-known/oauth-authorization-server/tenant")).json()
        assert inserted["token_endpoint"] == f"{issuer}/oauth/token"
        assert (await http.get("/tenant/.well-known/openid-configuration")).json()["issuer"] == issuer
        answer = await http.post("/tenant/oauth/token", data=form(assertion(APP, "team.app", aud=issuer)))
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        allowed = await http.get("/tenant/auth/orders/7?x=1", headers=headers)
        assert (allowed.status_code, allowed.headers["x-auth-clientid"]) == (200, "team.app")
        assert (await http.post("/tenant/auth/nowhere", headers=headers)).status_code == 403
        assert (await http.get("/auth/orders", headers=headers)).status_code == 404


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"KEYTURN_ISSUER": ""}, "KEYTURN_ISSUER", id="no issuer"),
        pytest.param({"KEYTURN_WORKERS": "0"}, "KEYTURN_WORKERS", id="no workers"),
        pytest.param({"KEYTURN_STORE_URL": "mysql://user:hunter2@x/y"}, "store", id="a store of another kind"),
    ],
)
async def test_wrong_settings_end_it_at_once_and_are_named_without_their_value(
    changes: dict[str, str], words: str, tmp_path: Path
) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "KEYTURN_ISSUER": "https://issuer.example",
        "KEYTURN_STORE_URL": f"sqlite:///{tmp_path}/x.sqlite",
        "KEYTURN_HTTP_PORT": "0",
        "KEYTURN_METRICS_PORT": "0",
        **changes,
    }
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "keyturn_api.main"],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode in (1, 2)
    message = ended.stderr.decode()
    assert words in message
    assert "hunter2" not in message
    assert "Traceback" not in message
