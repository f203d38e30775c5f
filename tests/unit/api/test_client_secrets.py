"""Client secrets: how often one is hashed, what counts as a guess, and how long a wrong one takes."""

import asyncio

import bcrypt
import pytest

from keyturn.clients.state import CLIENT_SECRET_BASIC, SecretHash
from keyturn.secrets import hash_secret
from keyturn_api.client_secrets import SecretVerifier
from tests.unit.api.endpoints import Endpoint, basic, secret_world
from tests.unit.tokens.worlds import CLIENT_ID, NOW, client_state


def hashings(endpoint: Endpoint) -> list[bytes]:
    """The secrets that are hashed slowly from now on."""
    hashed: list[bytes] = []
    check = endpoint.verifier._check

    def checking(secret: bytes, hashes: tuple[SecretHash, ...]) -> SecretHash | None:
        hashed.append(secret)
        return check(secret, hashes)

    endpoint.verifier._check = checking  # type: ignore[method-assign]
    return hashed


async def test_a_crowd_with_one_right_secret_is_hashed_once_and_is_no_crowd_of_guesses() -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_secret(b"one", 4), None, "uid/1")), limit=2, hash_queue=1)
    hashed = hashings(endpoint)
    answers = await asyncio.gather(*(endpoint.send(basic(b"one")) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert hashed == [b"one"]
    for _ in range(2):  # nothing of it was counted
        assert (await endpoint.send(basic(b"no"))).status == 401


@pytest.mark.parametrize(
    "client_id", [pytest.param(CLIENT_ID, id="of a client"), pytest.param("nobody", id="of nobody")]
)
async def test_in_a_crowd_with_one_wrong_secret_each_counts_although_it_is_hashed_once(client_id: str) -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_secret(b"one", 4), None, "uid/1")), limit=3)
    hashed = hashings(endpoint)
    answers = await asyncio.gather(*(endpoint.send(basic(b"no", client_id)) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [401, 401, 401, 429, 429]
    assert hashed == [b"no"]
    assert (await endpoint.send(basic(b"one"))).status == 429


async def test_who_waits_for_the_hashing_of_another_that_goes_is_answered_all_the_same() -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_secret(b"one", 4), None, "uid/1")))
    first, second = (asyncio.create_task(endpoint.send(basic(b"one"))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).status == 200


async def test_a_secret_is_hashed_anew_against_the_hash_that_came_while_the_old_one_was_tried() -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_secret(b"one", 4), None, "uid/1")))
    early = asyncio.create_task(endpoint.send(basic(b"two")))
    await asyncio.sleep(0)
    endpoint.world.change_client(
        auth_method=CLIENT_SECRET_BASIC, keys=(), secrets=(SecretHash(hash_secret(b"two", 4), None, "uid/2"),)
    )
    assert (await endpoint.send(basic(b"two"))).status == 200
    assert (await early).status == 401


@pytest.mark.parametrize(
    ("costs", "secret", "spent"),
    [
        pytest.param((), b"no", 64, id="no such client"),
        pytest.param((4,), b"no", 64, id="a hash of a lower cost"),
        pytest.param((6,), b"no", 64, id="a hash of the same cost"),
        pytest.param((7,), b"no", 128, id="a hash of a higher cost, which takes its time"),
        pytest.param((4, 5), b"no", 64, id="two hashes"),
        pytest.param((4,), b"x" * 73, 64, id="a secret that no hash takes"),
    ],
)
async def test_a_wrong_secret_takes_the_time_that_an_unknown_client_takes(
    costs: tuple[int, ...], secret: bytes, spent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = tuple(SecretHash(hash_secret(b"one", cost), None, "uid/1") for cost in costs)
    verifier = SecretVerifier(cost=6, queue=1, capacity=10)
    taken: list[int] = []
    check, make = bcrypt.checkpw, bcrypt.hashpw

    def checking(password: bytes, hashed: bytes) -> bool:
        taken.append(1 << int(hashed[4:6]))
        return check(password, hashed)

    def making(password: bytes, salt: bytes) -> bytes:
        taken.append(1 << int(salt[4:6]))
        return make(password, salt)

    monkeypatch.setattr(bcrypt, "checkpw", checking)
    monkeypatch.setattr(bcrypt, "hashpw", making)
    state = client_state(auth_method=CLIENT_SECRET_BASIC, keys=(), secrets=hashes) if hashes else None
    assert await verifier.verify(CLIENT_ID, state, secret, NOW) is None
    assert sum(taken) == spent
