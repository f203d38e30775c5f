"""The page as an application: what lies where, and how a handler is called."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..client_view import view
from ..errors import CommandError, Exit
from ..in_force import unseen, watched_namespaces
from ..kube import Absent
from .clients import MAX_CLIENTS, holders_of, row_of
from .guard import Door, Guard
from .mirror import Mirror
from .rendering import Pages
from .rights import Rights
from .rule_index import MAX_RULES, RuleIndex, rule_of
from .shown import Proposals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from starlette.requests import Request

    from ..kube import Kube, Object
    from .clients import Row
    from .counts import AuditCounts
    from .rule_index import RuleRow
    from .service import Service

MAX_FORM_BYTES: Final = 128 * 1024
MAX_FIELDS: Final = 2_000
# A browser opens six connections to a host over HTTP/1.1, for all of its tabs together: two are left for everything else.
MAX_STREAMS: Final = 4
LOOK_SECONDS: Final = 0.3
PAUSE_SECONDS: Final = 1.0
BEAT_SECONDS: Final = 15.0
WATCHED_SECONDS: Final = 60.0


@dataclass(slots=True)
class Console:
    """What the handlers share: the cluster under the person's own rights, and what is followed of it."""

    kube: Kube
    door: Door
    counts: AuditCounts
    service: Service
    context: str = ""
    edit_managed: bool = False
    clock: Callable[[], float] = time.time
    rights: Rights = field(init=False)
    clients: Mirror[Row] = field(init=False)
    rules: Mirror[RuleRow] = field(init=False)
    keys: Mirror[Object] = field(init=False)
    proposals: Proposals = field(default_factory=Proposals)
    pages: Pages = field(default_factory=Pages)
    stopping: bool = False
    streams: int = 0
    _watched: tuple[float, tuple[str, ...] | None] | None = None
    _index: tuple[int, RuleIndex] | None = None
    _holders: tuple[int, dict[str, list[str]]] | None = None

    def __post_init__(self) -> None:
        self.rights = Rights(self.kube)
        self.clients = Mirror(self.kube, self.kube.path("clientcredentials"), row_of, limit=MAX_CLIENTS)
        self.rules = Mirror(self.kube, self.kube.path("accessrules"), rule_of, limit=MAX_RULES)
        self.keys = Mirror(self.kube, self.kube.path("signingkeys"), lambda obj: obj, limit=100)

    @property
    def mirrors(self) -> Mapping[str, Mirror[Any]]:
        return {"clients": self.clients, "rules": self.rules, "keys": self.keys}

    def start(self) -> None:
        for mirror in self.mirrors.values():
            mirror.start()

    def stop(self) -> None:
        self.stopping = True
        for mirror in self.mirrors.values():
            mirror.stop()

    def rule_index(self) -> RuleIndex:
        """The rules as one table, made anew after a change."""
        snapshot = self.rules.snapshot()
        if self._index is None or self._index[0] != snapshot.version:
            self._index = (snapshot.version, RuleIndex(tuple(snapshot.items.values())))
        return self._index[1]

    def holders(self) -> dict[str, list[str]]:
        """The clients that hold each permission, made anew after a change."""
        snapshot = self.clients.snapshot()
        if self._holders is None or self._holders[0] != snapshot.version:
            self._holders = (snapshot.version, holders_of(snapshot.items.values()))
        return self._holders[1]

    def unseen(self) -> str:
        """What is to be said of the namespaces that the installation watches besides this one; looked up once a minute at most."""
        now = self.clock()
        if self._watched is None or now >= self._watched[0]:
            self._watched = (now + WATCHED_SECONDS, watched_namespaces(self.kube))
        return unseen(self.kube.namespace, self._watched[1])

    def held_alone(self, obj: Object) -> set[str]:
        """The client's permissions that no other client holds; none where not all clients are known."""
        snapshot = self.clients.snapshot()
        if snapshot.problem or snapshot.cut or not snapshot.loaded:
            return set()
        name, holders = obj["metadata"]["name"], self.holders()
        return {one for one in view(obj).permissions.granted if set(holders.get(one, ())) <= {name}}


