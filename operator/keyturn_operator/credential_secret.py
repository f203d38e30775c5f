"""The Secret of generated credentials: what may be done with the one that is there, and what is written into it.

What we write is told by an annotation, not by the label alone: it names the object, and holds the record of
`keyturn.clients.credentials`. So a member that somebody else wrote is never written over, and what we wrote can be found and taken out
after any downtime.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from keyturn.clients.credentials import RecordDamaged, SecretRecord
from keyturn.clients.sources import CredentialKind
from keyturn.jose.signing import PrivateKey
from keyturn_operator.key_secret import MANAGED_BY, MANAGER, WRITTEN_FOR
from keyturn_operator.kube.client import Object
from keyturn_operator.secret_material import members
from keyturn_operator.settings import API_VERSION, GROUP, OperatorSettings

RECORD: Final = f"{GROUP}/credential"
"""The annotation with the record."""
KIND: Final = "ClientCredential"

PEM: Final = "private_key.pem"
JWK: Final = "private_key.jwk"
CLIENT_SECRET: Final = "client_secret"
MATERIAL: Final[Mapping[CredentialKind, tuple[str, ...]]] = {
    CredentialKind.KEY: (PEM, JWK),
    CredentialKind.SECRET: (CLIENT_SECRET,),
}
"""The members that exist nowhere else."""
OURS: Final = frozenset({PEM, JWK, CLIENT_SECRET, "key_id", "client_id", "issuer", "token_endpoint"})

_NAMES_SHOWN: Final = 10


class Finding(Enum):
    """What stands where the credentials are to be."""

    ABSENT = "absent"
    FREE = "free"  # a Secret of someone else's without any of our members: may be filled
    LEFTOVER = "leftover"  # written for an object of this name that is gone
    OURS = "ours"
    INCOMPLETE = "incomplete"  # ours, but the key or secret itself was taken out
    CONFLICT = "conflict"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class CredentialSecret:
    """A Secret as found. `record` is there where it is ours; `detail` says what stands in the way: names, never values."""

    finding: Finding
    record: SecretRecord | None = None
    detail: str = ""
    secret: Object | None = field(default=None, repr=False)

    @property
    def whole(self) -> SecretRecord | None:
        """The record of a Secret that holds what the record says."""
        return self.record if self.finding is Finding.OURS else None


def written_for(name: str) -> str:
    """The annotation's value: which object the members stand for."""
    return f"{KIND}/{name}"


def owner_of(metadata: Mapping[str, Any]) -> str | None:
    """The ClientCredential that a Secret's members were written for, by its metadata."""
    kind, _, name = str((metadata.get("annotations") or {}).get(WRITTEN_FOR) or "").partition("/")
    return name if kind == KIND and name else None


def record_of(metadata: Mapping[str, Any]) -> SecretRecord | None:
    """The record in a Secret's metadata, if there is one that can be read."""
    text = (metadata.get("annotations") or {}).get(RECORD)
    try:
        return SecretRecord.from_text(text) if isinstance(text, str) else None
    except RecordDamaged:
        return None


def digest(value: bytes) -> str:
    """Tells whether a member is as we wrote it."""
    return base64.b64encode(hashlib.sha256(value).digest()).decode("ascii")


def inspect(secret: Object | None, *, uid: str, name: str) -> CredentialSecret:
    """Decides from a Secret as read. `uid` and `name` are the ClientCredential's."""
    if secret is None:
        return CredentialSecret(Finding.ABSENT)
    metadata = secret["metadata"]
    if metadata.get("deletionTimestamp"):
        return CredentialSecret(Finding.LEAVING)
    if secret.get("type", "Opaque") != "Opaque":
        return _conflict(secret, f"has the type {str(secret.get('type'))[:100]}, only Opaque Secrets are filled")
    if secret.get("immutable"):
        return _conflict(secret, "is immutable")
    data = members(secret)
    present = sorted(OURS & data.keys())
    writer = (metadata.get("annotations") or {}).get(WRITTEN_FOR)
    if writer is not None and writer != written_for(name):
        return _conflict(secret, f"is written for {str(writer)[:300]}")
    if writer is None:
        if present:
            return _conflict(secret, f"holds members that this ClientCredential did not write ({_listed(present)})")
        return CredentialSecret(Finding.FREE, secret=secret)
    record = record_of(metadata)
    if record is None:
        if present:
            return _conflict(secret, f"holds {_listed(present)}, but its annotation {RECORD} cannot be read")
        return CredentialSecret(Finding.FREE, secret=secret)
    material = MATERIAL[record.kind]
    altered = [one for one in present if one in material and digest(data[one]) != record.members.get(one)]
    altered += [one for one in present if one not in record.members]
    if altered:
        return _conflict(
            secret, f"holds members that somebody else has changed ({_listed(sorted(set(altered)))})", record
        )
    if record.uid != uid and not (record.created and record.retain):
        return CredentialSecret(Finding.LEFTOVER, record, secret=secret)
    if not all(one in data for one in material):
        return CredentialSecret(Finding.INCOMPLETE, record, secret=secret)
    return CredentialSecret(Finding.OURS, record, secret=secret)


