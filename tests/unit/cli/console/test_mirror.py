"""A collection is followed through everything that a watch goes through, and events tell pages of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx2
import pytest

from keyturn_cli.console import app, mirror
from keyturn_cli.console.clients import row_of
from keyturn_cli.console.mirror import Mirror
from keyturn_cli.kube import Kube, Object
from keyturn_dev.waiting import wait_until

from .api_server import ApiServer, client, page

PATH = "/apis/keyturn.dev/v1alpha1/namespaces/shop/clientcredentials"
Answer = Callable[[httpx2.Request], httpx2.Response]


def listed(*names: str, version: str = "5") -> httpx2.Response:
    items = [{"metadata": {"name": name}} for name in names]
    return httpx2.Response(200, json={"items": items, "metadata": {"resourceVersion": version}})


def events(*told: tuple[str, str, str]) -> httpx2.Response:
    lines = [
        json.dumps({"type": kind, "object": {"metadata": {"name": name, "resourceVersion": version}}})
        for kind, name, version in told
    ]
    return httpx2.Response(200, content="\n".join(lines) + "\n")


def gone() -> httpx2.Response:
    told = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
    return httpx2.Response(200, content=json.dumps(told) + "\n")


class Script:
    """Answers in this order; then the last one for ever. Remembers what was asked."""

    def __init__(self, *answers: httpx2.Response) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        parameters = request.url.params
        self.asked.append(f"watch {parameters['resourceVersion']}" if "watch" in parameters else "list")
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return httpx2.Response(answer.status_code, content=answer.content)


def following(answer: Answer, limit: int = 100) -> Mirror[str]:
    http = httpx2.Client(transport=httpx2.MockTransport(answer), base_url="https://api.example")

    def reduce(obj: Object) -> str:
        return str(obj["metadata"].get("resourceVersion", ""))

    return Mirror(Kube(http, namespace="shop"), PATH, reduce, limit=limit)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(mirror, "FIRST_PAUSE", 0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("answers", "names", "asked"),
    [
        pytest.param(
            [listed("a", "b"), events(("ADDED", "c", "6"), ("DELETED", "a", "7"), ("BOOKMARK", "", "9"))],
            {"b", "c"},
            ["list", "watch 5", "watch 9"],
            id="objects come and go, and a watch goes on where the last one ended",
        ),
        pytest.param(
            [listed("a"), gone(), listed("b", version="8"), events()],
            {"b"},
            ["list", "watch 5", "list", "watch 8"],
            id="what was forgotten is listed anew",
        ),
        pytest.param(
            [listed("a"), httpx2.Response(503), listed("b", version="8"), events()],
            {"b"},
            ["list", "watch 5", "list", "watch 8"],
            id="after a failure it is listed anew",
        ),
        pytest.param(
            [listed("a"), httpx2.Response(200, content="nonsense\n"), listed("b"), events()],
            {"b"},
            ["list", "watch 5", "list"],
            id="after nonsense it is listed anew",
        ),
        pytest.param(
            [listed("a"), httpx2.Response(403), listed("a"), listed("a", "b")],
            {"a", "b"},
            ["list", "watch 5", "list", "list", "list"],
            id="without the right to watch it is listed from time to time",
        ),
    ],
)
def test_a_collection_is_followed(answers: list[httpx2.Response], names: set[str], asked: list[str]) -> None:
    script = Script(*answers)
    followed = following(script)
    followed.start()
    try:
        wait_until(
            lambda: script.asked[: len(asked)] == asked and set(followed.snapshot().items) == names,
            f"{names} to be there after {asked}",
            seconds=20,
        )
    finally:
        followed.stop()
    assert followed.snapshot().problem == ""


@pytest.mark.usefixtures("quick")
def test_a_failure_is_told_and_what_was_known_stays() -> None:
    followed = following(Script(listed("a"), httpx2.Response(500), httpx2.Response(500)))
    followed.start()
    try:
        wait_until(lambda: "HTTP 500" in followed.snapshot().problem, "the failure to be told", seconds=20)
    finally:
        followed.stop()
    assert list(followed.snapshot().items) == ["a"]


def test_whoever_may_not_list_is_told_so_and_the_page_is_there() -> None:
    server = ApiServer()
    server.put(client("billing"))
    shown = page(server)
    server.refused = {("list", "clientcredentials")}
    shown.console.clients = Mirror(shown.console.kube, PATH, row_of, limit=10)
    shown.console.clients.start()
    try:
        wait_until(lambda: shown.console.clients.snapshot().problem != "", "the refusal to be told", seconds=20)
        answer = shown.get("/clients")
    finally:
        shown.console.clients.stop()
    assert answer.status_code == 200
    assert "cannot list clientcredentials" in answer.text


def test_no_more_is_kept_than_the_limit_and_that_is_told() -> None:
    followed = following(Script(listed("a", "b", "c")), limit=2)
    followed.list_once()
    assert (list(followed.snapshot().items), followed.snapshot().cut) == (["a", "b"], True)
    followed.take("MODIFIED", {"metadata": {"name": "b", "resourceVersion": "9"}})
    followed.take("ADDED", {"metadata": {"name": "d"}})
    assert followed.snapshot().items == {"a": "", "b": "9"}


def test_pages_are_told_of_a_change_once_and_of_nothing_else() -> None:
    shown = page(ApiServer())
    versions = iter(["1", "1", "2", "2", "2"])
    app.LOOK_SECONDS, app.PAUSE_SECONDS, kept = 0.0, 0.0, (app.LOOK_SECONDS, app.PAUSE_SECONDS)  # type: ignore[misc]

    def look() -> str:
        try:
            return next(versions)
        except StopIteration:
            shown.console.stop()
            return "2"

    async def read() -> list[str]:
        return [text async for text in app.changes(shown.console, look, "1")]

    try:
        told = asyncio.run(read())
    finally:
        app.LOOK_SECONDS, app.PAUSE_SECONDS = kept  # type: ignore[misc]
    assert told == ["retry: 3000\n\n", "event: change\ndata: 2\n\n"]
    assert shown.console.streams == 0


@pytest.mark.parametrize("path", ["/events/secrets", "/events/rules/shop", "/events/client"])
def test_there_are_no_other_events(path: str) -> None:
    assert page(ApiServer()).get(path).status_code == 404


def test_streams_are_not_without_bound() -> None:
    shown = page(ApiServer())
    shown.console.streams = app.MAX_STREAMS
    assert shown.get("/events/clients").status_code == 204
