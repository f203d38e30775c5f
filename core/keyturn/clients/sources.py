"""Where a client's keys or secret come from, besides `publicKeys`: a Secret that the operator fills, one that others fill, a URL.

What cannot be read names no source: nothing is made, read or fetched for it, and its problem says why.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from keyturn import reasons
from keyturn.clients.state import PRIVATE_KEY_JWT, SECRET_METHODS
from keyturn.durations import InvalidDuration, parse_duration
from keyturn.problems import Problem

GENERATE_KEY_FIELDS: Final = frozenset({"secretName", "size", "rotateEvery", "keepPrevious"})
SECRET_FIELDS: Final = frozenset({"secretName", "generate", "rotateEvery", "keepPrevious"})
SIZES: Final = (2048, 3072, 4096)
DELETION_POLICIES: Final = ("Delete", "Retain")
DEFAULT_OVERLAP: Final = 24 * 3600
"""Seconds for which what was replaced stays valid, where the spec says nothing and the next rotation is not sooner."""
MAX_URI: Final = 1024

_SECRET_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


class CredentialKind(StrEnum):
    """What the operator makes for a client."""

    KEY = "key"
    SECRET = "secret"


@dataclass(frozen=True, slots=True)
class SecretRef:
    """The Secret of the client's own namespace that holds its secret, filled by somebody else."""

    name: str


@dataclass(frozen=True, slots=True)
class GenerateSpec:
    """What the operator is to make, and in which Secret.

    `size` in bits (keys only), times in seconds; no `rotate_every`: on demand only.
    """

    kind: CredentialKind
    secret_name: str
    keep_previous: int
    rotate_every: int | None = None
    size: int = SIZES[0]

    @property
    def field(self) -> str:
        """The spec's member that asks for it."""
        return "spec.generateKey" if self.kind is CredentialKind.KEY else "spec.clientSecret"


@dataclass(frozen=True, slots=True)
class Sources:
    """What a spec names, as far as it can be read and its method uses it.

    `fills`: the Secret that the operator is to fill, also where the rest of that request cannot be read. `retain`: Secrets that we made
    outlive the object.
    """

    provided: SecretRef | None = None
    generate: GenerateSpec | None = None
    fills: str | None = None
    jwks_uri: str | None = None
    retain: bool = False


def read_sources(spec: Mapping[str, Any]) -> tuple[Sources, list[Problem]]:
    """The sources that this spec names, and what is wrong with it there. Members with the value None are absent."""
    reader = _Reader({field: value for field, value in spec.items() if value is not None})
    method = reader.spec.get("authMethod", PRIVATE_KEY_JWT)
    secret = reader.client_secret()
    key = reader.generate_key()
    fills = reader.fills.get("generateKey" if method == PRIVATE_KEY_JWT else "clientSecret")
    uri = reader.jwks_uri()
    retain = reader.retain()
    reader.fit(method)
    by_key, by_secret = method == PRIVATE_KEY_JWT, method in SECRET_METHODS
    return (
        Sources(
            provided=secret if by_secret and isinstance(secret, SecretRef) else None,
            generate=key if by_key else secret if by_secret and isinstance(secret, GenerateSpec) else None,
            fills=fills if by_key or by_secret else None,
            jwks_uri=uri if by_key else None,
            retain=retain,
        ),
        reader.problems,
    )


