"""Who may speak to the page: only the browser of the person who started it, and in it only the page itself.

Any web page in that browser can reach loopback, and so can every other user of the machine. Against them stand, in this order: the Host
that was asked for (DNS rebinding), where the request comes from (Fetch Metadata, and Origin as RFC 6454 section 7 has it), a random
path that nobody else knows, and for every change a random value in the form.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing from elsewhere, nothing inline, no frames: also what stands in a client's name could load and run nothing.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    # The path is a secret; but with `no-referrer` browsers would send `Origin: null` with the page's own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
NAMES: Final = ("127.0.0.1", "localhost")
METHODS: Final = ("GET", "HEAD", "POST")
TICKET_SECONDS: Final = 120.0


def new_secret() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Refusal:
    """`said` tells the person what to do, and nothing of what was sent."""

    status: int
    said: str


@dataclass(slots=True)
class Door:
    """The secrets of one run. `ticket` lets one browser in, once: it stands in a command line, which others on the machine may read."""

    port: int
    token: str = field(default_factory=new_secret, repr=False)
    form_token: str = field(default_factory=new_secret, repr=False)
    ticket: str | None = field(default=None, repr=False)
    ticket_ends: float = 0.0

    @property
    def base(self) -> str:
        """The path that everything lies below."""
        return f"/{self.token}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.base}/"

    def issue_ticket(self, now: float) -> str:
        """A URL that leads to the page once, soon."""
        self.ticket, self.ticket_ends = new_secret(), now + TICKET_SECONDS
        return f"http://127.0.0.1:{self.port}/open/{self.ticket}"

    def redeem(self, path: str, now: float) -> bool:
        """Whether the path holds the ticket; it counts no more then."""
        shown = path.removeprefix("/open/")
        if self.ticket is None or now >= self.ticket_ends or not equal(shown, self.ticket):
            return False
        self.ticket = None
        return True

    def is_form_token(self, shown: str) -> bool:
        return equal(shown, self.form_token)


def equal(shown: str, secret: str) -> bool:
    """In a time that tells nothing of the secret."""
    return hmac.compare_digest(shown.encode("utf-8", "replace"), secret.encode())


def refusal(door: Door, method: str, path: str, headers: Mapping[str, list[str]]) -> Refusal | None:
    """Why a request is not answered; None: it is. `headers` by lower-case name, each with all its values."""
    hosts = {f"{name}:{door.port}" for name in NAMES}
    host = headers.get("host", [])
    if len(host) != 1 or host[0].lower() not in hosts:
        return Refusal(421, "This address does not serve that host.")
    if method not in METHODS:
        return Refusal(405, "This method is not known here.")
    sites = headers.get("sec-fetch-site", [])
    # Other ports of this machine are the same site, but not this page.
    if any(site not in ("same-origin", "none") for site in sites):
        return Refusal(403, "Another page asked for this. Open the address that `keyturn console` printed.")
    origins = headers.get("origin", [])
    own = f"http://{host[0].lower()}"
    if any(origin != own for origin in origins) or (method == "POST" and len(origins) != 1):
        return Refusal(403, "Another page asked for this. Open the address that `keyturn console` printed.")
    if path.startswith("/open/"):
        return None if method == "GET" else Refusal(405, "This method is not known here.")
    shown = path.removeprefix("/").partition("/")[0]
    if not equal(shown, door.token):
        return Refusal(404, "Open the address that `keyturn console` printed.")
    return None


class Guard:
    """Stands before the whole application; every answer gets the headers, also refusals and failures."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # No WebSocket leads anywhere; the server closes it.
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = {name.lower().encode() for name in HEADERS}
                kept = [(name, value) for name, value in message["headers"] if name.lower() not in ours]
                message["headers"] = [
                    *kept,
                    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        refused = refusal(self._door, scope["method"], scope["path"], headers)
        app = self._app if refused is None else PlainTextResponse(refused.said + "\n", refused.status)
        await app(scope, receive, send_guarded)
