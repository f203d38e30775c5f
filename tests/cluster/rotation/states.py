"""What must hold at every instant, whatever is killed: the Secret, the status, the store and each replica's JWKS tell one story."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp

from tests.cluster.rotation.ledger import Ledger

Read = Callable[[], Awaitable[Mapping[str, Any]]]


class SigningWatch:
    """Looks at the signing keys from all sides, many times a second."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._told: dict[str, object] = {}
        self.activated: list[str] = []

    async def secret(self, read: Read) -> None:
        """The Secret: one Active and one Next, each with its private half."""
        while True:
            data = (await read()).get("data") or {}
            members = {name: base64.b64decode(value) for name, value in data.items()}
            if "keyring.json" not in members:
                self._ledger.fail(f"the signing keys' Secret holds {sorted(members)}")
            else:
                ring = json.loads(members["keyring.json"])
                phases = [(key["kid"], key["phase"]) for key in ring["keys"]]
                self._one_active("the Secret", phases)
                files = sum(name.endswith(".pem") for name in members)
                if files < sum(phase in ("Active", "Next") for _, phase in phases):
                    self._ledger.fail(f"the Secret lacks a private half: {phases}, {sorted(members)}")
            await asyncio.sleep(0.05)

    async def status(self, read: Read) -> None:
        """The status that people see."""
        while True:
            keys = ((await read()).get("status") or {}).get("keys") or []
            self._one_active("the status", [(key["kid"], key["state"]) for key in keys])
            await asyncio.sleep(0.1)

    async def row(self, read: Read) -> None:
        """The store's row, which decides what replicas sign with."""
        while True:
            body = await read()
            self._one_active("the store", [(key["kid"], key["phase"]) for key in body["keys"]])
            await asyncio.sleep(0.05)

    async def jwks(self, http: aiohttp.ClientSession, url: str) -> None:
        """A replica's JWKS is there and never empty."""
        while True:
            try:
                async with http.get(f"{url}/.well-known/jwks.json") as answer:
                    status, body = answer.status, await answer.text()
            except (aiohttp.ClientError, TimeoutError) as error:
                self._ledger.fail(f"the JWKS of {url}: {error!r}")
                continue
            kids = [key["kid"][:8] for key in json.loads(body)["keys"]] if status == 200 else []
            if kids:
                self._ledger.well("looks at a JWKS")
                self._tell(f"JWKS of {url}", kids)
            else:
                self._ledger.fail(f"the JWKS of {url} is {status} {body[:200]}")
            await asyncio.sleep(0.05)

    def _one_active(self, where: str, phases: Sequence[tuple[str, str]]) -> None:
        active = [kid for kid, phase in phases if phase == "Active"]
        if len(active) != 1:
            self._ledger.fail(f"{where} has {len(active)} Active keys: {phases}")
        elif where == "the store" and active[0] not in self.activated[-1:]:
            self.activated.append(active[0])
        if len([kid for kid, phase in phases if phase == "Next"]) != 1:
            self._ledger.fail(f"{where} has not just one Next key: {phases}")
        self._ledger.well(f"looks at {where}")
        self._tell(where, [f"{phase} {kid[:8]}" for kid, phase in phases])

    def _tell(self, where: str, what: object) -> None:
        if self._told.get(where) != what:
            self._told[where] = what
            self._ledger.event(f"{where}: {what}")
