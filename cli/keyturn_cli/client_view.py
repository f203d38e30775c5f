"""A client as people see it: age, expiry, last use, what it asked for beside what it has, who manages it. Pure; the clock is passed in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from keyturn import reasons
from keyturn.clients.registration import APPROVAL_LABEL, PENDING, REGISTERED_LABEL
from keyturn.timestamps import InvalidTimestamp, parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DAY: Final = 86_400.0
# A person who renews keys by hand needs some days for it.
EXPIRING_WITHIN: Final = 14 * DAY
NEVER: Final = "never"

# Labels and annotations by which tools mark what they manage; they would undo an edit, or stumble over it.
_MARKS: Final[tuple[tuple[str, str, str, str | None], ...]] = (
    ("Argo CD", "annotations", "argocd.argoproj.io/tracking-id", None),
    ("Argo CD", "labels", "argocd.argoproj.io/instance", None),
    ("Flux", "labels", "kustomize.toolkit.fluxcd.io/name", None),
    ("Flux", "labels", "helm.toolkit.fluxcd.io/name", None),
    ("Helm", "annotations", "meta.helm.sh/release-name", None),
    ("Helm", "labels", "app.kubernetes.io/managed-by", "Helm"),
)
# What they call themselves as field managers, where no mark stands on the object.
_MANAGERS: Final = {
    "argocd-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "helm": "Helm",
}


@dataclass(frozen=True, slots=True)
class Credential:
    """A key or a secret in force. Times in epoch seconds, None where not known (`expires_at`: no end)."""

    name: str
    kind: str
    algorithm: str = ""
    size: int | None = None
    source: str = ""
    added_at: float | None = None
    last_used_at: float | None = None
    expires_at: float | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was asked for at registration beside what is granted; each in the order of the manifest."""

    granted: tuple[str, ...]
    asked: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Asked for and not granted."""
        return tuple(one for one in self.asked if one not in self.granted)

    @property
    def beyond(self) -> tuple[str, ...]:
        """Granted without having been asked for."""
        return tuple(one for one in self.granted if one not in self.asked)


@dataclass(frozen=True, slots=True)
class ClientView:
    """One ClientCredential. `ready` is the condition's status, Unknown where the operator has not spoken of this generation."""

    namespace: str
    name: str
    client_id: str
    client_name: str
    description: str
    contacts: tuple[str, ...]
    auth_method: str
    ready: str
    reason: str
    message: str
    created_at: float | None
    expires_at: float | None
    revoked_before: float | None
    last_token_at: float | None
    suspended: bool
    registered: bool
    pending: bool
    keys_expiring: bool
    credentials: tuple[Credential, ...]
    permissions: Comparison
    audiences: Comparison
    managed_by: str | None
    conditions: tuple[Mapping[str, Any], ...] = field(repr=False)

    def next_expiry(self) -> float | None:
        """When the first of its credentials, or the client itself, ends."""
        ends = [one.expires_at for one in self.credentials if one.expires_at is not None]
        if self.expires_at is not None:
            ends.append(self.expires_at)
        return min(ends, default=None)

    def last_use(self) -> float | None:
        """The latest sign of life: a token, or a key's use. Both are renewed once an hour at most."""
        uses = [one.last_used_at for one in self.credentials if one.last_used_at is not None]
        if self.last_token_at is not None:
            uses.append(self.last_token_at)
        return max(uses, default=None)

    def is_expiring(self, now: float) -> bool:
        """Whether a key, or the client, ends soon. What has ended already does not end soon."""
        if self.keys_expiring:
            return True
        ends = [one.expires_at for one in self.credentials] + [self.expires_at]
        return any(end is not None and now < end <= now + EXPIRING_WITHIN for end in ends)

    def is_unused(self, now: float, seconds: float) -> bool:
        """Whether it has shown no sign of life for so long, and is that old."""
        since = self.last_use()
        if since is None:
            since = self.created_at
        return since is not None and now - since >= seconds

    def state(self, now: float) -> str:
        """One word for a list."""
        if self.suspended:
            return reasons.SUSPENDED
        if self.expires_at is not None and self.expires_at <= now:
            return reasons.EXPIRED
        if self.pending:
            return "Waiting"
        return "Ready" if self.ready == "True" else (self.reason or self.ready)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which clients to show; what is not set does not count. `text` is looked for in names and ids, `unused_for` is in seconds."""

    text: str = ""
    pending: bool = False
    suspended: bool = False
    expiring: bool = False
    unused_for: float | None = None

    def takes(self, client: ClientView, now: float) -> bool:
        if (
            self.text
            and self.text.casefold() not in "\n".join((client.name, client.client_id, client.client_name)).casefold()
        ):
            return False
        return (
            (not self.pending or client.pending)
            and (not self.suspended or client.suspended)
            and (not self.expiring or client.is_expiring(now))
            and (self.unused_for is None or client.is_unused(now, self.unused_for))
        )


def view(obj: Mapping[str, Any]) -> ClientView:
    """The view of an object as the API server gave it; what is malformed in it is taken for absent."""
    metadata, spec, status = (_mapping(obj.get(part)) for part in ("metadata", "spec", "status"))
    labels, registration = _mapping(metadata.get("labels")), _mapping(spec.get("registration"))
    asked = _mapping(registration.get("requested"))
    permissions = Comparison(texts(spec.get("permissions")), texts(asked.get("permissions")))
    audiences = Comparison(texts(spec.get("audiences")), texts(asked.get("audiences")))
    conditions = tuple(one for one in _list(status.get("conditions")) if isinstance(one, dict))
    ready = next((one for one in conditions if one.get("type") == reasons.READY), {})
    # What the operator said of an older generation says nothing of this one.
    current = ready.get("observedGeneration") == metadata.get("generation")
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    return ClientView(
        namespace=namespace,
        name=name,
        client_id=str(status.get("clientId") or spec.get("clientId") or f"{namespace}.{name}"),
        client_name=_text(spec.get("clientName")),
        description=_text(spec.get("description")),
        contacts=texts(spec.get("contacts")),
        auth_method=_text(spec.get("authMethod")) or "private_key_jwt",
        ready=_text(ready.get("status")) if current and ready else "Unknown",
        reason=_text(ready.get("reason")) if current else "",
        message=_text(ready.get("message")) if current else "",
        created_at=moment(metadata.get("creationTimestamp")),
        expires_at=moment(spec.get("expiresAt")),
        revoked_before=moment(spec.get("revokeTokensIssuedBefore")),
        last_token_at=moment(status.get("lastTokenIssuedAt")),
        suspended=spec.get("suspended") is True,
        registered=labels.get(REGISTERED_LABEL) == "true",
        # As the API takes it: one to whom somebody has granted something is not waiting, whatever its label says yet.
        pending=labels.get(APPROVAL_LABEL) == PENDING and not permissions.granted and not audiences.granted,
        keys_expiring=any(
            one.get("type") == reasons.KEYS_EXPIRING and one.get("status") == "True" for one in conditions
        ),
        credentials=(*_credentials(status, "keys"), *_credentials(status, "secrets")),
        permissions=permissions,
        audiences=audiences,
        managed_by=managed_by(obj),
        conditions=conditions,
    )


def chosen(
    objects: Iterable[Mapping[str, Any]], wanted: Filter, now: float
) -> list[tuple[Mapping[str, Any], ClientView]]:
    """The objects that a filter takes, with their views, by namespace and name."""
    pairs = [(obj, view(obj)) for obj in objects]
    return sorted(
        (pair for pair in pairs if wanted.takes(pair[1], now)), key=lambda pair: (pair[1].namespace, pair[1].name)
    )


def managed_by(obj: Mapping[str, Any]) -> str | None:
    """The tool that keeps the object as its own source says: Argo CD, Flux or Helm; None for an object that people edit."""
    metadata = _mapping(obj.get("metadata"))
    for tool, place, name, value in _MARKS:
        found = _mapping(metadata.get(place)).get(name)
        if found and (value is None or found == value):
            return tool
    for entry in _list(metadata.get("managedFields")):
        tool_of = _MANAGERS.get(str(_mapping(entry).get("manager")))
        if tool_of is not None and _mapping(entry).get("subresource") is None:
            return tool_of
    return None


def ago(at: float | None, now: float) -> str:
    """How long ago, as kubectl writes an age; `never` where it was not."""
    return NEVER if at is None else span(now - at)


def until(at: float | None, now: float) -> str:
    """How long until then; `-` where there is no end, and words where it has come."""
    if at is None:
        return "-"
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def span(seconds: float) -> str:
    """A length of time in its largest whole unit: 45s, 12m, 5h, 30d."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        # Two of the largest at least: 90 minutes are 90m, since 1h says too little.
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def moment(value: object) -> float | None:
    """Epoch seconds of an RFC 3339 time; None for anything else."""
    try:
        return parse_rfc3339(value)
    except InvalidTimestamp:
        return None


def texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in _list(value) if isinstance(one, str))


def _credentials(status: Mapping[str, Any], member: str) -> Iterable[Credential]:
    for one in _list(status.get(member)):
        if not isinstance(one, dict):
            continue
        size = one.get("size")
        yield Credential(
            name=_text(one.get("kid") or one.get("id")),
            kind=member.removesuffix("s"),
            algorithm=_text(one.get("algorithm")),
            size=size if isinstance(size, int) else None,
            source=_text(one.get("source")),
            added_at=moment(one.get("addedAt")),
            last_used_at=moment(one.get("lastUsedAt")),
            expires_at=moment(one.get("expiresAt")),
            hint=_text(one.get("hint")),
        )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
