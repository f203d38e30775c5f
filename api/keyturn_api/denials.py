"""Why requests were not let through, kept for a while so that somebody with an answer's id can ask."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from keyturn.records import Denial
from keyturn.store.interface import DenialLog, StoreUnavailable
from keyturn.tokens.access import AccessToken
from keyturn_api.logs import get_logger
from keyturn_api.profiles import Question

_log = get_logger("denials")
FLUSH_EVERY: Final = 1.0
# What one worker writes into the store in a second; beyond that a denial is in its own memory only. A flood of denials is
# nobody's riddle, and must not become a flood of writes.
STORED_PER_SECOND: Final = 10
_TRIM_EVERY: Final = 60.0
_LOGGED_PATH: Final = 256
_KEPT_TEXT: Final = 512

# Who was denied: one of our clients, by a token whose signature held; somebody whom another source named; a request without
# credentials; or nobody who was looked for, or could be found.
CLIENT: Final = "client"
USER: Final = "user"
ANONYMOUS: Final = "anonymous"
UNKNOWN: Final = "unknown"


class Denials:
    """Each worker remembers its last ones (`kept`), and writes as many as may be into the store, where every replica finds them."""

    def __init__(
        self, store: DenialLog, *, kept: int = 1000, stored: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._stored = stored
        self._clock = clock
        self._kept: deque[Denial] = deque(maxlen=kept)
        self._pending: list[Denial] = []

    def note(self, request_id: str, body: dict[str, Any]) -> None:
        """Remembers one; `body` is plain JSON without any token."""
        denial = Denial(request_id, round(self._clock(), 6), body)
        self._kept.append(denial)
        if self._stored and len(self._pending) < STORED_PER_SECOND:
            self._pending.append(denial)

    async def find(self, request_id: str) -> list[Denial]:
        """Those with this id, the newest first: this worker's, and what all have written.

        Raises `StoreUnavailable` where nothing is known here and the store does not answer.
        """
        found = {one.at: one for one in self._kept if one.request_id == request_id}
        if self._stored:
            try:
                found = {one.at: one for one in await self._store.denials(request_id)} | found
            except StoreUnavailable:
                if not found:
                    raise
        return [found[at] for at in sorted(found, reverse=True)]

    async def flush(self) -> None:
        """Writes what has gathered. What the store does not take is not tried again: it is in memory here."""
        pending, self._pending = self._pending, []
        if pending:
            try:
                await self._store.record_denials(pending)
            except StoreUnavailable as error:
                _log.warning("denials_not_written", number=len(pending), cause=str(error))

    async def run(self) -> None:
        """Flushes and trims until cancelled."""
        if not self._stored:
            await asyncio.Event().wait()
        loop = asyncio.get_running_loop()
        trimmed_at = loop.time()
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            wrote = bool(self._pending)
            await self.flush()
            # An installation in which nothing is denied writes nothing.
            if wrote and loop.time() - trimmed_at >= _TRIM_EVERY:
                trimmed_at = loop.time()
                try:
                    await self._store.trim_denials(now=self._clock())
                except StoreUnavailable as error:
                    _log.warning("denials_not_trimmed", cause=str(error))


def denial_body(
    question: Question | None,
    status: int,
    reason: str,
    cause: str,
    *,
    rule: str | None,
    route: str | None,
    who: str,
    token: AccessToken | None,
) -> dict[str, Any]:
    """What is told to those who ask for a denial by its id. Of users nothing is kept but that it was one."""
    body: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "cause": cause[:_KEPT_TEXT],
        "rule": rule,
        "route": route,
        "caller": who,
        "clientId": None if token is None else token.client_id,
    }
    if token is not None:
        # A token may hold less than its client: the same request comes to what this one permits. No token is longer than 8 KiB.
        body |= {"permissions": list(token.permissions), "audiences": list(token.audiences)}
    if question is not None:
        target = question.target.partition(b"?")[0]
        body |= {
            "method": question.method[:16],
            "path": logged_path(question),
            "host": None if question.host is None else question.host[:_LOGGED_PATH],
            "backoffice": question.is_backoffice,
            "clientType": question.client_type[:64],
            # For asking again; a path that is not whole would be another one.
            "target": target.decode("latin-1") if len(target) <= _LOGGED_PATH else None,
        }
    return body


def logged_path(question: Question) -> str:
    """Without the query, which may hold what is nobody's business; bounded."""
    return question.target.partition(b"?")[0][:_LOGGED_PATH].decode("ascii", "backslashreplace")
