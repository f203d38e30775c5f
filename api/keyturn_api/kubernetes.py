"""A thin client of the Kubernetes API for the few calls that this service makes: bounded in time and size, with typed failures."""

import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2
import orjson

from keyturn_api.logs import get_logger

_log = get_logger("kubernetes")
ACCOUNT_DIRECTORY: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
GROUP: Final = "keyturn.dev"
API_VERSION: Final = f"{GROUP}/v1alpha1"
MERGE_PATCH: Final = "application/merge-patch+json"
_FIELD_MANAGER: Final = "keyturn-api"
_MAX_ANSWER: Final = 2 * 1024 * 1024
_MAX_TOKEN: Final = 64 * 1024
_TIMEOUT: Final = httpx2.Timeout(5.0, connect=2.0, pool=2.0)
_LIMITS: Final = httpx2.Limits(max_connections=16, max_keepalive_connections=4)
_MAX_REASON: Final = 64

Object = dict[str, Any]


class KubernetesError(Exception):
    """A call that did not do what was asked. The text is for the log: it holds no token and nothing of a body."""


class Unreachable(KubernetesError):
    """No answer, or one that says try again (429, 5xx): nothing is known of the effect."""


class Refused(KubernetesError):
    """A definite no: `status` of HTTP, `reason` of the Kubernetes Status (`Forbidden`, `NotFound`, `Invalid`, …)."""

    def __init__(self, call: str, status: int, reason: str) -> None:
        super().__init__(f"{call}: {status} {reason}".rstrip())
        self.status = status
        self.reason = reason


class Conflict(Refused):
    """409: the object exists already, or is another one or another version than was named."""


class NotConfigured(Exception):
    """There is no Kubernetes API to call: the process runs in no pod, and no URL is set."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the Kubernetes API is and how to show who calls. The token stays in its file, which is renewed by whoever mounts it."""

    url: str
    namespace: str
    token_file: Path
    ca_file: Path | None = field(default=None)


def find_access(
    *,
    url: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    namespace: str | None,
    environ: Mapping[str, str] | None = None,
    directory: Path = ACCOUNT_DIRECTORY,
) -> Access:
    """What was set, else what every pod has. Raises NotConfigured where neither says enough."""
    environ = os.environ if environ is None else environ
    if url is None:
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise NotConfigured("no KEYTURN_KUBERNETES_URL, and not in a pod")
        url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    token_file = token_file or directory / "token"
    if not token_file.is_file():
        raise NotConfigured(f"there is no token in {token_file}")
    if ca_file is None and (directory / "ca.crt").is_file():
        ca_file = directory / "ca.crt"
    if namespace is None:
        with suppress(OSError, ValueError):
            namespace = (directory / "namespace").read_text("ascii").strip()
    if not namespace:
        raise NotConfigured("no KEYTURN_NAMESPACE, and not in a pod")
    return Access(url.rstrip("/"), namespace, token_file, ca_file)


