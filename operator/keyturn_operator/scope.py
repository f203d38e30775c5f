"""Whose objects count: those of the namespaces that the installation watches, less what belongs to another installation."""

import asyncio
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from keyturn.grants import Grants, InvalidGrants
from keyturn_operator.kube.client import Kube, collection
from keyturn_operator.kube.errors import KubeError, KubeUnavailable
from keyturn_operator.logs import get_logger

log = get_logger("scope")

EVERY: Final = "*"
"""In place of a list of namespaces: all of the cluster."""
WHOLE_CLUSTER: Final = ""
"""The place of a collection that spans all namespaces."""
LOOK_EVERY: Final = 15.0
MAX_GRANTS_BYTES: Final = 1_048_576


class Scope:
    """The watched namespaces. In the whole cluster, those with an installation of their own are `foreign` and left to it."""

    def __init__(self, namespaces: Collection[str], home: str) -> None:
        self.every = EVERY in namespaces
        self.home = home
        self.foreign: frozenset[str] = frozenset()
        self._named = frozenset(namespaces)

    @property
    def places(self) -> tuple[str, ...]:
        """Where to list and watch: each namespace, or the whole cluster at once."""
        return (WHOLE_CLUSTER,) if self.every else tuple(sorted(self._named))

    def __contains__(self, namespace: object) -> bool:
        return namespace not in self.foreign if self.every else namespace in self._named


def read_grants(path: Path | None, home: str) -> Grants:
    """The installation's grants; none without a file. Raises `InvalidGrants`, which names the place, never more of the file."""
    if path is None:
        return Grants(home)
    try:
        text = path.read_bytes()
        if len(text) > MAX_GRANTS_BYTES:
            raise InvalidGrants(f"the grants are longer than {MAX_GRANTS_BYTES} bytes")
        return Grants.read(home, json.loads(text))
    except OSError as error:
        raise InvalidGrants(f"the grants cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidGrants(f"the grants are not JSON: {type(error).__name__}") from None


class OtherInstallations:
    """Keeps a scope that spans the cluster true: a namespace whose Lease somebody holds has an installation of its own."""

    def __init__(self, kube: Kube, scope: Scope, lease_name: str, changed: Callable[[], None]) -> None:
        self._kube = kube
        self._scope = scope
        self._lease_name = lease_name
        self._changed = changed

    async def look(self) -> None:
        """Reads all Leases of our name. Raises KubeError, KubeUnavailable."""
        kind = "coordination.k8s.io/v1"
        leases, _ = await self._kube.list_metadata(
            collection(kind, "leases", WHOLE_CLUSTER), field_selector=f"metadata.name={self._lease_name}"
        )
        found = set()
        for lease in leases:
            namespace = str(lease["metadata"]["namespace"])
            if namespace == self._scope.home:
                continue
            held = await self._kube.get(f"{collection(kind, 'leases', namespace)}/{self._lease_name}")
            # One that was released belongs to an installation that has gone, or pauses: then its objects wait with it.
            if held is not None and (held.get("spec") or {}).get("holderIdentity"):
                found.add(namespace)
        if found != self._scope.foreign:
            log.info("namespaces with an installation of their own are left to it", namespaces=sorted(found))
            self._scope.foreign = frozenset(found)
            self._changed()

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.look()
            except (KubeError, KubeUnavailable) as error:
                log.warning("the Leases cannot be read: what was found before counts", cause=str(error))