def _conflict(secret: Object, detail: str, record: SecretRecord | None = None) -> CredentialSecret:
    return CredentialSecret(Finding.CONFLICT, record, detail, secret)


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:_NAMES_SHOWN]) + (", ..." if len(shown) > _NAMES_SHOWN else "")


def key_members(private: PrivateKey) -> dict[str, bytes]:
    """A private key in the forms that people use."""
    return {
        PEM: private.to_pem(),
        JWK: json.dumps(private.to_private_jwk(), separators=(",", ":")).encode("ascii"),
    }


def beside(record: SecretRecord, client_id: str, settings: OperatorSettings) -> dict[str, bytes]:
    """The members beside the key or secret: what a client needs to know to use it."""
    texts = {"client_id": client_id}
    if record.kind is CredentialKind.KEY:
        texts["key_id"] = record.current.id
    if settings.issuer:
        texts |= {"issuer": settings.issuer, "token_endpoint": settings.token_endpoint}
    return {name: text.encode() for name, text in texts.items()}


def manifest(record: SecretRecord, data: Mapping[str, bytes], *, namespace: str, name: str, owner: Object) -> Object:
    """The Secret to create. `owner`: the ClientCredential; the Secret goes with it unless it is to be retained."""
    noted = replace(record, created=True, members={member: digest(value) for member, value in data.items()})
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {MANAGED_BY: MANAGER},
        "annotations": _annotations(noted, owner),
    }
    if not noted.retain:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": _encoded(data)}


def change(found: CredentialSecret, record: SecretRecord, data: Mapping[str, bytes], *, owner: Object) -> Object | None:
    """The merge patch (RFC 7386) that brings a Secret to this record and these members; None when it is so already.

    Nothing else in it is touched: not its other members, labels, annotations and owners. It names the version that was read.
    """
    secret = found.secret
    assert secret is not None
    metadata: Mapping[str, Any] = secret["metadata"]
    present = members(secret)
    former = found.record.members if found.record is not None else {}
    created = found.record is not None and found.record.created
    noted = replace(record, created=created, members={member: digest(value) for member, value in data.items()})
    wanted: dict[str, str | None] = {
        member: value for member, value in _encoded(data).items() if present.get(member) != data[member]
    }
    wanted |= {member: None for member in former if member not in data and member in present}
    annotations = metadata.get("annotations") or {}
    notes = {name: text for name, text in _annotations(noted, owner).items() if annotations.get(name) != text}
    patch: dict[str, Any] = {"annotations": notes} if notes else {}
    if created:
        references = list(metadata.get("ownerReferences") or [])
        kept = [one for one in references if one.get("kind") != KIND or one.get("apiVersion") != API_VERSION]
        owners = kept if noted.retain else [*kept, owner_reference(owner)]
        if owners != references:
            patch["ownerReferences"] = owners or None
    body: Object = {"metadata": patch} if patch else {}
    if wanted:
        body["data"] = wanted
    return _guarded(body, metadata) if body else None


def emptied(secret: Object, record: SecretRecord) -> Object:
    """The merge patch that takes our members and notes out of a Secret; what others put there stays."""
    present = secret.get("data") or {}
    body: Object = {"metadata": {"annotations": {RECORD: None, WRITTEN_FOR: None}}}
    taken: dict[str, None] = {member: None for member in record.members if member in present}
    return _guarded({**body, **({"data": taken} if taken else {})}, secret["metadata"])


def handed_over(secret: Object) -> Object:
    """The merge patch that makes a Secret its author's own: all members stay, nothing of it is ours any more."""
    metadata = secret["metadata"]
    patch: dict[str, Any] = {"annotations": {RECORD: None, WRITTEN_FOR: None}}
    references = list(metadata.get("ownerReferences") or [])
    kept = [one for one in references if one.get("kind") != KIND or one.get("apiVersion") != API_VERSION]
    if kept != references:
        patch["ownerReferences"] = kept or None
    if (metadata.get("labels") or {}).get(MANAGED_BY) == MANAGER:
        patch["labels"] = {MANAGED_BY: None}
    return _guarded({"metadata": patch}, metadata)


def _guarded(body: Object, metadata: Mapping[str, Any]) -> Object:
    """With the uid and version that were read: on another the API server answers 409."""
    named = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    return {**body, "metadata": {**body.get("metadata", {}), **named}}


def _annotations(record: SecretRecord, owner: Object) -> dict[str, str]:
    return {WRITTEN_FOR: written_for(owner["metadata"]["name"]), RECORD: record.to_text()}


def owner_reference(owner: Object) -> dict[str, Any]:
    """What makes a Secret go with this ClientCredential."""
    metadata = owner["metadata"]
    # blockOwnerDeletion would need a right on the object's finalizers, and could hold up its deletion.
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "blockOwnerDeletion": False,
    }


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {member: base64.b64encode(value).decode("ascii") for member, value in data.items()}
