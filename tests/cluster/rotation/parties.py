"""Who takes part in a load: services that verify tokens with the JWKS they keep, and clients that get tokens and use them.

They work as other people's programs do: PyJWT makes and verifies, the JWKS is kept for exactly as long as its `max-age` allows and is not
asked for sooner, and a client sees its new Secret some time after it was written.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
import urllib.parse
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt

from tests.cluster.rotation.ledger import Ledger

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
AUDIENCE = "load"
_MAX_AGE = re.compile(r"max-age=(\d+)")


class Verifier:
    """A service elsewhere: it knows the JWKS only as one replica gave it out, for as long as that said."""

    def __init__(self, http: aiohttp.ClientSession, url: str, issuer: str, ledger: Ledger) -> None:
        self._http = http
        self._url = f"{url}/.well-known/jwks.json"
        self._issuer = issuer
        self._ledger = ledger
        self._lock = asyncio.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = 0.0
        self._max_age = -1

    async def verify(self, token: str) -> None:
        kid = str(jwt.get_unverified_header(token)["kid"])
        keys = await self._current()
        kept = f"JWKS of {time.monotonic() - self._fetched_at:.2f} s ago, max-age {self._max_age}: {sorted(keys)}"
        if kid not in keys:
            self._ledger.fail(f"a verifier does not know the kid {kid}; it keeps the {kept}")
            return
        try:
            jwt.decode(token, keys[kid], algorithms=["RS256"], audience=AUDIENCE, issuer=self._issuer)
        except jwt.PyJWTError as error:
            self._ledger.fail(f"a verifier refuses a token of kid {kid}: {error!r}; it keeps the {kept}")
            return
        self._ledger.well("verified elsewhere")

    async def _current(self) -> dict[str, jwt.PyJWK]:
        async with self._lock:
            if time.monotonic() - self._fetched_at > self._max_age:
                began = time.monotonic()
                async with self._http.get(self._url) as answer:
                    document = await answer.json()
                    found = _MAX_AGE.search(answer.headers.get("cache-control", ""))
                self._keys = {one["kid"]: jwt.PyJWK(one) for one in document["keys"]}
                self._max_age = int(found[1]) if found else 0
                # The answer is as old as its arrival: what a program counts from that has it longest.
                self._fetched_at = max(began, time.monotonic())
        return self._keys


class Mounted:
    """A Secret as a workload finds it mounted: each version comes into sight some seconds (`lag`) after it was written."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger = ledger
        self._name = name
        self.read: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
        self.versions: list[tuple[float, dict[str, str]]] = []

    def seen(self, lag: float) -> dict[str, str]:
        """The newest version that is at least `lag` seconds old; the first one where none is."""
        old = [data for at, data in self.versions if at <= time.monotonic() - lag]
        return (old or [self.versions[0][1]])[-1]

    async def look(self) -> None:
        assert self.read is not None
        encoded = (await self.read()).get("data") or {}
        data = {name: base64.b64decode(value).decode() for name, value in encoded.items()}
        if "client_id" in data and (not self.versions or self.versions[-1][1] != data):
            self.versions.append((time.monotonic(), data))
            self._ledger.event(f"Secret {self._name}: version {len(self.versions)}, {data.get('key_id', '')}")

    async def follow(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(0.2)


Proof = tuple[dict[str, str], dict[str, str]]
"""The headers and the form fields that prove a client, in one request."""
Credential = Callable[[], Proof]


def by_key(client_id: str, issuer: str, pem: str, algorithm: str, kid: str) -> Credential:
    """`private_key_jwt`, signed anew each time."""

    def prove() -> Proof:
        now = int(time.time())
        own = {"iss": client_id, "sub": client_id, "aud": issuer, "jti": str(uuid.uuid4()), "iat": now, "exp": now + 60}
        assertion = jwt.encode(own, pem, algorithm=algorithm, headers={"kid": kid})
        return {}, {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}

    return prove


def by_secret(client_id: str, secret: str) -> Credential:
    """`client_secret_basic`."""
    # RFC 6749 section 2.3.1: both are form-encoded before they are joined.
    pair = f"{urllib.parse.quote_plus(client_id)}:{urllib.parse.quote_plus(secret)}"
    headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return lambda: (headers, {})


@dataclass
class Parties:
    """All replicas, the verifiers that read the JWKS of each, and tokens that were issued a while ago."""

    http: aiohttp.ClientSession
    urls: Sequence[str]
    issuer: str
    ledger: Ledger
    token_lifetime: float
    verifiers: list[Verifier] = field(default_factory=list)
    issued: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=200_000))

    def __post_init__(self) -> None:
        self.verifiers = [Verifier(self.http, url, self.issuer, self.ledger) for url in self.urls]

    async def call(self, name: str, prove: Credential) -> None:
        """A client at full speed: a token of some replica, verified elsewhere, let through by another replica's gateway check."""
        while True:
            url = random.choice(self.urls)
            token = await self._grant(name, url, prove)
            if token is not None:
                self.issued.append((time.monotonic(), token))
                await random.choice(self.verifiers).verify(token)
                await self.pass_gateway(token, random.choice(self.urls), "let through")

    async def look_back(self) -> None:
        """Holds that tokens still count towards their end, whatever has become of the key that signed them."""
        while True:
            await asyncio.sleep(0.02)
            now = time.monotonic()
            # Early enough that a busy machine does not make it expire on the way.
            while self.issued and now - self.issued[0][0] > self.token_lifetime - 6.0:
                issued_at, token = self.issued.popleft()
                if now - issued_at < self.token_lifetime - 5.0 and random.random() < 0.05:
                    await random.choice(self.verifiers).verify(token)
                    await self.pass_gateway(token, random.choice(self.urls), "let through later")

    async def pass_gateway(self, token: str, url: str, what: str) -> None:
        headers = {
            "Authorization": f"Bearer {token}",
            "Original-Request-Method": "GET",
            "Original-Request-Uri": "/load",
        }
        try:
            async with self.http.get(f"{url}/auth", headers=headers) as answer:
                body = await answer.text()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            self.ledger.fail(f"/auth of {url}: {error!r}")
            return
        if status == 200:
            self.ledger.well(what)
        else:
            kid = jwt.get_unverified_header(token).get("kid")
            self.ledger.fail(f"/auth of {url} answers {status} to a token of kid {kid} ({what}): {body[:300]}")

    async def _grant(self, name: str, url: str, prove: Credential) -> str | None:
        headers, proof = prove()
        form = {"grant_type": "client_credentials", **proof}
        try:
            async with self.http.post(f"{url}/oauth/token", data=form, headers=headers) as answer:
                body = await answer.json()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.ledger.fail(f"/oauth/token of {url} for {name}: {error!r}")
            return None
        if status != 200:
            kid = jwt.get_unverified_header(proof["client_assertion"])["kid"] if proof else "a secret"
            self.ledger.fail(f"/oauth/token of {url} answers {status} to {name} with {kid}: {str(body)[:300]}")
            return None
        self.ledger.well(f"tokens for {name}")
        return str(body["access_token"])