class Kubernetes:
    """The calls. Paths are relative to the server's root; names in them must be quoted (`path`)."""

    def __init__(self, access: Access, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.namespace = access.namespace
        self._access = access
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None
        self._authority: tuple[int, int] | None = None
        self._token: tuple[tuple[int, int], str] | None = None

    async def close(self) -> None:
        """Lets all connections go."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def get(self, path: str) -> Object:
        """The object or document at this path."""
        return await self._call("GET", path, body=None)

    async def create(self, collection: str, body: Object) -> Object:
        """POSTs an object (or a review, whose answer is its status). Raises Conflict when it exists."""
        return await self._call("POST", collection, body=body)

    async def patch(self, path: str, body: Object) -> Object:
        """Merge-patches an object and returns it. A uid or resourceVersion in the body guards it: Conflict when they differ."""
        return await self._call("PATCH", path, body=body, content_type=MERGE_PATCH)

    async def delete(self, path: str, *, uid: str | None = None, resource_version: str | None = None) -> bool:
        """Deletes exactly this object, its dependants in the background. False when it was gone already."""
        guards = {"uid": uid, "resourceVersion": resource_version}
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {name: value for name, value in guards.items() if value is not None},
        }
        try:
            await self._call("DELETE", path, body=options)
        except Refused as error:
            if error.status == 404:
                return False
            raise
        return True

    async def _call(
        self, method: str, path: str, *, body: Object | None, content_type: str = "application/json"
    ) -> Object:
        call = f"{method} {path}"
        parameters = {"fieldManager": _FIELD_MANAGER} if method in ("POST", "PATCH") else {}
        # A JWKS has a type of its own, and is served to nobody who takes nothing but plain JSON.
        headers = {"accept": "application/json, application/jwk-set+json", "accept-encoding": "identity"}
        if body is not None:
            headers["content-type"] = content_type
        client = self._connected()
        try:
            headers["authorization"] = f"Bearer {self._bearer()}"
            async with client.stream(
                method,
                self._access.url + path,
                params=parameters,
                content=None if body is None else orjson.dumps(body),
                headers=headers,
            ) as answer:
                received = await _read(answer, call)
                status = answer.status_code
        except (httpx2.HTTPError, OSError) as error:
            # The text of the error may name what was sent; its kind says enough.
            await self._forget_old_authority(client)
            raise Unreachable(f"{call}: {type(error).__name__}") from None
        return _judge(call, status, received)

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            verify: ssl.SSLContext | bool = True
            if self._access.ca_file is not None and self._access.url.startswith("https"):
                try:
                    self._authority = _stamp(self._access.ca_file)
                    verify = ssl.create_default_context(cafile=str(self._access.ca_file))
                except (OSError, ssl.SSLError) as error:
                    raise Unreachable(f"the authority's certificate cannot be read: {type(error).__name__}") from None
            self._client = httpx2.AsyncClient(
                verify=verify,
                timeout=_TIMEOUT,
                limits=_LIMITS,
                transport=self._transport,
                # Where the Kubernetes API is, no proxy of the environment stands between.
                trust_env=False,
                follow_redirects=False,
            )
        return self._client

    async def _forget_old_authority(self, client: httpx2.AsyncClient) -> None:
        """A cluster that changes its authority renews the mounted file: the next call reads it."""
        if self._access.ca_file is None or client is not self._client:
            return
        with suppress(OSError):
            if self._authority is not None and _stamp(self._access.ca_file) != self._authority:
                self._client = None
                await client.aclose()

    def _bearer(self) -> str:
        stamp = _stamp(self._access.token_file)
        if self._token is None or self._token[0] != stamp:
            with self._access.token_file.open("rb") as file:
                content = file.read(_MAX_TOKEN)
            self._token = (stamp, content.decode("ascii", "replace").strip())
        return self._token[1]


def path(api_version: str, plural: str, *, namespace: str | None = None, name: str | None = None) -> str:
    """The path of a collection or of one object, such as `/api/v1/namespaces/NS/secrets`."""
    root = "/api" if "/" not in api_version else "/apis"
    space = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
    return f"{root}/{api_version}{space}/{plural}" + ("" if name is None else f"/{quote(name, safe='')}")


async def _read(answer: httpx2.Response, call: str) -> bytes:
    parts, size = [], 0
    async for part in answer.aiter_raw():
        size += len(part)
        if size > _MAX_ANSWER:
            raise Unreachable(f"{call}: the answer is too long")
        parts.append(part)
    return b"".join(parts)


def _judge(call: str, status: int, received: bytes) -> Object:
    try:
        document = orjson.loads(received)
    except orjson.JSONDecodeError:
        document = None
    if 200 <= status < 300 and isinstance(document, dict):
        return document
    reason = ""
    if isinstance(document, dict) and isinstance(document.get("reason"), str):
        reason = document["reason"][:_MAX_REASON]
    # 404 without a reason is a path that is not served, and a page of some proxy is no answer of the Kubernetes API.
    if status == 429 or status >= 500 or status < 400 or document is None:
        raise Unreachable(f"{call}: {status} {reason}".rstrip())
    raise (Conflict if status == 409 else Refused)(call, status, reason)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino
