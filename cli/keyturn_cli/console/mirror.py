"""A collection of objects as it is now: listed once, then followed by a watch, so that a page of ten thousand costs the cluster nothing."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ..errors import CommandError
from ..kube import Absent, Gone, Kube, Object, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

WATCH_SECONDS: Final = 60
# Without the right to watch, and after failures: at most every so often.
POLL_SECONDS: Final = 15.0
FIRST_PAUSE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """`items` by name. `version` grows with every change. `problem`: why it may be old, for people; empty where it is not.

    `cut`: there are more objects than are kept.
    """

    items: Mapping[str, T]
    version: int
    loaded: bool
    problem: str = ""
    cut: bool = False


class Mirror(Generic[T]):
    """Follows one collection in a thread. What is kept of an object is what `reduce` makes of it, of at most `limit` objects."""

    def __init__(self, kube: Kube, path: str, reduce: Callable[[Object], T], *, limit: int) -> None:
        self._kube = kube
        self._path = path
        self._reduce = reduce
        self._limit = limit
        self._lock = threading.Lock()
        self._loaded = threading.Event()
        self._stopped = threading.Event()
        self._items: dict[str, T] = {}
        self._snapshot: Snapshot[T] = Snapshot({}, 0, False)
        self._problem = ""
        self._version = 0
        self._cut = False
        self._may_watch = True

    def start(self) -> None:
        threading.Thread(target=self._follow, name=f"mirror of {self._path}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def version(self) -> int:
        return self._version

    def snapshot(self, *, wait: float = 10.0) -> Snapshot[T]:
        """What is there now; the first time, after waiting for the list at most so many seconds."""
        self._loaded.wait(wait)
        with self._lock:
            if self._snapshot.version != self._version or self._snapshot.problem != self._problem:
                items = dict(sorted(self._items.items()))
                loaded = self._loaded.is_set() and not (self._problem and not items)
                self._snapshot = Snapshot(items, self._version, loaded, self._problem, self._cut)
            return self._snapshot

    def peek(self, name: str) -> T | None:
        """What is kept of one object now."""
        return self._items.get(name)

    def list_once(self) -> str:
        """Reads the whole collection and returns its version. Raises CommandError; what was known stays then."""
        found: dict[str, T] = {}
        cut, version = False, ""
        for objects, at in self._kube.pages(self._path):
            version = version or at
            for obj in objects:
                if len(found) >= self._limit:
                    cut = True
                    break
                found[_name(obj)] = self._reduce(obj)
            if cut:
                break
        with self._lock:
            self._items, self._cut, self._problem = found, cut, ""
            self._version += 1
        self._loaded.set()
        return version

    def take(self, kind: str, obj: Object) -> None:
        """One event of a watch."""
        if kind not in ("ADDED", "MODIFIED", "DELETED"):
            return
        name = _name(obj)
        reduced = None if kind == "DELETED" else self._reduce(obj)
        with self._lock:
            if reduced is None:
                self._items.pop(name, None)
            elif name in self._items or len(self._items) < self._limit:
                self._items[name] = reduced
            else:
                self._cut = True
            self._version += 1

    def _follow(self) -> None:
        version, pause = "", FIRST_PAUSE
        while not self._stopped.is_set():
            try:
                version = version or self.list_once()
                if self._may_watch:
                    version = self._watch(version)
                    pause = FIRST_PAUSE
                    continue
                version = ""
                self._stopped.wait(POLL_SECONDS)
            except Gone:
                version = ""
            except (Refused, Absent) as error:
                # Listed, so it is the watch that is not allowed: look again from time to time instead.
                if version and isinstance(error, Refused) and error.status == 403:
                    self._may_watch = False
                    version = ""
                    continue
                version = ""
                self.failed(error)
                self._stopped.wait(POLL_SECONDS)
            except CommandError as error:
                self.failed(error)
                self._stopped.wait(pause)
                # A connection that breaks in a quiet moment loses nothing, but who knows when it broke.
                version, pause = "", min(pause * 2, POLL_SECONDS)

    def _watch(self, version: str) -> str:
        for kind, obj in self._kube.watch(self._path, version, seconds=WATCH_SECONDS):
            self.take(kind, obj)
            version = str(_metadata(obj).get("resourceVersion") or version)
            if self._stopped.is_set():
                break
        return version

    def failed(self, error: CommandError) -> None:
        """What was known stays, and is said to be old."""
        with self._lock:
            self._problem = f"{error.problem} {error.next_step}".strip()
            self._version += 1
        self._loaded.set()


def _metadata(obj: Object) -> dict[str, Any]:
    metadata = obj.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _name(obj: Object) -> str:
    return str(_metadata(obj).get("name", ""))
