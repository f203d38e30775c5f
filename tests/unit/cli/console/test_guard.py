"""Who is answered at all, and with which headers."""

from __future__ import annotations

import asyncio

import pytest

from keyturn_cli.console.guard import HEADERS, TICKET_SECONDS, Door, refusal

from .api_server import NOW, PORT, ApiServer, client, page

OWN = f"http://127.0.0.1:{PORT}"
DOOR = Door(PORT, token="secret-path", form_token="form")
PATH = "/secret-path/clients"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        pytest.param("GET", PATH, {}, None, id="the page itself"),
        pytest.param("GET", PATH, {"host": [f"localhost:{PORT}"]}, None, id="by the name of this machine"),
        pytest.param("GET", PATH, {"host": ["evil.example"]}, 421, id="a name that was bound to loopback"),
        pytest.param("GET", PATH, {"host": [f"evil.example:{PORT}"]}, 421, id="such a name with our port"),
        pytest.param("GET", PATH, {"host": ["127.0.0.1"]}, 421, id="another port"),
        pytest.param("GET", PATH, {"host": []}, 421, id="no host"),
        pytest.param("GET", PATH, {"host": [f"127.0.0.1:{PORT}", "evil.example"]}, 421, id="two hosts"),
        pytest.param("GET", "/clients", {}, 404, id="without the secret path"),
        pytest.param("GET", "/", {}, 404, id="the root"),
        pytest.param("GET", "/secret-pat", {}, 404, id="a part of the secret path"),
        pytest.param("GET", "/secret-path-and-more/clients", {}, 404, id="more than the secret path"),
        pytest.param("GET", "//secret-path/clients", {}, 404, id="the secret path in another place"),
        pytest.param("GET", "/\u00e9/clients", {}, 404, id="no ASCII"),
        pytest.param("GET", PATH, {"sec-fetch-site": ["none"]}, None, id="typed by the person"),
        pytest.param("GET", PATH, {"sec-fetch-site": ["same-origin"]}, None, id="asked for by the page"),
        pytest.param("GET", PATH, {"sec-fetch-site": ["cross-site"]}, 403, id="asked for by a page elsewhere"),
        pytest.param("GET", PATH, {"sec-fetch-site": ["same-site"]}, 403, id="asked for from another port"),
        pytest.param("GET", PATH, {"origin": ["https://evil.example"]}, 403, id="read by a page elsewhere"),
        pytest.param("POST", PATH, {"origin": [OWN]}, None, id="a form of the page"),
        pytest.param("POST", PATH, {}, 403, id="a form without an origin"),
        pytest.param("POST", PATH, {"origin": ["null"]}, 403, id="a form from a sandbox"),
        pytest.param("POST", PATH, {"origin": ["https://evil.example"]}, 403, id="a form from elsewhere"),
        pytest.param("POST", PATH, {"origin": [f"http://localhost:{PORT}"]}, 403, id="a form under another name"),
        pytest.param("POST", PATH, {"origin": [f"http://127.0.0.1:{PORT + 1}"]}, 403, id="a form from another port"),
        pytest.param("POST", PATH, {"origin": [OWN, "https://evil.example"]}, 403, id="two origins"),
        pytest.param("PUT", PATH, {"origin": [OWN]}, 405, id="another method"),
        pytest.param("OPTIONS", PATH, {}, 405, id="a preflight"),
    ],
)
def test_who_is_answered(method: str, path: str, headers: dict[str, list[str]], status: int | None) -> None:
    refused = refusal(DOOR, method, path, {"host": [f"127.0.0.1:{PORT}"], **headers})
    assert (None if refused is None else refused.status) == status


def test_every_answer_has_the_headers() -> None:
    server = ApiServer()
    server.put(client("billing"))
    shown = page(server)
    answers = [
        shown.get("/clients"),
        shown.get("/clients/absent"),
        shown.get("/no-such-page"),
        shown.get("/static/console.js"),
        shown.get("/static/absent.js"),
        shown.send("GET", "/clients"),
        shown.get("/clients", headers={"Host": "evil.example"}),
        shown.post("/clients/billing/change", {"form-token": "wrong"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 404, 200, 404, 404, 421, 403]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
        assert "access-control-allow-origin" not in answer.headers
        assert "set-cookie" not in answer.headers


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not {"unsafe", "http:", "https:", "data:", "*"} & set(policy.replace(";", " ").split())
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("form", "headers", "status"),
    [
        pytest.param({}, {}, 200, id="the page's own form"),
        pytest.param({"form-token": "guessed"}, {}, 403, id="a guessed token"),
        pytest.param({"form-token": ""}, {}, 403, id="no token"),
        pytest.param({"form-token": ["{token}", "{token}"]}, {}, 403, id="two tokens"),
        pytest.param({}, {"Content-Type": "text/plain"}, 415, id="a form that needs no preflight"),
        pytest.param({}, {"Content-Type": "application/json"}, 415, id="no form"),
        pytest.param({"x": "a" * 200_000}, {}, 413, id="too long a form"),
        pytest.param({"x": ["a"] * 3_000}, {}, 400, id="too many fields"),
    ],
)
def test_a_form_counts_only_with_its_token(form: dict[str, object], headers: dict[str, str], status: int) -> None:
    server = ApiServer()
    server.put(client("billing"))
    shown = page(server)
    filled = {
        name: [shown.door.form_token for _ in value] if name == "form-token" and isinstance(value, list) else value
        for name, value in form.items()
    }
    answer = shown.post("/clients/billing/change", {"action": "suspend", **filled}, headers=headers)
    assert answer.status_code == status, answer.text
    assert shown.door.form_token not in answer.text or status == 200


def test_a_ticket_lets_one_in_once_and_soon() -> None:
    door = Door(PORT)
    ticket = door.issue_ticket(NOW).removeprefix(OWN)
    assert door.token not in ticket
    assert not door.redeem("/open/guessed", NOW)
    assert door.redeem(ticket, NOW)
    assert not door.redeem(ticket, NOW)
    late = door.issue_ticket(NOW).removeprefix(OWN)
    assert not door.redeem(late, NOW + TICKET_SECONDS)
    assert not Door(PORT).redeem("/open/", NOW)


def test_a_ticket_leads_to_the_secret_path() -> None:
    shown = page(ApiServer())
    ticket = shown.door.issue_ticket(NOW).removeprefix(OWN)
    first, second = shown.send("GET", ticket), shown.send("GET", ticket)
    assert (first.status_code, first.headers["location"]) == (303, f"{shown.door.base}/")
    assert second.status_code == 404
    assert shown.door.token not in second.text


def test_the_secrets_show_in_no_repr() -> None:
    door = Door(PORT)
    ticket = door.issue_ticket(NOW).rpartition("/")[2]
    assert not [secret for secret in (door.token, door.form_token, ticket) if secret in repr(door)]


def test_a_websocket_leads_nowhere() -> None:
    shown = page(ApiServer())
    sent: list[object] = []

    async def call() -> None:
        async def receive() -> dict[str, object]:
            return {"type": "websocket.connect"}

        async def send(message: object) -> None:
            sent.append(message)

        await shown.app({"type": "websocket", "path": f"{shown.door.base}/clients", "headers": []}, receive, send)

    asyncio.run(call())
    assert sent == []
