"""Signing keys as API processes use them: every algorithm, a withdrawal in all workers at once, a key that leaves by the clock."""

import asyncio
import time
from dataclasses import replace

import httpx2
import jwt
import pytest

from keyturn.jose.algorithms import GENERATED_SIZES
from keyturn.keys.plan import ensure, with_generated
from keyturn.keys.ring import KeyRing
from keyturn.keys.state import Ceiling, KeyPhase
from keyturn.records import Kind
from tests.api.conftest import APP
from tests.api.installation import ISSUER, Installation, assertion, form
from tests.api.test_replicas import client, decide, get_token, soon
from tests.sample_keys import sample_key

pytestmark = pytest.mark.asyncio(loop_scope="session")


def ring_of(algorithm: str, *, first: int, now: float) -> KeyRing:
    plan = ensure(None, algorithm=algorithm, size=max(GENERATED_SIZES[algorithm]), now=now)
    generated = {KeyPhase.ACTIVE: sample_key(algorithm, first), KeyPhase.NEXT: sample_key(algorithm, first + 1)}
    return with_generated(plan, generated, now=now).written(now)


async def test_tokens_of_each_algorithm_verify_by_the_jwks_and_the_metadata_names_it(
    installation: Installation,
) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        for number, algorithm in enumerate(("PS256", "ES256", "RS256")):
            ring = ring_of(algorithm, first=20 + 2 * number, now=time.time())
            await installation.use_ring(ring)

            async def signs(ring: KeyRing = ring) -> bool:
                answer = await http.post("/oauth/token", data=form(assertion(APP, "team.app")))
                return answer.status_code == 200 and kid_of(answer.json()["access_token"]) == ring.keys[0].kid

            await soon(signs, within=5.0)
            token = await get_token(http)
            jwks = jwt.PyJWKSet.from_dict((await http.get("/.well-known/jwks.json")).json())
            assert {key.key_id for key in jwks.keys} == {key.kid for key in ring.keys}
            claims = jwt.decode(token, jwks[kid_of(token)], algorithms=[algorithm], issuer=ISSUER, audience="orders")
            assert claims["client_id"] == "team.app"
            assert await decide(http, token) == 200
            metadata = (await http.get("/.well-known/openid-configuration")).json()
            assert metadata["id_token_signing_alg_values_supported"] == [algorithm]


def kid_of(token: str) -> str:
    kid = jwt.get_unverified_header(token)["kid"]
    assert isinstance(kid, str)
    return kid


async def test_a_withdrawal_of_all_keys_reaches_every_worker_within_a_second_and_new_keys_end_the_gap(
    installation: Installation,
) -> None:
    first, second = installation.start(workers="2"), installation.start()
    await asyncio.gather(first.ready(), second.ready())
    # A connection each: of two workers both are asked.
    https = [client(process) for process in (first, first, first, first, second)]
    try:
        token = await get_token(https[0])
        old = {key.kid for key in installation.ring.keys}
        plan = ensure(installation.ring, algorithm="RS256", size=2048, now=time.time(), compromised=old)
        await installation.use_ring(plan.ring.written(time.time()))

        async def refused_everywhere() -> bool:
            answers = await asyncio.gather(*(decide(http, token) for http in https))
            return answers == [401] * len(https)

        await soon(refused_everywhere)
        for http in https:
            assert (await http.get("/.well-known/jwks.json")).json() == {"keys": []}
            gap = await http.post("/oauth/token", data=form(assertion(APP, "team.app")))
            assert (gap.status_code, gap.json()["error"]) == (503, "temporarily_unavailable")
            assert int(gap.headers["retry-after"]) > 0
            # The rest goes on: public routes, tokens of others, the JWKS. So load balancers must not leave the replicas out.
            assert (await http.get("/readyz")).json() == {"status": "ok", "reasons": []}
        late = installation.start()
        async with client(late) as started:

            async def knows_why_it_is_not_ready() -> bool:
                try:
                    reasons = (await started.get("/readyz")).json()["reasons"]
                except httpx2.TransportError:
                    return False
                return bool(reasons == ["active_signing_key_missing"])

            await soon(knows_why_it_is_not_ready, within=30.0)

        generated = {KeyPhase.ACTIVE: sample_key(number=30), KeyPhase.NEXT: sample_key(number=31)}
        await installation.use_ring(
            with_generated(
                ensure(plan.ring, algorithm="RS256", size=2048, now=time.time()), generated, now=time.time()
            ).written(time.time())
        )

        async def signs_everywhere() -> bool:
            statuses = [
                (await http.post("/oauth/token", data=form(assertion(APP, "team.app")))).status_code for http in https
            ]
            return statuses == [200] * len(https)

        await soon(signs_everywhere, within=5.0)
        assert await refused_everywhere(), "the old keys' tokens stay refused"
    finally:
        await asyncio.gather(*(http.aclose() for http in https))


async def test_a_retired_key_leaves_the_jwks_at_its_time_without_anybody_s_doing(installation: Installation) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        token = await get_token(http)
        now = time.time()
        plan = ensure(installation.ring, algorithm="RS256", size=2048, now=now)
        active, following = plan.ring.keys[0], plan.ring.keys[1]
        keys = (
            replace(following, phase=KeyPhase.ACTIVE, activated_at=now),
            replace(active, phase=KeyPhase.RETIRED, retired_at=now, remove_at=now + 3),
        )
        ring = replace(installation.ring, keys=keys).written(now)
        installation.mount(ring)
        state = replace(ring.state(), cache=Ceiling(30.0))
        await installation.put(Kind.SIGNING_KEY, "keyturn", state.to_body())

        async def rotated() -> bool:
            return kid_of(await get_token(http)) == following.kid

        await soon(rotated, within=2.5)
        answer = await http.get("/.well-known/jwks.json")
        assert {key["kid"] for key in answer.json()["keys"]} == {active.kid, following.kid}
        max_age = int(answer.headers["cache-control"].rpartition("=")[2])
        assert max_age <= 3, "nobody keeps it past the removal"
        assert await decide(http, token) == 200
        again = await http.get("/.well-known/jwks.json", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")

        async def gone() -> bool:
            return await decide(http, token) == 401

        await soon(gone, within=4.0)
        kids = [key["kid"] for key in (await http.get("/.well-known/jwks.json")).json()["keys"]]
        assert kids == [following.kid]


async def test_a_flood_of_unknown_kids_is_refused_and_others_are_served_meanwhile(installation: Installation) -> None:
    process = await installation.start().ready()
    async with client(process) as http:
        token = await get_token(http)
        forged = [
            jwt.encode({"iss": ISSUER, "sub": "x"}, "k" * 32, "HS256", {"kid": f"k{number}"}) for number in range(200)
        ]

        async def flood() -> set[int]:
            async with httpx2.AsyncClient(base_url=process.url) as other:
                return {await decide(other, one) for one in forged}

        flooding = asyncio.create_task(flood())
        while not flooding.done():
            assert await decide(http, token) == 200
            await asyncio.sleep(0.02)
        assert flooding.result() == {401}
