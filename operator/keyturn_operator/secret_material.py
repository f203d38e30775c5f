"""A Secret as it was read: its members, and what names this version of it."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from keyturn.clients.secret import secret_origin
from keyturn_operator.kube.client import Object


@dataclass(frozen=True, slots=True)
class SecretMaterial:
    """A Secret as read: its decoded members (None: absent) and what names this version of it."""

    data: Mapping[str, bytes] | None = field(repr=False)
    origin: str


def members(secret: Object) -> dict[str, bytes]:
    """The decoded members; what is not base64 is empty."""
    data: dict[str, bytes] = {}
    for member, value in (secret.get("data") or {}).items():
        try:
            data[member] = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            data[member] = b""
    return data


def read_secret(name: str, secret: Object | None) -> SecretMaterial:
    """The members of a Secret. One that is being deleted is absent already."""
    if secret is None or secret["metadata"].get("deletionTimestamp"):
        return SecretMaterial(None, "")
    metadata = secret["metadata"]
    origin = secret_origin(name=name, uid=metadata["uid"], resource_version=metadata["resourceVersion"])
    return SecretMaterial(members(secret), origin)
