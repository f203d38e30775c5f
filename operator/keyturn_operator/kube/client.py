"""A thin client of the Kubernetes API: just the calls that reconciling needs, each bounded in time and with typed failures."""

import asyncio
import contextlib
import datetime
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import aiohttp
import kopf
import orjson

from keyturn_operator.kube.errors import KubeError, KubeUnavailable, NotFound, refused

FIELD_MANAGER = "keyturn-operator"
PAGE = 500
MAX_PAGES = 1000
TIMEOUT = 15.0

_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

Object = dict[str, Any]


def collection(api_version: str, plural: str, namespace: str) -> str:
    """The path of a namespaced collection, such as `/api/v1/namespaces/NS/secrets`; without a namespace that of the whole cluster."""
    root = "/api" if "/" not in api_version else "/apis"
    where = f"namespaces/{namespace}/" if namespace else ""
    return f"{root}/{api_version}/{where}{plural}"


class Kube(Protocol):
    """What the operator needs of the Kubernetes API. Failures are those of `kube.errors`."""

    async def get(self, path: str) -> Object | None:
        """The object at this path; None when it is not there."""

    async def list_metadata(self, path: str, *, field_selector: str = "") -> tuple[list[Object], str]:
        """Metadata of all objects of a collection (that the selector picks), and the list's resourceVersion: complete, or an error."""

    async def create(self, path: str, body: Object) -> Object:
        """POSTs an object. Raises Conflict when it exists."""

    async def apply(self, path: str, body: Object) -> Object:
        """Server-side apply with our field manager; with a `metadata.resourceVersion` in the body, Conflict when it has changed."""

    async def merge(self, path: str, body: Object) -> Object:
        """Merge-patches an object (RFC 7386: null takes a member out); with a `metadata.resourceVersion`, Conflict when it has changed."""

    async def replace(self, path: str, body: Object) -> Object:
        """PUTs an object under the resourceVersion in its body."""

    async def patch_status(self, path: str, body: Object) -> Object:
        """Merge-patches the status subresource."""

    async def remove(self, path: str, *, uid: str) -> None:
        """Deletes the object of exactly this uid. Raises NotFound when it is gone, Conflict when another one has its name."""

    def watch_metadata(
        self, path: str, resource_version: str, *, timeout: int, field_selector: str = ""
    ) -> AsyncGenerator[Object]:
        """The watch events of a collection (of what the selector picks), metadata only, until the server ends the watch."""


