"""Has whatever the tests do observed: requests by their client libraries, keys, installations at their end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import requests

from keyturn import reasons
from keyturn_dev.cluster import Cluster
from keyturn_dev.installation import Installation
from tests.secrecy.planted import PLANTED

_open: list[Installation] = []


def observe() -> None:
    """From now on everything is. Once in a process."""
    _observe_httpx2()
    _observe_requests()
    _observe_installations()


def _observe_httpx2() -> None:
    send, send_async = httpx2.Client.send, httpx2.AsyncClient.send

    def observed(self: httpx2.Client, request: httpx2.Request, **options: Any) -> httpx2.Response:
        answer = send(self, request, **options)
        _exchanged(request, answer)
        return answer

    async def observed_async(self: httpx2.AsyncClient, request: httpx2.Request, **options: Any) -> httpx2.Response:
        answer = await send_async(self, request, **options)
        _exchanged(request, answer)
        return answer

    httpx2.Client.send = observed  # type: ignore[method-assign]
    httpx2.AsyncClient.send = observed_async  # type: ignore[method-assign]


def _exchanged(request: httpx2.Request, answer: httpx2.Response) -> None:
    # What streams is not read here.
    body = content = b""
    with contextlib.suppress(httpx2.RequestNotRead):
        body = request.content
    with contextlib.suppress(httpx2.ResponseNotRead):
        content = answer.content
    PLANTED.exchange(request.headers, body, content, answer.headers.get("content-type", ""))


def _observe_requests() -> None:
    send = requests.Session.send

    def observed(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        answer = send(self, request, **options)
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        headers = {name: str(value) for name, value in request.headers.items()}
        PLANTED.exchange(
            headers,
            body if isinstance(body, bytes) else b"",
            b"" if options.get("stream") else answer.content,
            answer.headers.get("content-type", ""),
        )
        return answer

    requests.Session.send = observed  # type: ignore[method-assign]


def _observe_installations() -> None:
    prepare, stop = Installation.prepare, Installation.stop

    def observed_prepare(self: Installation) -> None:
        prepare(self)
        if self not in _open:
            _open.append(self)

    def observed_stop(self: Installation) -> bool:
        if self in _open:
            gather(self)
            _open.remove(self)
        return stop(self)

    Installation.prepare = observed_prepare  # type: ignore[method-assign]
    Installation.stop = observed_stop  # type: ignore[method-assign]


def gather(installation: Installation) -> None:
    """Keeps logs, store and objects of an installation, and plants the secrets that its namespace and its folder hold."""
    name = installation.namespace
    for log in sorted(installation.state.glob("logs/*")):
        PLANTED.keep(f"{name} {log.name}", log.read_bytes())
    for config in installation.state.glob("*.kubeconfig"):
        for line in config.read_text(encoding="utf-8").splitlines():
            if line.strip().startswith(("token:", "client-key-data:")):
                PLANTED.value(f"{name} {config.name}", line.partition(":")[2].strip())
    keep_dump(name, installation.store_url)
    try:
        _keep_objects(installation)
    except Exception as error:  # noqa: BLE001 - a test may have taken its API server away; how often is looked at in the end
        PLANTED.unreadable.append(f"{name}: {type(error).__name__}")


def _keep_objects(installation: Installation) -> None:
    # Here, for importing it makes keys.
    from tests.cluster.clients import Objects

    assert isinstance(installation.target, Cluster)
    objects = Objects(installation)
    try:
        for secret in objects.all("secrets"):
            PLANTED.secret(secret)
        told = [one for plural in ("events", "leases", "signingkeys", "accessrules") for one in objects.all(plural)]
        told += [without_mistakes(one) for one in objects.all("clientcredentials")]
    finally:
        objects.close()
    PLANTED.keep(f"{installation.namespace} objects.json", json.dumps(told, ensure_ascii=False))


def without_mistakes(client: dict[str, Any]) -> dict[str, Any]:
    """The object as kubectl prints it; of one whose key cannot be read, which may be a private one in disguise, only what we wrote."""
    found = {one.get("reason") for one in (client.get("status") or {}).get("conditions") or ()}
    if found & {reasons.INVALID_KEY, reasons.PRIVATE_KEY}:
        return {"metadata": {"name": client["metadata"]["name"]}, "status": client["status"]}
    return client


def keep_dump(name: str, store_url: str) -> None:
    """Keeps everything that a store holds, as text."""
    if store_url.startswith("sqlite:///"):
        path = Path(store_url.removeprefix("sqlite:///"))
        if path.is_file():
            PLANTED.keep(f"{name} store.sql", sqlite_dump(path))
        return
    # In a loop and a thread of its own, for the caller may have a loop that runs.
    with ThreadPoolExecutor(1) as pool:
        try:
            PLANTED.keep(f"{name} store.txt", pool.submit(asyncio.run, postgres_dump(store_url)).result(30))
        except (OSError, asyncpg.PostgresError) as error:
            PLANTED.unreadable.append(f"{name}, its store: {type(error).__name__}")


def sqlite_dump(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
        return "\n".join(connection.iterdump())


async def postgres_dump(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        rows = [
            row[0]
            for (table,) in tables
            for row in await connection.fetch(f'SELECT CAST(t AS text) FROM "{table}" AS t')
        ]
    finally:
        await connection.close()
    return "\n".join(rows)
