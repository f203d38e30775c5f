"""The objects that a registration makes: a ClientCredential, and the Secret with the hashes that the operator reads."""

import base64
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from keyturn.clients.registration import (
    APPROVAL_LABEL,
    CLIENT_SECRET_HASH,
    DESCRIPTIVE,
    PENDING,
    REGISTERED_LABEL,
    REGISTRATION_TOKEN_HASH,
    SECRET_TYPE,
)
from keyturn.clients.state import PRIVATE_KEY_JWT
from keyturn.timestamps import format_rfc3339
from keyturn_api.kubernetes import API_VERSION, GROUP, Object
from keyturn_api.registration_request import ClientMetadata, InternalClient

REGISTERED_ON_LABEL: Final = f"{GROUP}/registered-on"
SOFTWARE_ID_LABEL: Final = f"{GROUP}/software-id"
SOFTWARE_VERSION_LABEL: Final = f"{GROUP}/software-version"
CREATED_BY: Final = f"{GROUP}/created-by"
CREATED_THROUGH_LABEL: Final = f"{GROUP}/created-through"
METADATA_PREFIX: Final = f"metadata.{GROUP}/"
_MAX_CREATOR: Final = 512
_NAME: Final = re.compile(r"r-[0-9a-f]{32}", re.ASCII)
_NOT_IN_LABELS: Final = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_LABEL: Final = 63


def new_name() -> str:
    """A name that nobody can guess: 128 random bits."""
    return f"r-{secrets.token_hex(16)}"


def name_of(client_id: str, namespace: str) -> str | None:
    """The object of a client that was registered in this namespace; None where the id is no such client's."""
    name = client_id.removeprefix(f"{namespace}.")
    return name if name != client_id and _NAME.fullmatch(name) else None


def secret_name(name: str) -> str:
    """Another name for each Secret of a client: none is ever changed."""
    return f"{name}-{secrets.token_hex(4)}"


def registered_client(name: str, client: ClientMetadata, *, secret: str, created_by: str, now: float) -> Object:
    """A ClientCredential that grants nothing. What was asked for stands in it for whoever approves."""
    labels = {
        REGISTERED_LABEL: "true",
        APPROVAL_LABEL: PENDING,
        REGISTERED_ON_LABEL: format_rfc3339(now)[:10],
        SOFTWARE_ID_LABEL: label_value(client.described.get("software_id", "")),
        SOFTWARE_VERSION_LABEL: label_value(client.described.get("software_version", "")),
    }
    asked = {"permissions": list(client.permissions), "audiences": list(client.audiences)}
    requested = {member: values for member, values in asked.items() if values}
    spec = description(client)
    spec["registration"] |= {"secretName": secret, **({"requested": requested} if requested else {})}
    return _object(name, spec, {key: value for key, value in labels.items() if value}, {CREATED_BY: created_by})


def internal_client(name: str, asked: InternalClient, *, secret: str | None, created_by: str) -> Object:
    """A ClientCredential with what an internal caller grants it."""
    client = asked.client
    spec = description(client)
    if secret is not None:
        spec["registration"]["secretName"] = secret
    grants = {
        "permissions": list(client.permissions),
        "audiences": list(client.audiences),
        "allowedCustomClaims": list(asked.custom_claims),
    }
    spec |= {field: values for field, values in grants.items() if values}
    if asked.suspended:
        spec["suspended"] = True
    annotations = {f"{METADATA_PREFIX}{key}": value for key, value in asked.metadata.items()}
    annotations[CREATED_BY] = created_by[:_MAX_CREATOR]
    return _object(name, spec, {CREATED_THROUGH_LABEL: "clients"}, annotations)


def description(client: ClientMetadata) -> dict[str, Any]:
    """The part of a spec that a client itself has a say in."""
    spec: dict[str, Any] = {"authMethod": client.auth_method, "registration": {}}
    if client.auth_method == PRIVATE_KEY_JWT:
        spec["publicKeys"] = [{"jwk": dict(key)} for key in client.keys]
    for member, place in DESCRIPTIVE.items():
        if member in client.described:
            target = spec
            for part in place[:-1]:
                target = target[part]
            target[place[-1]] = client.described[member]
    return spec


def registration_secret(name: str, owner: Mapping[str, Any], hashes: Mapping[str, str]) -> Object:
    """The Secret of these hashes; it goes with its owner."""
    metadata = owner["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": SECRET_TYPE,
        "immutable": True,
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "keyturn"},
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "ClientCredential",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "data": {member: base64.b64encode(value.encode("ascii")).decode("ascii") for member, value in hashes.items()},
    }


def hashes(*, client_secret: str | None, registration_token: str | None) -> dict[str, str]:
    """The members of such a Secret: hashes already."""
    given = {CLIENT_SECRET_HASH: client_secret, REGISTRATION_TOKEN_HASH: registration_token}
    return {member: value for member, value in given.items() if value is not None}


def label_value(text: str) -> str:
    """The text as a label may hold it: what does not fit becomes a hyphen; empty where nothing is left."""
    return _NOT_IN_LABELS.sub("-", text).strip("-_.")[:_MAX_LABEL].strip("-_.")


def _object(name: str, spec: Object, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Object:
    if not spec["registration"]:
        del spec["registration"]
    return {
        "apiVersion": API_VERSION,
        "kind": "ClientCredential",
        "metadata": {"name": name, "labels": dict(labels), "annotations": dict(annotations)},
        "spec": spec,
    }
