"""The reference's client collection as ClientCredentials, with a report of what differs. Pure.

A record has `client_id`, `client_name`, `token_endpoint_auth_method`, `public_key` (one JWK) or `client_secret` (a bcrypt hash),
`permissions`, `audience`, `allowedCustomClaims`, `metadata`, `lastLogin`, and the reference's own `__STATE__`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from keyturn.clients.claims import is_claim_name, is_reserved
from keyturn.clients.client_id import is_client_id
from keyturn.clients.parse import MAX_ITEMS
from keyturn.clients.registration import CLIENT_SECRET_HASH
from keyturn.jose.keys import KeyRejected, parse_jwk
from keyturn.secrets import is_foreign_hash

from .kube import GROUP
from .manifest import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

METADATA_PREFIX: Final = f"metadata.{GROUP}/"
SECRET_METHODS: Final = ("client_secret_basic", "client_secret_post")
# What the reference's database keeps of every record for itself.
_ITS_OWN: Final = frozenset({"_id", "createdAt", "updatedAt", "creatorId", "updaterId", "lastLogin", "__STATE__"})
_READ: Final = frozenset(
    {
        *(
            "client_id",
            "client_name",
            "token_endpoint_auth_method",
            "public_key",
            "client_secret",
            "permissions",
            "audience",
        ),
        *("allowedCustomClaims", "metadata", "client_id_issued_at", "client_secret_expires_at"),
    }
)
_SECRET_NAMES: Final = ("client_secret", "client_secret_hash", "hashedClientSecret")
_SCOPE_TOKEN: Final = re.compile(r"[!#-\[\]-~]{1,256}", re.ASCII)
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")
_ANNOTATION: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_MAX_NAME: Final = 52
# By a rule of the CRD's.
_MAX_CHARACTERS: Final = {"permissions": 10_240}
# An object's annotations have 256 KiB, in which `kubectl apply` keeps a copy of the whole manifest, quoted once more.
_MAX_METADATA_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What is otherwise than in the reference. `lost`: something of the record is not in the manifest."""

    client: str
    member: str
    message: str
    lost: bool = False

    def __str__(self) -> str:
        return f"{self.client}: {self.member}: {self.message}"

    def to_body(self) -> dict[str, Any]:
        return {"client": self.client, "member": self.member, "message": self.message, "lost": self.lost}


@dataclass(slots=True)
class Import:
    """`secrets` hold the hashes, and so belong into no repository."""

    clients: list[dict[str, Any]] = field(default_factory=list)
    secrets: list[dict[str, Any]] = field(default_factory=list, repr=False)
    findings: list[Finding] = field(default_factory=list)
    read: int = 0

    @property
    def complete(self) -> bool:
        return not any(finding.lost for finding in self.findings)


class _LeftOut(Exception):
    """The client can't be made."""


def import_clients(records: Iterable[object], *, namespace: str | None = None) -> Import:
    """All records as manifests. One that can't be read is left out and reported; no value that may be a secret is repeated."""
    result = Import()
    taken: set[str] = set()
    ids: set[str] = set()
    for number, record in enumerate(records, start=1):
        result.read += 1
        shown = f"record {number}"
        try:
            if not isinstance(record, dict):
                raise _LeftOut("record", "is no JSON object")
            client_id = record.get("client_id")
            if not isinstance(client_id, str) or not is_client_id(client_id):
                raise _LeftOut("client_id", "is none: 1 to 200 letters, digits, dots, underscores, tildes and hyphens")
            shown = client_id
            if client_id in ids:
                raise _LeftOut("client_id", "stands twice; the first record counts")
            ids.add(client_id)
            _import(record, client_id, result, taken, namespace)
        except _LeftOut as error:
            member, message = error.args
            result.findings.append(Finding(shown, member, f"{message}; the client was left out", lost=True))
    return result


def _import(record: Mapping[str, Any], client_id: str, result: Import, taken: set[str], namespace: str | None) -> None:
    found: list[Finding] = []

    def note(member: str, message: str, *, lost: bool = False) -> None:
        found.append(Finding(client_id, member, message, lost))

    state = record.get("__STATE__", "PUBLIC")
    if state == "DELETED":
        result.findings.append(Finding(client_id, "__STATE__", "is DELETED: no object is made"))
        return
    if state not in ("PUBLIC", "DRAFT", "TRASH"):
        raise _LeftOut("__STATE__", "is not known")
    name = object_name(client_id, taken)
    metadata: dict[str, Any] = {"name": name} | ({"namespace": namespace} if namespace else {})
    spec: dict[str, Any] = {"clientId": client_id}
    if isinstance(called := record.get("client_name"), str) and called:
        spec["clientName"] = _printed(called)
        if spec["clientName"] != called:
            note("client_name", "was shortened, or holds control characters that were left out")
    spec["authMethod"] = method = _method(record)
    secret = _credential(record, method, name, spec, note)
    for member, field_name in (("permissions", "permissions"), ("audience", "audiences")):
        if values := _values(record.get(member), member, _SCOPE_TOKEN, note):
            spec[field_name] = _bounded(values, field_name, member, note)
    if claims := _claims(record.get("allowedCustomClaims"), note):
        spec["allowedCustomClaims"] = _bounded(claims, "allowedCustomClaims", "allowedCustomClaims", note)
    if state != "PUBLIC":
        spec["suspended"] = True
        note("__STATE__", f"is {state}: the client is suspended")
    if annotations := _annotations(record.get("metadata"), note):
        metadata["annotations"] = annotations
    if record.get("lastLogin") is not None:
        note("lastLogin", "is not taken along: the status shows uses from now on")
    for member in sorted(set(record) - _READ - _ITS_OWN - set(_SECRET_NAMES)):
        note(_printed(str(member)), "is not known and was left out", lost=True)
    taken.add(name)
    result.clients.append({"apiVersion": API_VERSION, "kind": "ClientCredential", "metadata": metadata, "spec": spec})
    if secret is not None:
        place = {name: value for name, value in metadata.items() if name != "annotations"}
        place["name"] = spec["clientSecret"]["secretName"]
        members = {CLIENT_SECRET_HASH: secret}
        result.secrets.append(
            {"apiVersion": "v1", "kind": "Secret", "metadata": place, "type": "Opaque", "stringData": members}
        )
    result.findings += found


