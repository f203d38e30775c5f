"""Registration keeps what its OpenAPI document promises too: no 5xx, no undocumented answer, whoever asks."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.cluster.clients import World
from tests.cluster.portal import Portal, bearer
from tests.malformed import malformed_values
from tests.promises import examine

COMMAND = re.compile(r"```sh\n(.*?)\n```", re.DOTALL)


def initial(world: World) -> str:
    return world.installation.registration_token


def internal(world: World) -> str:
    return Portal(world).caller("promises", "create")


@pytest.fixture(autouse=True)
def cleared(world: World) -> Iterator[None]:
    """Takes out what was registered: an installation lets so many wait for approval and no more."""

    def there() -> set[str]:
        return {one["metadata"]["name"] for one in world.objects.all("clientcredentials")}

    before = there()
    yield
    if made := there() - before:
        world.kubectl("delete", "clientcredentials", "--wait=false", *sorted(made))


@pytest.mark.parametrize(
    ("token", "path", "answers"),
    [
        pytest.param(initial, "/register", {201, 400}, id="with an initial access token"),
        pytest.param(internal, "/clients", {201, 400}, id="with a Kubernetes token"),
        pytest.param(None, "/(register|clients).*", set(), id="with nothing"),
    ],
)
def test_nobody_gets_an_undocumented_answer(
    world: World, tmp_path: Path, token: Callable[[World], str] | None, path: str, answers: set[int]
) -> None:
    headers = {} if token is None else bearer(token(world))
    only = "^" + path.replace("{", r"\{").replace("}", r"\}") + "$"
    examined = examine(world.replicas[0].url, tmp_path, headers=headers, only=only, examples=5)
    assert examined.failures == []
    assert examined.operations == examined.tested > 0
    assert examined.statuses("POST", path) >= answers


@pytest.mark.parametrize(
    ("method", "answers"),
    [
        pytest.param("GET", {200}, id="reading"),
        # Without this client's id in the body, which is random, none is right; a few, and there are too many.
        pytest.param("PUT", {400, 429}, id="changing"),
        pytest.param("DELETE", {204, 401}, id="deleting, and once more"),
    ],
)
def test_a_registered_client_gets_no_undocumented_answer(
    world: World, tmp_path: Path, method: str, answers: set[int]
) -> None:
    client = Portal(world).with_secret()
    examined = examine(
        world.replicas[0].url,
        tmp_path,
        headers=bearer(client.token),
        only=r"^/register/\{client_id\}$",
        examples=5,
        parameters={"client_id": client.client_id},
        without=[one for one in ("GET", "PUT", "DELETE") if one != method],
    )
    assert examined.failures == []
    assert examined.operations == examined.tested == 1
    assert examined.statuses(method, f"/register/{client.client_id}") >= answers


def test_each_command_that_is_shown_for_registration_runs(world: World) -> None:
    paths = httpx2.get(f"{world.replicas[0].url}/openapi.json").json()["paths"]
    portal = Portal(world)
    environment = {
        "PATH": os.environ["PATH"],
        "INITIAL_ACCESS_TOKEN": initial(world),
        "KUBERNETES_TOKEN": portal.caller("commands", "create", "explain"),
    }

    def run(method: str, path: str) -> Any:
        (command,) = COMMAND.findall(paths[path][method]["description"])
        done = subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, timeout=30, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, (method, path, done.stdout, done.stderr)
        answer = json.loads(done.stdout) if done.stdout else None
        for name in ("client_id", "registration_client_uri", "registration_access_token"):
            if answer is not None and name in answer:
                environment[name.upper()] = answer[name]
        return answer

    one = "/register/{client_id}"
    registered = run("post", "/register")
    assert registered["client_secret"]
    assert run("get", one)["client_name"] == registered["client_name"]
    assert run("put", one)["client_name"] == "Monthly orders report"
    run("delete", one)
    gone = httpx2.get(environment["REGISTRATION_CLIENT_URI"], headers=bearer(environment["REGISTRATION_ACCESS_TOKEN"]))
    assert gone.status_code == 401
    assert run("post", "/clients")["scope"] == "orders:read"
    assert run("post", "/explain")["decision"]


def test_each_example_of_a_body_is_taken(world: World) -> None:
    paths = httpx2.get(f"{world.replicas[0].url}/openapi.json").json()["paths"]
    portal = Portal(world)

    def examples(method: str, path: str) -> dict[str, Any]:
        media = paths[path][method]["requestBody"]["content"]["application/json"]
        return {name: one["value"] for name, one in media["examples"].items()}

    for name, body in examples("post", "/register").items():
        assert portal.register(body).status_code == 201, name
    caller = portal.caller("examples", "create", "explain")
    for name, body in examples("post", "/clients").items():
        assert portal.clients(body, caller).status_code == 201, name
    for name, body in examples("put", "/register/{client_id}").items():
        client = portal.with_key()
        assert client.put(**{**body, "client_id": client.client_id}).status_code == 200, name
    for name, body in examples("post", "/explain").items():
        # Of clients and denials that this installation does not know.
        assert portal.post("/explain", body, caller).status_code in (200, 404), name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/register"),
        ("GET", "/register/keyturn-test.r-1"),
        ("PUT", "/register/keyturn-test.r-1"),
        ("DELETE", "/register/keyturn-test.r-1"),
        ("POST", "/clients"),
        ("POST", "/explain"),
        ("POST", "/oauth/introspect"),
        ("POST", "/oauth/revoke"),
    ],
)
def test_500_malformed_authorization_values_are_never_5xx(world: World, method: str, path: str) -> None:
    place = urlsplit(world.replicas[0].url)
    assert place.hostname
    assert place.port
    kind, body = ("application/x-www-form-urlencoded", b"token=x") if "/oauth/" in path else ("application/json", b"{}")
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    head += f"Content-Length: {len(body)}\r\nAuthorization: "
    found: Counter[int] = Counter()
    for value in malformed_values():
        with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
            connection.sendall(head.encode() + value + b"\r\n\r\n" + body)
            found[int(connection.recv(64).split(b" ")[1])] += 1
    assert found.keys() <= {400, 401, 431}
    assert found[401] > 100
