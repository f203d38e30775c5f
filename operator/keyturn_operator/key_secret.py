"""The Secret of the signing keys: what may be done with the one that is there, and the one to write."""

import base64
import binascii
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from keyturn.keys.ring import INDEX, KeyRing, RingDamaged
from keyturn_operator.kube.client import Object
from keyturn_operator.settings import GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "keyturn"
WRITTEN_FOR = f"{GROUP}/written-for"


class Finding(Enum):
    """What stands where the signing keys are to be."""

    ABSENT = "absent"
    FREE = "free"  # a Secret of someone else's without any of our members: may be filled
    OURS = "ours"
    CONFLICT = "conflict"
    NOT_OPAQUE = "not opaque"
    DAMAGED = "damaged"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class KeySecret:
    """A Secret as found, and the ring in it (when it is ours and sound)."""

    finding: Finding
    ring: KeyRing | None = None
    resource_version: str = ""
    detail: str = ""  # names of members, never values


def written_for(name: str) -> str:
    """The annotation's value: which object the members stand for. By name, so that a SigningKey made anew adopts what was retained."""
    return f"SigningKey/{name}"


def is_our_member(name: str) -> bool:
    """Whether we would write a member of this name."""
    return name == INDEX or name.endswith(".pem")


def inspect(secret: Object | None, *, owner: str) -> KeySecret:
    """Decides from a Secret as read. `owner` is the SigningKey's name.

    Ours is what carries our label and names this SigningKey. Anyone else's Secret may be filled as long as it holds none of our members:
    writing over one that we did not write could destroy a key that exists nowhere else.
    """
    if secret is None:
        return KeySecret(Finding.ABSENT)
    metadata = secret["metadata"]
    version = str(metadata["resourceVersion"])
    if metadata.get("deletionTimestamp"):
        return KeySecret(Finding.LEAVING, resource_version=version)
    if secret.get("type", "Opaque") != "Opaque":
        return KeySecret(Finding.NOT_OPAQUE, resource_version=version, detail=str(secret.get("type"))[:100])
    data: Mapping[str, Any] = secret.get("data") or {}
    members = sorted(name for name in data if is_our_member(name))
    ours = (metadata.get("labels") or {}).get(MANAGED_BY) == MANAGER and (metadata.get("annotations") or {}).get(
        WRITTEN_FOR
    ) == written_for(owner)
    if not members:
        return KeySecret(Finding.FREE, resource_version=version)
    if not ours:
        return KeySecret(Finding.CONFLICT, resource_version=version, detail=", ".join(members[:10]))
    try:
        ring = KeyRing.from_secret_data({name: base64.b64decode(data[name], validate=True) for name in members})
    except RingDamaged as error:
        return KeySecret(Finding.DAMAGED, resource_version=version, detail=error.description)
    except (binascii.Error, TypeError, ValueError):
        return KeySecret(Finding.DAMAGED, resource_version=version, detail="a member is not base64")
    return KeySecret(Finding.OURS, ring, version)


def manifest(ring: KeyRing, *, namespace: str, name: str, owner: str, resource_version: str | None = None) -> Object:
    """The Secret to create, or (with the resourceVersion that was read) to apply.

    It has no owner reference: signing keys outlive their object unless someone says otherwise, for without them every token is void.
    """
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {MANAGED_BY: MANAGER},
        "annotations": {WRITTEN_FOR: written_for(owner)},
    }
    if resource_version is not None:
        metadata["resourceVersion"] = resource_version
    data = {member: base64.b64encode(value).decode("ascii") for member, value in ring.to_secret_data().items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