def object_name(client_id: str, taken: Iterable[str]) -> str:
    """A name for the object: the client id as far as names allow it, else with a part of its hash. The same for the same id."""
    plain = _NOT_IN_NAMES.sub("-", client_id.lower()).strip("-")
    digest = hashlib.sha256(client_id.encode()).hexdigest()
    if plain == client_id.lower() and len(plain) <= _MAX_NAME and plain not in taken:
        return plain
    return f"{plain[: _MAX_NAME - 9].strip('-') or 'client'}-{digest[:8]}"


def _method(record: Mapping[str, Any]) -> str:
    method = record.get("token_endpoint_auth_method")
    if method is None:
        return "private_key_jwt" if record.get("public_key") else SECRET_METHODS[0]
    if method not in ("private_key_jwt", *SECRET_METHODS):
        raise _LeftOut("token_endpoint_auth_method", "is not known")
    return str(method)


def _credential(
    record: Mapping[str, Any], method: str, name: str, spec: dict[str, Any], note: Callable[..., None]
) -> str | None:
    """Puts the key, or the Secret's name, into the spec; the hash for the Secret."""
    hashed = next((record[one] for one in _SECRET_NAMES if record.get(one)), None)
    if method == "private_key_jwt":
        if hashed is not None:
            note("client_secret", "does not go with private_key_jwt and was left out")
        try:
            key = parse_jwk(record.get("public_key"), field="public_key")
        except KeyRejected as error:
            raise _LeftOut("public_key", str(error).removeprefix("public_key: ")) from None
        spec["publicKeys"] = [{"jwk": dict(key.jwk)}]
        if isinstance(given := record["public_key"].get("alg"), str) and given != key.algorithm:
            note("public_key", f"its alg is written {key.algorithm} now")
        return None
    if record.get("public_key"):
        note("public_key", f"does not go with {method} and was left out", lost=True)
    spec["clientSecret"] = {"secretName": f"{name}-secret", "generate": False}
    if isinstance(hashed, str) and is_foreign_hash(hashed):
        note("client_secret", "goes on by its hash; one of more than 72 bytes must be replaced")
        return hashed
    if hashed is None:
        note("client_secret", "is not there: a new one is made, which the client must be given")
    else:
        note(
            "client_secret",
            "is no bcrypt hash that can be used: a new one is made, which the client must be given",
            lost=True,
        )
    spec["clientSecret"] = {"secretName": f"{name}-secret"}
    return None


def _values(given: object, member: str, form: re.Pattern[str], note: Callable[..., None]) -> list[str]:
    if isinstance(given, str):
        given = [given] if given else []
    if given is None:
        return []
    if not isinstance(given, list):
        note(member, "is no list and was left out", lost=True)
        return []
    kept = list(dict.fromkeys(one for one in given if isinstance(one, str) and form.fullmatch(one)))
    for one in given:
        if one not in kept:
            note(member, f"{_printed(str(one))!r} can stand in no token and was left out", lost=True)
    return kept


def _bounded(values: list[str], field_name: str, member: str, note: Callable[..., None]) -> list[str]:
    """As many of them, from the first on, as the API server takes: an object with more would be refused as a whole."""
    limit, characters = MAX_ITEMS[field_name], _MAX_CHARACTERS.get(field_name)
    kept = values[:limit]
    while characters is not None and sum(map(len, kept)) > characters:
        kept.pop()
    if len(kept) < len(values):
        most = f"{limit} of them" + ("" if characters is None else f", {characters} characters together")
        rest = f"{_printed(values[len(kept)])!r} and all after it, {len(values) - len(kept)} of {len(values)}, were left out"
        note(member, f"a client holds at most {most}: {rest}; divide it among several clients", lost=True)
    return kept


def _claims(given: object, note: Callable[..., None]) -> list[str]:
    kept = []
    for one in given if isinstance(given, list) else []:
        if not is_claim_name(one):
            note("allowedCustomClaims", f"{_printed(str(one))!r} is no name of a claim and was left out", lost=True)
        elif is_reserved(one):
            note("allowedCustomClaims", f"{one} is set by the issuer alone and was left out", lost=True)
        else:
            kept.append(one)
    return list(dict.fromkeys(kept))


def _annotations(given: object, note: Callable[..., None]) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        note("metadata", "is no object and was left out", lost=True)
        return {}
    kept: dict[str, str] = {}
    room = _MAX_METADATA_BYTES
    for name, value in given.items():
        if _ANNOTATION.fullmatch(name) and isinstance(value, str | int | float | bool):
            text = value if isinstance(value, str) else str(value).lower()
            size = len(METADATA_PREFIX) + len(name) + len(text.encode())
            if size > room:
                note("metadata", f"{name!r} was left out: annotations have no room for it", lost=True)
                continue
            room -= size
            kept[f"{METADATA_PREFIX}{name}"] = text
        else:
            note("metadata", f"{_printed(name)!r} can't be an annotation and was left out", lost=True)
    return kept


def _printed(text: str) -> str:
    return "".join(one for one in text if one.isprintable())[:100]
