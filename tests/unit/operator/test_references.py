import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from keyturn.records import Kind
from keyturn_operator.kube.client import Object
from keyturn_operator.kube.errors import KubeUnavailable
from keyturn_operator.queue import Key, Priority
from keyturn_operator.references import SecretReferences, SecretWatch
from tests.unit.operator.fakes import NAMESPACE, FakeKube, key

A, B = key(Kind.CLIENT, "a"), key(Kind.CLIENT, "b")


class Watched:
    def __init__(self) -> None:
        self.kube = FakeKube()
        self.references = SecretReferences()
        self.queued: list[Key] = []
        self.watch = SecretWatch(self.kube, NAMESPACE, self.references, self._add)

    def _add(self, one: Key, _priority: Priority) -> None:
        self.queued.append(one)


def test_only_the_objects_that_refer_to_a_secret_are_queued() -> None:
    watched = Watched()
    watched.references.set(A, "one")
    watched.references.set(B, "two")
    watched.watch.changed((NAMESPACE, "one"), ("uid", "1"))
    assert watched.queued == [A]


def test_a_secret_of_another_namespace_is_another_secret() -> None:
    references = SecretReferences()
    references.set(A, "one")
    assert references.of("elsewhere", "one") == frozenset()


def test_a_reference_that_moves_leaves_the_old_secret() -> None:
    references = SecretReferences()
    references.set(A, "one")
    references.set(A, "two")
    assert references.of(NAMESPACE, "one") == frozenset()
    assert references.of(NAMESPACE, "two") == {A}
    references.set(A, None)
    assert references.places(NAMESPACE) == frozenset()


def test_a_version_seen_before_queues_nothing() -> None:
    watched = Watched()
    watched.references.set(A, "one")
    watched.watch.changed((NAMESPACE, "one"), ("uid", "1"))
    watched.watch.changed((NAMESPACE, "one"), ("uid", "1"))
    assert watched.queued == [A]


@pytest.mark.parametrize(
    "present",
    [
        pytest.param({"one": ("uid", "2")}, id="changed"),
        pytest.param({"one": ("uid-2", "1")}, id="made anew"),
        pytest.param({}, id="deleted"),
    ],
)
def test_a_list_makes_up_for_what_a_broken_watch_has_missed(present: dict[str, tuple[str, str]]) -> None:
    watched = Watched()
    watched.references.set(A, "one")
    watched.watch.changed((NAMESPACE, "one"), ("uid", "1"))
    watched.queued.clear()
    watched.watch.listed({(NAMESPACE, name): version for name, version in present.items()})
    assert watched.queued == [A]


def test_nothing_is_remembered_of_secrets_that_nobody_refers_to() -> None:
    watched = Watched()
    for number in range(100):
        watched.watch.changed((NAMESPACE, f"s{number}"), ("uid", "1"))
    assert watched.watch._seen == {}


async def test_a_broken_watch_is_begun_again_from_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn_operator.references.RETRY_FIRST", 0.001)
    watched = Watched()
    watched.references.set(A, "one")
    watched.kube.secret("one", {})
    attempts = 0
    idle = asyncio.Event()

    async def watch(
        path: str, resource_version: str, *, timeout: int, field_selector: str = ""
    ) -> AsyncGenerator[Object]:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            watched.kube.secret("one", {"changed": "eA=="})
            raise KubeUnavailable("WATCH: down")
        if attempts == 2:
            metadata = {"name": "one", "namespace": NAMESPACE, "uid": "uid-secret-one", "resourceVersion": "77"}
            yield {"type": "MODIFIED", "object": {"metadata": metadata}}
            return
        assert resource_version == "77", "a watch that ended by itself goes on where it was"
        idle.set()
        await asyncio.sleep(60)

    watched.kube.watch_metadata = watch  # type: ignore[method-assign]
    task = asyncio.create_task(watched.watch.run())
    async with asyncio.timeout(5):
        await idle.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert watched.queued == [A, A, A]