@dataclass(frozen=True, slots=True)
class Call:
    """One request as handlers see it. `form`: the fields of a POST, each with all its values."""

    console: Console
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, Sequence[str]]

    @property
    def now(self) -> float:
        return self.console.clock()

    def field(self, name: str) -> str:
        return (self.form.get(name) or ("",))[0]

    def page(self, template: str, *, status: int = 200, **context: Any) -> Response:
        """The template with what every page needs."""
        return self.console.pages.answer(
            template,
            {
                "base": self.console.door.base,
                "form_token": self.console.door.form_token,
                "namespace": self.console.kube.namespace,
                "context": self.console.context,
                "now": self.now,
                **context,
            },
            status=status,
        )

    def go(self, path: str) -> Response:
        """To another page, by GET."""
        return RedirectResponse(f"{self.console.door.base}{path}", 303)


class Handler(Protocol):
    """Answers in a thread of its own: it may wait for the cluster. A CommandError becomes a page."""

    def __call__(self, call: Call) -> Response: ...


def build_app(console: Console, handlers: Sequence[tuple[str, str, Handler]]) -> Guard:
    """`handlers`: method, path below the secret one, and what answers it."""
    door = console.door

    def enter(request: Request) -> Response:
        if not door.redeem(request.url.path, console.clock()):
            return PlainTextResponse("Open the address that `keyturn console` printed.\n", 404)
        return RedirectResponse(f"{door.base}/", 303)

    below = [
        *(Route(path, _endpoint(console, handler), methods=[method]) for method, path, handler in handlers),
        Route("/events/{what}", _events(console), methods=["GET"]),
        Route("/events/{what}/{name}", _events(console), methods=["GET"]),
        Mount("/static", StaticFiles(packages=[("keyturn_cli.console", "static")])),
    ]
    app = Starlette(routes=[Route("/open/{ticket}", enter, methods=["GET"]), Mount("/{token}", routes=below)])
    app.add_exception_handler(HTTPException, _failure(console))
    app.add_exception_handler(Exception, _accident)
    return Guard(app, door)


def _endpoint(console: Console, handler: Handler) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        form: Mapping[str, Sequence[str]] = {}
        if request.method == "POST":
            form = await _form(request)
            shown = form.get("form-token", ())
            if len(shown) != 1 or not console.door.is_form_token(shown[0]):
                raise HTTPException(403, "The form was not this page's. Load the page again.")
        call = Call(console, request.path_params, dict(request.query_params), form)
        try:
            return await run_in_threadpool(handler, call)
        except CommandError as error:
            return call.page("error.html", status=_status(error), problem=error.problem, next_step=error.next_step)

    return answer


async def _form(request: Request) -> Mapping[str, Sequence[str]]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Only forms of this page are taken.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise HTTPException(413, "The form is too long.")
    try:
        return parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise HTTPException(400, "The form can't be read.") from None


def _status(error: CommandError) -> int:
    if isinstance(error, Absent):
        return 404
    return {Exit.REFUSED: 409, Exit.UNREACHABLE: 502}.get(error.code, 400)


def _failure(console: Console) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        call = Call(console, {}, {}, {})
        said = "There is no such page." if error.status_code in (404, 405) else error.detail
        return call.page("error.html", status=error.status_code, problem=said, next_step="")

    return answer


def _accident(_: Request, __: Exception) -> Response:
    return PlainTextResponse("Something went wrong here; the terminal says more.\n", 500)


def _events(console: Console) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        what, name = request.path_params["what"], request.path_params.get("name")
        mirror = console.mirrors.get(what)
        if name is None and mirror is not None:
            look = lambda: str(mirror.version)  # noqa: E731
        elif what == "client" and name is not None:
            look = lambda: getattr(console.clients.peek(name), "version", "")  # noqa: E731
        else:
            raise HTTPException(404)
        if console.streams >= MAX_STREAMS:
            # HTML, 9.2.2: this tells the browser to stop asking; the page then looks from time to time.
            return Response(status_code=204)
        return StreamingResponse(
            changes(console, look, request.query_params.get("seen", "")), media_type="text/event-stream"
        )

    return answer


async def changes(console: Console, look: Callable[[], str], seen: str) -> AsyncIterator[str]:
    """Server-Sent Events: one when `look` gives another version than was seen last, at most one in `PAUSE_SECONDS`."""
    console.streams += 1
    try:
        yield "retry: 3000\n\n"
        quiet = 0.0
        while not console.stopping:
            version = look()
            pause = LOOK_SECONDS
            if version != seen:
                seen, quiet, pause = version, 0.0, PAUSE_SECONDS
                yield f"event: change\ndata: {version}\n\n"
            elif quiet >= BEAT_SECONDS:
                quiet = 0.0
                yield ": still here\n\n"
            await asyncio.sleep(pause)
            quiet += pause
    finally:
        console.streams -= 1
