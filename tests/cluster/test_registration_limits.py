"""Registration under pressure and with parts missing: floods, an operator that is down, and installations without it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx2

from keyturn_dev.waiting import wait_until
from tests.cluster.clients import World, as_object
from tests.cluster.conftest import StartWorld
from tests.cluster.portal import Portal, Registered, audit_lines, bearer, new_key

CAP = 4


def left_of_registrations(world: World) -> list[str]:
    clients = [one["metadata"]["name"] for one in world.objects.all("clientcredentials")]
    secrets = [
        one["metadata"]["name"] for one in world.objects.all("secrets") if one["type"] == "keyturn.dev/registration"
    ]
    return [*clients, *secrets]


def test_a_flood_of_registrations_does_not_fill_the_database_and_what_nobody_approves_goes(
    start_world: StartWorld,
) -> None:
    settings = {
        "KEYTURN_REGISTRATION": "open",
        "KEYTURN_REGISTRATION_MAX_PENDING": str(CAP),
        "KEYTURN_REGISTRATION_PENDING_TTL": "15",
    }
    world = start_world(settings=settings)
    portal = Portal(world)
    kept = as_object(portal.register({}, token=None))
    approved = Registered(world, kept)
    world.kubectl("patch", "cc", approved.name, "--type=merge", "-p", '{"spec":{"permissions":["p"]}}')
    world.objects.wait_for("clientcredentials", approved.name)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: portal.register({}, token=None), range(40)))
    statuses = [one.status_code for one in answers]
    assert set(statuses) == {201, 429}
    assert statuses.count(201) <= CAP
    assert all("retry-after" in one.headers for one in answers if one.status_code == 429)
    assert len(world.objects.all("clientcredentials")) <= CAP + 1
    tokens = [Registered(world, one.json()) for one in answers if one.status_code == 201]
    before = tokens[0].access_token()
    wait_until(
        lambda: [one["metadata"]["name"] for one in world.objects.all("clientcredentials")] == [approved.name],
        "unapproved registrations to be removed",
        seconds=60,
    )
    wait_until(lambda: world.replicas[0].token_info(before).status_code == 401, "their tokens to end", seconds=10)
    wait_until(lambda: len(left_of_registrations(world)) == 2, "their Secrets to go", seconds=30)
    assert approved.grant().status_code == 200
    assert portal.register({}, token=None).status_code == 201, "there is room again"
    assert len(audit_lines(world, "registration_expired")) == statuses.count(201)


def test_an_address_registers_so_often_and_no_more(start_world: StartWorld) -> None:
    settings = {
        "KEYTURN_RATE_LIMIT_EXEMPT": "",
        "KEYTURN_REGISTRATIONS_PER_MINUTE": "2",
        "KEYTURN_TRUSTED_PROXIES": "127.0.0.0/8",
        "KEYTURN_ADMINISTRATION_SERVER_TOKENS": "true",
    }
    world = start_world(settings=settings)
    portal = Portal(world)

    def register(address: str) -> httpx2.Response:
        headers = {**bearer(world.installation.registration_token), "X-Forwarded-For": f"198.51.100.7, {address}"}
        url = f"{world.installation.url}/register"
        return httpx2.post(url, json={"jwks_uri": "https://x.example"}, headers=headers)

    answers = [register("203.0.113.1") for _ in range(3)]
    assert [one.status_code for one in answers] == [400, 400, 429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert register("203.0.113.2").status_code == 400, "another address behind the same proxy"
    # The setting for migrations: a token that the API server itself would take.
    assert portal.clients({}, portal.caller("writer", "create", audience="")).status_code == 201
    assert portal.clients({}, portal.caller("reader", "get", audience="")).status_code == 403


def test_with_the_operator_down_nothing_is_left_and_nothing_is_changed(start_world: StartWorld) -> None:
    world = start_world(settings={"KEYTURN_REGISTRATION_TIMEOUT": "1.5"})
    portal = Portal(world)
    caller = portal.caller("writer", "create")
    client = portal.with_key()
    assert client.key is not None
    before = client.object()["spec"]
    known = left_of_registrations(world)
    world.installation.stop_process("operator-0")
    for answer in (
        portal.register({}),
        portal.register(
            {"token_endpoint_auth_method": "private_key_jwt", "public_key": dict(new_key(world).public.jwk)}
        ),
        portal.clients({}, caller),
    ):
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    wait_until(lambda: left_of_registrations(world) == known, "what was made to be taken back", seconds=30)
    updated = client.put(client_name="Other", jwks={"keys": [dict(new_key(world).public.jwk)]})
    assert updated.status_code == 503
    assert client.object()["spec"] == before
    assert client.read().json() == client.told, "reading needs neither operator nor Kubernetes"
    assert client.grant().status_code == 200
    world.installation.start_operator()
    wait_until(lambda: portal.register({}).status_code == 201, "registration to work again", seconds=30)
    assert client.read().status_code == 200, "the old registration token counts on"
    assert client.put(jwks={"keys": [dict(client.key.public.jwk)]}).status_code == 200


def test_an_installation_may_have_neither_registration_nor_administration(start_world: StartWorld) -> None:
    world = start_world(settings={"KEYTURN_REGISTRATION": "disabled", "KEYTURN_ADMINISTRATION": "false"})
    portal = Portal(world)
    token = portal.caller("writer", "create")
    assert portal.register({}).status_code == 404
    assert portal.clients({}, token).status_code == 404
    document = httpx2.get(f"{world.installation.url}/.well-known/oauth-authorization-server").json()
    assert "registration_endpoint" not in document
    assert world.objects.all("clientcredentials") == []
