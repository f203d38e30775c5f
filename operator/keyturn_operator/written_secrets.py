"""Which Secrets hold members that we wrote, and for which ClientCredential: known from their metadata, as the Secret watch sees it.

So what was written can be taken out when its object is gone or names another Secret, also when that happened while no operator ran.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keyturn.records import Kind
from keyturn_operator.credential_secret import owner_of
from keyturn_operator.queue import Key, Priority
from keyturn_operator.references import SecretReferences, place_of


class WrittenSecrets:
    """(namespace, Secret) → the ClientCredential whose members are in it."""

    def __init__(self, references: SecretReferences, enqueue: Callable[[Key, Priority], None]) -> None:
        self._references = references
        self._enqueue = enqueue
        self._owners: dict[tuple[str, str], Key] = {}
        self._secrets: dict[Key, set[str]] = {}

    def of(self, key: Key) -> frozenset[str]:
        """The Secrets of the object's namespace that hold members written for it."""
        return frozenset(self._secrets.get(key, ()))

    def note(self, key: Key, secret: str) -> None:
        """We have just written it."""
        self._set(key.namespace, secret, key)

    def forget(self, namespace: str, secret: str) -> None:
        """It holds nothing of ours any more, or is gone."""
        self._set(namespace, secret, None)

    def seen(self, namespace: str, secret: str, metadata: Mapping[str, Any] | None) -> None:
        """A Secret as the watch shows it (None: deleted). Queues an object that no longer refers to what was written for it."""
        owner = owner_of(metadata) if metadata is not None else None
        if owner is None:
            self.forget(namespace, secret)
            return
        key = Key(Kind.CLIENT, namespace, owner)
        self._set(namespace, secret, key)
        if key not in self._references.of(namespace, secret):
            self._enqueue(key, Priority.RESYNC)

    def listed(self, namespace: str, secrets: Iterable[Mapping[str, Any]]) -> None:
        """A complete list of a namespace's Secrets (their metadata), or of all for an empty one."""
        present = {place_of(one): one["metadata"] for one in secrets}
        for place in [one for one in self._owners if namespace in ("", one[0])]:
            if place not in present:
                self.forget(*place)
        for place, metadata in present.items():
            self.seen(*place, metadata)

    def _set(self, namespace: str, secret: str, key: Key | None) -> None:
        before = self._owners.pop((namespace, secret), None)
        if before is not None:
            self._secrets[before].discard(secret)
            if not self._secrets[before]:
                del self._secrets[before]
        if key is not None:
            self._owners[(namespace, secret)] = key
            self._secrets.setdefault(key, set()).add(secret)
