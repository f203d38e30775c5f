"""Which objects look at which Secrets (or ServiceAccounts), and the watch that tells them of a change."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from keyturn_operator.kube.client import Kube, collection
from keyturn_operator.kube.errors import Gone, KubeError, KubeUnavailable
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Key, Priority

log = get_logger("secrets")

WATCH_SECONDS = 300
RETRY_FIRST = 1.0
# A change of a Secret counts within 5 s: a broken watch is mended before.
RETRY_LAST = 4.0


class SecretReferences:
    """(namespace, Secret name) → the objects that refer to it."""

    def __init__(self) -> None:
        self._of: dict[Key, frozenset[str]] = {}
        self._by: dict[tuple[str, str], set[Key]] = {}

    def set(self, key: Key, *names: str | None) -> None:
        """Says which Secrets of its namespace the object refers to now; None stands for none."""
        before = self._of.get(key, frozenset())
        wanted = frozenset(name for name in names if name is not None)
        for name in before - wanted:
            keys = self._by[(key.namespace, name)]
            keys.discard(key)
            if not keys:
                del self._by[(key.namespace, name)]
        for name in wanted - before:
            self._by.setdefault((key.namespace, name), set()).add(key)
        if wanted:
            self._of[key] = wanted
        else:
            self._of.pop(key, None)

    def of(self, namespace: str, name: str) -> frozenset[Key]:
        """The objects that refer to this Secret."""
        return frozenset(self._by.get((namespace, name), ()))

    def places(self, namespace: str) -> frozenset[tuple[str, str]]:
        """The Secrets (namespace, name) of the namespace, or of all for an empty one, that are referred to."""
        return frozenset(place for place in self._by if namespace in ("", place[0]))


def version_of(secret: Mapping[str, Any]) -> tuple[str, str]:
    """What changes whenever the Secret does."""
    metadata = secret.get("metadata") or {}
    return str(metadata.get("uid") or ""), str(metadata.get("resourceVersion") or "")


def place_of(secret: Mapping[str, Any]) -> tuple[str, str]:
    """Namespace and name."""
    return str(secret["metadata"]["namespace"]), str(secret["metadata"]["name"])


class Observer(Protocol):
    """Who is told of every Secret's metadata, not only of those that are referred to."""

    def listed(self, namespace: str, secrets: Iterable[Mapping[str, Any]]) -> None:
        """A complete list of a namespace, or of all for an empty one."""

    def seen(self, namespace: str, secret: str, metadata: Mapping[str, Any] | None) -> None:
        """One that has changed; None: it was deleted."""


class SecretWatch:
    """Watches the Secrets of a namespace, or of the whole cluster for an empty one. Metadata only: values pass through this process
    for those referred to only.

    `plural` names other objects of the core group to watch in their place, `field_selector` picks some of them. `observer` is told of all.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        references: SecretReferences,
        enqueue: Callable[[Key, Priority], None],
        *,
        plural: str = "secrets",
        field_selector: str = "",
        observer: Observer | None = None,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._plural = plural
        self._selector = field_selector
        self._path = collection("v1", plural, namespace)
        self._references = references
        self._enqueue = enqueue
        self._observer = observer
        self._seen: dict[tuple[str, str], tuple[str, str]] = {}

    async def run(self) -> None:
        """Lists and watches until cancelled; what fails is tried again, each time from a complete list."""
        failures = 0
        version: str | None = None
        while True:
            try:
                if version is None:
                    secrets, version = await self._kube.list_metadata(self._path, field_selector=self._selector)
                    self.listed({place_of(one): version_of(one) for one in secrets})
                    if self._observer is not None:
                        self._observer.listed(self._namespace, secrets)
                began = time.monotonic()
                version = await self._follow(version)
                failures = 0
                if time.monotonic() - began < RETRY_FIRST:
                    # A server or proxy that ends every watch at once must not be asked without a pause.
                    await asyncio.sleep(RETRY_FIRST)
            except (KubeError, KubeUnavailable, KeyError, TypeError) as error:
                version = None
                if isinstance(error, Gone):
                    await asyncio.sleep(RETRY_FIRST)
                    continue
                failures += 1
                log.warning("a watch was broken", namespace=self._namespace, resource=self._plural, cause=str(error))
                delay = min(RETRY_LAST, RETRY_FIRST * 2.0 ** min(failures - 1, 8))
                await asyncio.sleep(delay * random.uniform(0.75, 1.25))  # noqa: S311

    async def _follow(self, version: str) -> str:
        stream = self._kube.watch_metadata(self._path, version, timeout=WATCH_SECONDS, field_selector=self._selector)
        async with contextlib.aclosing(stream) as events:
            async for event in events:
                kind = event.get("type")
                secret = event.get("object") or {}
                if kind == "ERROR":
                    code = int(secret.get("code") or 500)
                    raise Gone("WATCH", code) if code == 410 else KubeUnavailable(f"WATCH {self._path}: HTTP {code}")
                version = str(secret["metadata"]["resourceVersion"])
                if kind != "BOOKMARK":
                    place = place_of(secret)
                    self.changed(place, None if kind == "DELETED" else version_of(secret))
                    if self._observer is not None:
                        self._observer.seen(*place, None if kind == "DELETED" else secret["metadata"])
        return version

    def listed(self, present: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        """Compares a complete list with what was seen before: what a broken watch has missed is made up for."""
        for place in self._references.places(self._namespace) | self._seen.keys():
            self.changed(place, present.get(place))

    def changed(self, place: tuple[str, str], version: tuple[str, str] | None) -> None:
        """Queues whoever refers to this Secret, if it is another than before. Only what is referred to is remembered."""
        keys = self._references.of(*place)
        before = self._seen.get(place)
        if version is None or not keys:
            self._seen.pop(place, None)
        else:
            self._seen[place] = version
        if before is None or before != version:
            for key in keys:
                self._enqueue(key, Priority.CHANGE)
