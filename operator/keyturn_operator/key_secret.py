"""The Secret of the signing keys: what may be done with the one that is there, and the one to write."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from keyturn.keys.ring import INDEX, KeyRing, RingDamaged
from keyturn_operator.kube.client import Object
from keyturn_operator.settings import API_VERSION, GROUP

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "keyturn"
WRITTEN_FOR = f"{GROUP}/written-for"
CREATED = f"{GROUP}/created"
"""On a Secret that the operator created, not filled: only such a one may go with its SigningKey."""


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
    members: tuple[str, ...] = ()  # those that the ring has written
    created: bool = False
    owners: tuple[Object, ...] = field(default=(), hash=False)


def written_for(name: str) -> str:
    """The annotation's value: which object the members stand for. By name, so that a SigningKey made anew adopts what was retained."""
    return f"SigningKey/{name}"


def is_our_member(name: str) -> bool:
    """Whether we would write a member of this name."""
    return name == INDEX or name.endswith(".pem")


def read_ring(members: Mapping[str, str]) -> KeyRing:
    """The ring in members as a Secret's `data` has them. Raises RingDamaged, ValueError."""
    return KeyRing.from_secret_data({name: base64.b64decode(value, validate=True) for name, value in members.items()})


class RingReader:
    """Reads a ring, the same one once: to parse an RSA key holds up the whole process for up to 0.2 s, in a thread too."""

    def __init__(self) -> None:
        self._last: tuple[dict[str, str], KeyRing] | None = None

    def __call__(self, members: Mapping[str, str]) -> KeyRing:
        """Raises RingDamaged, ValueError."""
        if self._last is None or self._last[0] != members:
            self._last = (dict(members), read_ring(members))
        return self._last[1]

    def wrote(self, ring: KeyRing) -> None:
        """Takes note of what was just written."""
        self._last = (_encoded(ring), ring)


def inspect(
    secret: Object | None, *, owner: str, read: Callable[[Mapping[str, str]], KeyRing] = read_ring
) -> KeySecret:
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
    annotations = metadata.get("annotations") or {}
    writer = annotations.get(WRITTEN_FOR)
    if writer is not None and writer != written_for(owner):
        # Also without any member of ours: it may go with the object that it was written for, and the signing keys with it.
        return KeySecret(
            Finding.CONFLICT, resource_version=version, detail=f"its annotation {WRITTEN_FOR} names {str(writer)[:300]}"
        )
    created = annotations.get(CREATED) == "true"
    owners = tuple(metadata.get("ownerReferences") or ())
    ours = (metadata.get("labels") or {}).get(MANAGED_BY) == MANAGER and writer is not None
    if not members:
        return KeySecret(Finding.FREE, resource_version=version, created=created and ours, owners=owners)
    if not ours:
        detail = f"it holds members that this SigningKey did not write ({', '.join(members[:10])})"
        return KeySecret(Finding.CONFLICT, resource_version=version, detail=detail)
    try:
        ring = read({name: data[name] for name in members})
    except RingDamaged as error:
        return KeySecret(Finding.DAMAGED, resource_version=version, detail=error.description)
    except (binascii.Error, TypeError, ValueError):
        return KeySecret(Finding.DAMAGED, resource_version=version, detail="a member is not base64")
    own = tuple(name for name in sorted(ring.member_names()) if name in data)
    return KeySecret(Finding.OURS, ring, version, members=own, created=created, owners=owners)


def _encoded(ring: KeyRing) -> dict[str, str]:
    return {member: base64.b64encode(value).decode("ascii") for member, value in ring.to_secret_data().items()}


def wanted_owners(found: KeySecret, *, name: str, uid: str, delete: bool) -> list[Object]:
    """The owner references that the Secret is to have: those of others as they are, and ours if it is to go with the SigningKey.

    Without it the signing keys outlive their object: without them every token is void.
    """
    others = [one for one in found.owners if one.get("kind") != "SigningKey" or one.get("name") != name]
    if not delete or not (found.created or found.finding is Finding.ABSENT):
        return others
    # Not blocking: nothing waits for the Secret, and setting it needs no right on finalizers.
    own = {"apiVersion": API_VERSION, "kind": "SigningKey", "name": name, "uid": uid, "blockOwnerDeletion": False}
    return [*others, own]


def manifest(ring: KeyRing, *, namespace: str, name: str, owner: str, owners: list[Object]) -> Object:
    """The Secret to create."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {MANAGED_BY: MANAGER},
        "annotations": {WRITTEN_FOR: written_for(owner), CREATED: "true"},
    }
    if owners:
        metadata["ownerReferences"] = owners
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": _encoded(ring)}


def change(ring: KeyRing, found: KeySecret, *, owner: str, owners: list[Object]) -> Object:
    """The merge patch that makes the Secret hold the ring, and no private half that is not in it.

    A merge patch, not server-side apply: that would leave members that a create had written. The resourceVersion that was read guards it.
    """
    data: dict[str, str | None] = dict.fromkeys(found.members)
    data |= _encoded(ring)
    return {
        "metadata": {
            "resourceVersion": found.resource_version,
            "labels": {MANAGED_BY: MANAGER},
            "annotations": {WRITTEN_FOR: written_for(owner)},
            "ownerReferences": owners or None,
        },
        "data": data,
    }