class _Reader:
    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = spec
        self.problems: list[Problem] = []
        self.fills: dict[str, str] = {}

    def report(self, field: str, message: str) -> None:
        self.problems.append(Problem(reasons.INVALID_SPEC, f"spec.{field}", message))

    def client_secret(self) -> SecretRef | GenerateSpec | None:
        value = self.spec.get("clientSecret")
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.report("clientSecret", "expected an object with secretName")
            return None
        name = self.secret_name("clientSecret", value)
        generate = value.get("generate")
        if generate is not None and not isinstance(generate, bool):
            self.report("clientSecret.generate", "must be true or false")
            return None
        if generate is False:
            for field in ("rotateEvery", "keepPrevious"):
                if value.get(field) is not None:
                    self.report(f"clientSecret.{field}", "is for secrets that the operator makes (generate: true)")
            return None if name is None else SecretRef(name)
        if name is not None:
            self.fills["clientSecret"] = name
        times = self.times("clientSecret", value)
        if name is None or times is None:
            return None
        rotate_every, keep_previous = times
        return GenerateSpec(CredentialKind.SECRET, name, keep_previous, rotate_every)

    def generate_key(self) -> GenerateSpec | None:
        value = self.spec.get("generateKey")
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.report("generateKey", "expected an object with secretName")
            return None
        name = self.secret_name("generateKey", value)
        if name is not None:
            self.fills["generateKey"] = name
        size = value.get("size")
        size = SIZES[0] if size is None else size
        known = not isinstance(size, bool) and size in SIZES
        if not known:
            self.report("generateKey.size", f"must be one of {', '.join(map(str, SIZES))}")
        times = self.times("generateKey", value)
        if name is None or times is None or not known:
            return None
        rotate_every, keep_previous = times
        return GenerateSpec(CredentialKind.KEY, name, keep_previous, rotate_every, int(size))

    def secret_name(self, field: str, value: Mapping[str, Any]) -> str | None:
        name = value.get("secretName")
        if isinstance(name, str) and _SECRET_NAME.fullmatch(name):
            return name
        self.report(f"{field}.secretName", "must be the name of a Secret in this namespace")
        return None

    def times(self, field: str, value: Mapping[str, Any]) -> tuple[int | None, int] | None:
        """rotateEvery and keepPrevious in seconds; None when one cannot be read."""
        read: dict[str, int | None] = {}
        for name in ("rotateEvery", "keepPrevious"):
            given = value.get(name)
            try:
                read[name] = None if given is None else parse_duration(given)
            except InvalidDuration as error:
                self.report(f"{field}.{name}", str(error))
                return None
        rotate_every, keep_previous = read["rotateEvery"], read["keepPrevious"]
        if rotate_every == 0:
            self.report(f"{field}.rotateEvery", "must be at least 1s")
            return None
        if keep_previous is None:
            return rotate_every, DEFAULT_OVERLAP if rotate_every is None else min(DEFAULT_OVERLAP, rotate_every)
        return rotate_every, keep_previous

    def jwks_uri(self) -> str | None:
        value = self.spec.get("jwksUri")
        if value is None:
            return None
        if (fault := uri_fault(value)) is not None:
            self.report("jwksUri", fault)
            return None
        return str(value)

    def retain(self) -> bool:
        value = self.spec.get("deletionPolicy", DELETION_POLICIES[0])
        if value not in DELETION_POLICIES:
            # What cannot be read destroys nothing.
            self.report("deletionPolicy", f"must be one of {', '.join(DELETION_POLICIES)}")
            return True
        return bool(value == "Retain")

    def fit(self, method: object) -> None:
        unfit: tuple[str, ...] = ()
        if method == PRIVATE_KEY_JWT:
            unfit = ("clientSecret",)
        elif method in SECRET_METHODS:
            unfit = ("publicKeys", "generateKey", "jwksUri")
        for field in unfit:
            if self.spec.get(field):
                self.report(field, f"does not go with authMethod {method}: take one of them out")


def uri_fault(value: object) -> str | None:
    """Why a JWK Set is not fetched from here, whatever the installation allows; None when it may be."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_URI or not value.isascii() or not value.isprintable():
        return f"must be an https URL of at most {MAX_URI} characters in ASCII"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return "must be an https URL"
    if parts.scheme != "https" or not parts.hostname or " " in value or "\\" in value:
        return "must be an https URL"
    if port not in (None, 443):
        return "must be an https URL on port 443"
    if parts.username is not None or parts.password is not None:
        return "must hold no user and password"
    if parts.fragment or value.endswith("#"):
        return "must hold no fragment"
    return None
