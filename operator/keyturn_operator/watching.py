"""All that there is of kopf: watches whose events only name a key. Nothing of kopf's state lands on any object."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import kopf

from keyturn.records import Kind
from keyturn_operator.kube.login import login
from keyturn_operator.queue import Key
from keyturn_operator.scope import Scope
from keyturn_operator.settings import GROUP, PLURALS, VERSION


class OnEvent(Protocol):
    """Takes a key; for a deletion, the uid of what was deleted; and whether the object was only listed, not changed."""

    def __call__(self, key: Key, deleted_uid: str | None, *, listed: bool) -> None:
        """Must not block."""


class _Backoffs:
    """Seconds between the tries of a call, without end. kopf gives up when they end, and the process with it: one namespace whose
    rights are gone would take the watches of all others down.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (1.0, 1.0, 2.0, 3.0, 5.0, 8.0)
        while True:
            yield 10.0


def kopf_settings() -> kopf.OperatorSettings:
    """kopf's settings, stated in full where a default would hurt."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # the Lease decides; a foreign peering object must not pause us
    settings.scanning.disabled = True  # no rights on namespaces and CRDs are needed
    settings.watching.server_timeout = 300  # an int: it goes into the URL as it is
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 30
    settings.watching.reconnect_backoff = 1.0
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Backoffs()
    settings.queueing.worker_limit = None
    settings.execution.default_backoff = 30
    settings.persistence.finalizer = f"{GROUP}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"operator.{GROUP}", v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(
        prefix=f"operator.{GROUP}", key="last", v1=False
    )
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.process.ultimate_exiting_timeout = 30
    return settings


def registry(on_event: OnEvent) -> kopf.OperatorRegistry:
    """The handlers: one login, one event handler for each kind."""
    handlers = kopf.OperatorRegistry()

    async def log_in(*, settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo:
        return await asyncio.to_thread(login, settings)

    kopf.on.login(registry=handlers, retries=3)(log_in)

    def handler(kind: Kind) -> Callable[..., Any]:
        async def enqueue(*, namespace: str, name: str, uid: str, type: str | None, **_: Any) -> None:  # noqa: A002
            on_event(Key(kind, namespace, name), uid if type == "DELETED" else None, listed=type is None)

        return enqueue

    for kind, plural in PLURALS.items():
        kopf.on.event(GROUP, VERSION, plural, registry=handlers, id=f"enqueue-{plural}")(handler(kind))
    return handlers


async def watch(on_event: OnEvent, scope: Scope, stop: asyncio.Event, spawned: Callable[[], None]) -> None:
    """Runs kopf until `stop`, or until it ends by itself: that is a failure, whatever the reason. `spawned` follows its start."""
    before = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry(on_event),
        settings=kopf_settings(),
        clusterwide=scope.every,
        namespaces=() if scope.every else scope.places,
        standalone=True,
        # kopf would ask the system for the user's name, and a container's user has none. Nothing reads it without peering.
        identity=cast(Any, "keyturn"),
        stop_flag=stop,
    )
    spawned()
    await kopf.run_tasks(tasks, ignored=before)
