"""Requests at a steady rate, each sent once: what a caller saw of it stands in a list."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import httpx2
import jwt

from keyturn.jose.signing import PrivateKey
from keyturn_dev.waiting import wait_until

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# What one second holds: the gateway asks most, tokens are asked for now and then.
KINDS = ("auth", "auth", "tokeninfo", "auth", "auth", "token")
_SECONDS = 15.0


def assertion(key: PrivateKey, client_id: str, issuer: str, **claims: Any) -> str:
    """A client's proof (RFC 7523), made with PyJWT."""
    now = int(time.time())
    body = {"iss": client_id, "sub": client_id, "aud": issuer, "jti": str(uuid.uuid4()), "iat": now, "exp": now + 60}
    return jwt.encode(body | claims, key.to_pem().decode(), algorithm=key.algorithm, headers={"kid": key.kid})


@dataclass(frozen=True)
class Caller:
    """One client of one installation, and what it asks for at the gateway (profile nginx)."""

    url: str
    issuer: str
    client_id: str
    key: PrivateKey

    def form(self, **claims: Any) -> dict[str, str]:
        return {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion(self.key, self.client_id, self.issuer, **claims),
        }

    def token(self) -> str:
        answer = httpx2.post(f"{self.url}/oauth/token", data=self.form(), timeout=10, trust_env=False)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def ask(self, token: str, path: str = "/orders", method: str = "GET") -> int:
        headers = {"Authorization": f"Bearer {token}"} | question(path, method)
        return httpx2.get(f"{self.url}/auth", headers=headers, timeout=10, trust_env=False).status_code

    def token_info(self, token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx2.get(f"{self.url}/tokeninfo", headers=headers, timeout=10, trust_env=False).status_code


def question(path: str, method: str = "GET") -> dict[str, str]:
    return {"X-Original-URL": f"https://orders.example{path}", "X-Original-Method": method}


@dataclass(frozen=True)
class Seen:
    """One request: when it was sent (monotonic), and its status, or the name of what went wrong instead of an answer."""

    kind: str
    at: float
    outcome: str
    retry_after: bool

    @property
    def answered(self) -> bool:
        return self.outcome == "200"

    @property
    def put_off(self) -> bool:
        """The documented answer while the store is away."""
        return self.kind == "token" and self.outcome == "503" and self.retry_after


class Load:
    """A thread that sends; nothing is sent twice, and a connection that breaks counts as a lost request."""

    def __init__(self, caller: Caller, *, rate: float = 60.0) -> None:
        self._caller = caller
        self._token = caller.token()
        self._rate = rate
        self._seen: list[Seen] = []
        self._under_way: list[float] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=2 * _SECONDS)

    @contextlib.contextmanager
    def nothing_lost(self, *, store_away: bool = False) -> Iterator[None]:
        """What was sent from now until the block's end, and two seconds more, is answered with 200.

        `store_away`: `/oauth/token` may put callers off meanwhile, with 503 and Retry-After.
        """
        began = time.monotonic()
        yield
        time.sleep(2)
        ended = time.monotonic()
        # Every request has an answer or an error by then.
        wait_until(lambda: self._oldest_under_way() > ended, "what is in flight", seconds=2 * _SECONDS)
        seen = [one for one in self._seen if began <= one.at <= ended]
        lost = [one for one in seen if not one.answered and not (store_away and one.put_off)]
        told = Counter((one.kind, one.outcome, one.retry_after) for one in lost)
        assert not lost, f"lost {len(lost)} of {len(seen)}: {told}; first {lost[0].at - began:.1f} s after the start"
        counts = Counter(one.kind for one in seen)
        assert all(counts[kind] >= 5 for kind in set(KINDS)), counts

    def _oldest_under_way(self) -> float:
        return min(list(self._under_way), default=time.monotonic())

    async def _run(self) -> None:
        # Connections are kept as a gateway keeps them; the server may end one with its answer, never under a request.
        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=8, keepalive_expiry=30)
        waiting: set[asyncio.Task[None]] = set()
        async with httpx2.AsyncClient(
            base_url=self._caller.url, limits=limits, timeout=_SECONDS, trust_env=False
        ) as http:
            number, due = 0, time.monotonic()
            while not self._end.is_set():
                task = asyncio.create_task(self._send(http, KINDS[number % len(KINDS)]))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
                number += 1
                due = max(due + 1 / self._rate, time.monotonic() - 0.2)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                while len(waiting) > 200:
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if waiting:
                await asyncio.wait(waiting, timeout=_SECONDS)

    async def _send(self, http: httpx2.AsyncClient, kind: str) -> None:
        at = time.monotonic()
        self._under_way.append(at)
        outcome, retry_after = "", False
        try:
            answer = await self._request(http, kind)
            outcome, retry_after = str(answer.status_code), "retry-after" in answer.headers
        except httpx2.HTTPError as error:
            outcome = type(error).__name__
        finally:
            self._seen.append(Seen(kind, at, outcome, retry_after))
            self._under_way.remove(at)

    async def _request(self, http: httpx2.AsyncClient, kind: str) -> httpx2.Response:
        bearer = {"Authorization": f"Bearer {self._token}"}
        if kind == "token":
            return await http.post("/oauth/token", data=self._caller.form())
        if kind == "tokeninfo":
            return await http.get("/tokeninfo", headers=bearer)
        return await http.get("/auth", headers=bearer | question("/orders"))
