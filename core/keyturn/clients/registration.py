"""What a self-registered client has besides the rest: its registration token's hash, its description, what it asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

SECRET_TYPE: Final = "keyturn.dev/registration"
"""The type of the Secrets in which hashes come from the API to the operator. Both members are hashes of `keyturn.secrets`."""
CLIENT_SECRET_HASH: Final = "client_secret_hash"
REGISTRATION_TOKEN_HASH: Final = "registration_token_hash"

FIELDS: Final = frozenset({"secretName", "clientUri", "softwareId", "softwareVersion", "requested"})

REGISTERED_LABEL: Final = "keyturn.dev/registered"
APPROVAL_LABEL: Final = "keyturn.dev/approval"
# Pending until something is granted; any other value is a person's own and stays.
PENDING: Final = "pending"
GRANTED: Final = "granted"

# The members of RFC 7591 section 2 that describe a client, by where they stand in the spec.
DESCRIPTIVE: Final[Mapping[str, tuple[str, ...]]] = {
    "client_name": ("clientName",),
    "contacts": ("contacts",),
    "client_uri": ("registration", "clientUri"),
    "software_id": ("registration", "softwareId"),
    "software_version": ("registration", "softwareVersion"),
}


@dataclass(frozen=True, slots=True)
class Registration:
    """`approval`: the value of the object's label. `described`: RFC 7591 members that people gave. Nothing asked for is granted by it."""

    secret_name: str | None = None
    token_hash: str | None = field(default=None, repr=False)
    approval: str | None = None
    described: Mapping[str, Any] = field(default_factory=dict)
    asked_permissions: tuple[str, ...] = ()
    asked_audiences: tuple[str, ...] = ()

    def to_body(self) -> dict[str, Any]:
        return {
            "secretName": self.secret_name,
            "tokenHash": self.token_hash,
            "approval": self.approval,
            "described": dict(self.described),
            "askedPermissions": list(self.asked_permissions),
            "askedAudiences": list(self.asked_audiences),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        return cls(
            secret_name=body["secretName"],
            token_hash=body["tokenHash"],
            approval=body["approval"],
            described=body["described"],
            asked_permissions=tuple(body["askedPermissions"]),
            asked_audiences=tuple(body["askedAudiences"]),
        )


def read_registration(spec: Mapping[str, Any], labels: Mapping[str, Any]) -> Registration | None:
    """The registration that an object tells of, without what its Secret holds; None where `spec.registration` is absent."""
    given = spec.get("registration")
    if not isinstance(given, Mapping):
        return None
    described = {}
    for member, place in DESCRIPTIVE.items():
        value: Any = spec
        for part in place:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            described[member] = value
    asked = given.get("requested")
    asked = asked if isinstance(asked, Mapping) else {}
    name, approval = given.get("secretName"), labels.get(APPROVAL_LABEL)
    return Registration(
        secret_name=name if isinstance(name, str) else None,
        approval=approval if isinstance(approval, str) else None,
        described=described,
        asked_permissions=_texts(asked.get("permissions")),
        asked_audiences=_texts(asked.get("audiences")),
    )


def names_secret(spec: Mapping[str, Any]) -> bool:
    """Whether a registration's Secret is where the client's secret may come from."""
    registration = spec.get("registration")
    return isinstance(registration, Mapping) and registration.get("secretName") is not None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