class KubeClient:
    """`Kube` over aiohttp, with the credentials of `login`, read anew before they expire and after a 401."""

    def __init__(self, login: Callable[[], kopf.ConnectionInfo]) -> None:
        self._login = login
        self._info: kopf.ConnectionInfo | None = None
        self._session: aiohttp.ClientSession | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Lets all connections go."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str) -> Object | None:
        try:
            return await self._json("GET", path)
        except NotFound:
            return None

    async def list_metadata(self, path: str, *, field_selector: str = "") -> tuple[list[Object], str]:
        selected = {"fieldSelector": field_selector} if field_selector else {}
        found: list[Object] = []
        token = ""
        for _ in range(MAX_PAGES):
            query = {"limit": str(PAGE)} | selected | ({"continue": token} if token else {})
            page = await self._json("GET", path, query=query, accept=_METADATA_LIST)
            items = page.get("items")
            metadata = page.get("metadata")
            if not isinstance(metadata, dict) or not isinstance(items or [], list):
                raise KubeUnavailable(f"GET {path}: the answer is not a list")
            found.extend(items or [])
            token = metadata.get("continue") or ""
            if not token:
                return found, str(metadata.get("resourceVersion") or "")
        raise KubeUnavailable(f"GET {path}: the list does not end")

    async def create(self, path: str, body: Object) -> Object:
        return await self._json("POST", path, query={"fieldManager": FIELD_MANAGER}, body=body)

    async def apply(self, path: str, body: Object) -> Object:
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._json("PATCH", path, query=query, body=body, content="application/apply-patch+yaml")

    async def merge(self, path: str, body: Object) -> Object:
        query = {"fieldManager": FIELD_MANAGER}
        return await self._json("PATCH", path, query=query, body=body, content="application/merge-patch+json")

    async def replace(self, path: str, body: Object) -> Object:
        return await self._json("PUT", path, query={"fieldManager": FIELD_MANAGER}, body=body)

    async def patch_status(self, path: str, body: Object) -> Object:
        query = {"fieldManager": FIELD_MANAGER}
        return await self._json(
            "PATCH", f"{path}/status", query=query, body=body, content="application/merge-patch+json"
        )

    async def remove(self, path: str, *, uid: str) -> None:
        await self._json("DELETE", path, body={"preconditions": {"uid": uid}})

    async def watch_metadata(
        self, path: str, resource_version: str, *, timeout: int, field_selector: str = ""
    ) -> AsyncGenerator[Object]:
        # Bookmarks come every minute: a stream that says nothing for longer is dead, even if nobody closed the connection.
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout),
            **({"fieldSelector": field_selector} if field_selector else {}),
        }
        limits = aiohttp.ClientTimeout(total=timeout + 30, sock_connect=10, sock_read=75)
        async with self._answer("GET", path, query=query, accept=_METADATA, limits=limits) as answer:
            pending = b""
            try:
                async for chunk in answer.content.iter_any():
                    *lines, pending = (pending + chunk).split(b"\n")
                    if len(pending) > 2 * 1024 * 1024:
                        raise KubeUnavailable(f"WATCH {path}: a line without end")
                    for line in lines:
                        if line.strip():
                            yield orjson.loads(line)
            except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
                raise KubeUnavailable(f"WATCH {path}: {type(error).__name__}") from error

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        accept: str = "application/json",
        content: str = "application/json",
    ) -> Object:
        async with self._answer(method, path, query=query, body=body, accept=accept, content=content) as answer:
            try:
                loaded = orjson.loads(await answer.read())
            except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
                raise KubeUnavailable(f"{method} {path}: {type(error).__name__}") from error
            if not isinstance(loaded, dict):
                raise KubeUnavailable(f"{method} {path}: the answer is not an object")
            return loaded

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        accept: str = "application/json",
        content: str = "application/json",
        limits: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of a call that succeeded. A 401 is met once with credentials read anew: the token may have been replaced."""
        call = f"{method} {path}"
        for attempt in (1, 2):
            session, server = await self._connection(renew=attempt == 2)
            try:
                answer = await session.request(
                    method,
                    server + path,
                    params=query,
                    data=None if body is None else orjson.dumps(body),
                    headers={"Accept": accept} | ({} if body is None else {"Content-Type": content}),
                    allow_redirects=False,
                    timeout=limits or aiohttp.ClientTimeout(total=TIMEOUT, sock_connect=10),
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise KubeUnavailable(f"{call}: {type(error).__name__}") from error
            except RuntimeError as error:  # another call has closed the session to log in anew
                if attempt == 2:
                    raise KubeUnavailable(f"{call}: {type(error).__name__}") from error
                continue
            async with answer:
                if answer.status == 401 and attempt == 1:
                    continue
                if answer.status >= 300:
                    await self._refuse(call, answer)
                yield answer
                return

    @staticmethod
    async def _refuse(call: str, answer: aiohttp.ClientResponse) -> None:
        if answer.status == 429 or answer.status >= 500:
            raise KubeUnavailable(f"{call}: HTTP {answer.status}")
        try:
            told: object = json.loads(await answer.content.read(65_536))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            told = None
        raise refused(call, answer.status, told)

    async def _connection(self, *, renew: bool) -> tuple[aiohttp.ClientSession, str]:
        async with self._lock:
            now = datetime.datetime.now(datetime.UTC)
            info = self._info
            expired = info is None or (info.expiration is not None and info.expiration <= now)
            if renew or expired or info is None or self._session is None or self._session.closed:
                try:
                    info = await asyncio.to_thread(self._login)
                    context = await asyncio.to_thread(info.as_ssl_context)
                except (kopf.LoginError, OSError, ValueError) as error:
                    raise KubeUnavailable(f"login: {type(error).__name__}") from error
                old = self._session
                self._info = info
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=context, limit=32, keepalive_timeout=30),
                    headers=info.as_http_headers(),
                    trust_env=info.trust_env,
                )
                if old is not None:
                    # Calls that are still under way keep their connection for a moment: a watch then simply resumes.
                    asyncio.get_running_loop().call_later(TIMEOUT, _close_later, old)
            return self._session, info.server.rstrip("/")


_closing: set[asyncio.Task[None]] = set()


def _close_later(session: aiohttp.ClientSession) -> None:
    task = asyncio.get_running_loop().create_task(session.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


__all__ = ["FIELD_MANAGER", "Kube", "KubeClient", "KubeError", "Object", "collection"]
