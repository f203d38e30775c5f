"""Several API replicas: one decision, one use of an assertion, and what happens when one or all of them end."""

import itertools
import threading
import time

import httpx2
import pytest

from tests.cluster.clients import Replica, World, kill_record, needs, route
from tests.cluster.conftest import StartWorld

REQUESTS = 1000
SEEN_WITHIN = 30.0
"""For so long a replica that ended without a word counts as one that may still serve."""


def test_of_one_assertion_sent_to_two_replicas_at_once_one_is_used(world: World) -> None:
    client = world.client("replayed").apply()
    for _ in range(5):
        assertion = client.assertion()
        together = threading.Barrier(4)
        answers: list[httpx2.Response] = []

        def send(replica: Replica, assertion: str = assertion, together: threading.Barrier = together) -> None:
            together.wait(timeout=10)
            # A connection of its own for each thread.
            form = {
                "grant_type": "client_credentials",
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": assertion,
            }
            answers.append(httpx2.post(f"{replica.url}/oauth/token", data=form, timeout=10, trust_env=False))  # noqa: B023

        threads = [threading.Thread(target=send, args=(world.replicas[number % 2],)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
        assert sorted(one.status_code for one in answers) == [200, 401, 401, 401]
        assert {one.json()["error"] for one in answers if one.status_code == 401} == {"invalid_client"}


def test_three_replicas_decide_alike_in_1000_requests(start_world: StartWorld) -> None:
    world = start_world(replicas=3)
    world.rule(
        "alike",
        route("/alike/public", "GET"),
        route("/alike/:id", "GET", **needs("alike:read")),
        route("/alike/*", "ALL", expression='"alike:admin" in permissions'),
        route("/alike/literal", "GET", **needs("alike:admin")),
    )
    permissions: list[list[str]] = [[], ["alike:read"], ["alike:admin"]]
    tokens: list[str | None] = [None, "not.a.token"]
    tokens += [
        world.client(f"alike-{number}").apply(permissions=each).token() for number, each in enumerate(permissions)
    ]
    paths = ["public", "one", "literal", "a/b", "%61", "a%2f..%2fpublic", "../alike/public", "one/", ""]
    paths += [f"item-{number}" for number in range(20)]
    methods = ["GET", "POST", "DELETE", "HEAD", "PATCH", "PUT", "OPTIONS"]
    questions = list(itertools.product(paths, methods, tokens))[:REQUESTS]
    assert len(questions) == REQUESTS
    statuses = set()
    for path, method, token in questions:
        answers = [one.auth(f"/alike/{path}", token, method) for one in world.replicas]
        assert len({one.status_code for one in answers}) == 1, (path, method)
        named = [{name: value for name, value in one.headers.items() if name.startswith("mia-")} for one in answers]
        assert named[0] == named[1] == named[2]
        statuses.add(answers[0].status_code)
    assert statuses == {200, 401, 403}


@pytest.mark.timeout(180)
def test_the_others_serve_on_when_a_replica_dies_and_ready_tells_when_none_is_left(start_world: StartWorld) -> None:
    world = start_world(replicas=2)
    client = world.client("before").apply(permissions=["p"])
    world.rule("before", route("/before", **needs("p")))
    token = client.token(1)

    (dying,) = [one for one in world.installation.records() if one.name == "api-1"]
    kill_record(dying)
    died = time.monotonic()
    assert world.replicas[0].auth("/before", token).status_code == 200
    assert world.replicas[0].token_info(token).status_code == 200
    assert client.request(0).status_code == 200

    # What the dead one may not have applied is not called ready until it certainly serves no more.
    late = world.client("late").apply(ready=False)
    late.wait("Unknown", "Propagating", seconds=10)
    assert late.request(0).status_code == 200
    late.wait(seconds=SEEN_WITHIN + 10)
    assert time.monotonic() - died > SEEN_WITHIN - 15

    assert world.installation.stop_process("api-0")
    alone = world.client("alone").apply(ready=False)
    alone.wait("Unknown", "NoReplica", seconds=15)
    client.wait("Unknown", "NoReplica", seconds=15)
    world.installation.start_api(0)
    alone.wait(seconds=15)
    client.wait(seconds=15)
    assert alone.request(0).status_code == 200
    # A restarted replica knows the tokens that were issued before.
    assert world.replicas[0].auth("/before", token).status_code == 200
