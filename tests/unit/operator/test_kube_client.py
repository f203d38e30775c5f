"""Our own client of the Kubernetes API, with answers instead of a server."""

import datetime
from types import TracebackType
from typing import Any, Self

import aiohttp
import kopf
import orjson
import pytest

from keyturn_operator.kube.client import KubeClient
from keyturn_operator.kube.errors import Conflict, Forbidden, Gone, KubeError, KubeUnavailable, NotFound


class Answer:
    """An HTTP answer as aiohttp gives it."""

    def __init__(self, status: int, body: Any) -> None:
        self.status = status
        self._raw = body if isinstance(body, bytes) else orjson.dumps(body)
        self.content = self

    async def read(self, _limit: int = -1) -> bytes:
        return self._raw

    async def iter_any(self) -> Any:
        half = len(self._raw) // 2
        yield self._raw[:half]
        yield self._raw[half:]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Server:
    """Answers in order, and what was asked with which token."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, dict[str, str] | None]] = []
        self.logins = 0
        self.tokens: list[str] = []
        server = self

        class Session:
            closed = False

            def __init__(self, *, headers: dict[str, str], **_: Any) -> None:
                self.headers = headers

            async def request(self, method: str, url: str, *, params: dict[str, str] | None, **_: Any) -> Answer:
                server.asked.append((method, url, params))
                server.tokens.append(self.headers.get("Authorization", ""))
                answer = server.answers.pop(0)
                if isinstance(answer, Exception):
                    raise answer
                return answer

            async def close(self) -> None:
                self.closed = True

        monkeypatch.setattr(aiohttp, "ClientSession", Session)
        monkeypatch.setattr(aiohttp, "TCPConnector", lambda **_: None)
        self.client = KubeClient(self.login)

    expires_in = 600.0

    def login(self) -> kopf.ConnectionInfo:
        self.logins += 1
        expiration = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.expires_in)
        return kopf.ConnectionInfo(server="https://kube", token=f"token-{self.logins}", expiration=expiration)


def page(*names: str, more: str = "") -> Answer:
    items = [{"metadata": {"name": name}} for name in names]
    return Answer(200, {"items": items, "metadata": {"continue": more, "resourceVersion": "7"}})


async def test_a_list_is_complete_over_all_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, page("a", more="next"), page("b"))
    found, version = await server.client.list_metadata("/x")
    assert ([one["metadata"]["name"] for one in found], version) == (["a", "b"], "7")
    assert server.asked[1][2] == {"limit": "500", "continue": "next"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(Answer(410, {"reason": "Expired"}), Gone, id="its continue token is too old"),
        pytest.param(Answer(403, {}), Forbidden, id="the right is taken away"),
        pytest.param(Answer(500, {}), KubeUnavailable, id="the server fails"),
        pytest.param(Answer(200, {"items": []}), KubeUnavailable, id="a page without metadata"),
        pytest.param(Answer(200, b"{"), KubeUnavailable, id="a page that breaks off"),
        pytest.param(aiohttp.ClientPayloadError(), KubeUnavailable, id="the connection breaks"),
    ],
)
async def test_a_list_that_breaks_off_is_an_error_and_never_a_shorter_list(
    monkeypatch: pytest.MonkeyPatch, answer: Answer | Exception, error: type[Exception]
) -> None:
    server = Server(monkeypatch, page("a", more="next"), answer)
    with pytest.raises(error):
        await server.client.list_metadata("/x")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (422, KubeError),
        (429, KubeUnavailable),
        (503, KubeUnavailable),
    ],
    ids=["forbidden", "not found", "conflict", "invalid", "overloaded", "down"],
)
async def test_each_refusal_has_its_error(monkeypatch: pytest.MonkeyPatch, status: int, error: type[Exception]) -> None:
    server = Server(monkeypatch, Answer(status, {"message": "hunter2"}))
    with pytest.raises(error) as caught:
        await server.client.create("/x", {})
    assert "hunter2" not in str(caught.value)


async def test_what_is_absent_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await Server(monkeypatch, Answer(404, {})).client.get("/x") is None


async def test_a_401_is_met_once_with_credentials_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, Answer(401, {}), Answer(200, {"kind": "X"}))
    assert await server.client.get("/x") == {"kind": "X"}
    assert server.tokens == ["Bearer token-1", "Bearer token-2"]


async def test_a_second_401_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, Answer(401, {}), Answer(401, {}))
    with pytest.raises(KubeError):
        await server.client.get("/x")
    assert server.logins == 2


async def test_credentials_are_read_anew_before_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, Answer(200, {}), Answer(200, {}))
    server.expires_in = -1.0
    await server.client.get("/x")
    await server.client.get("/x")
    assert server.tokens == ["Bearer token-1", "Bearer token-2"]


async def test_credentials_that_count_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, Answer(200, {}), Answer(200, {}))
    await server.client.get("/x")
    await server.client.get("/x")
    assert server.logins == 1


async def test_a_login_that_fails_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> kopf.ConnectionInfo:
        raise kopf.LoginError("no kubeconfig")

    client = KubeClient(broken)
    with pytest.raises(KubeUnavailable):
        await client.get("/x")


async def test_watch_events_are_read_across_the_chunks_in_which_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [{"type": "ADDED", "object": {"n": number}} for number in range(3)]
    server = Server(monkeypatch, Answer(200, b"\n".join(map(orjson.dumps, events)) + b"\n"))
    assert [one async for one in server.client.watch_metadata("/x", "7", timeout=300)] == events
    assert server.asked[0][2] is not None
    assert server.asked[0][2]["allowWatchBookmarks"] == "true"


async def test_a_status_is_merged_into_the_subresource(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, Answer(200, {}))
    await server.client.patch_status("/x", {"status": {}})
    assert server.asked[0][:2] == ("PATCH", "https://kube/x/status")


async def test_a_selector_goes_along_on_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, page("a", more="next"), page("b"))
    await server.client.list_metadata("/x", field_selector="type=t")
    assert [(query or {}).get("fieldSelector") for _, _, query in server.asked] == ["type=t", "type=t"]


async def test_a_removal_names_the_uid_that_it_means(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, Answer(200, {}))
    await server.client.remove("/x/a", uid="u1")
    method, url, *_ = server.asked[0]
    assert (method, url) == ("DELETE", "https://kube/x/a")
