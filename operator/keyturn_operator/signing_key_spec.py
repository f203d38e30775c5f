"""A SigningKey's spec and annotations as read, and what is wrong with them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from keyturn import __version__, reasons
from keyturn.durations import InvalidDuration, parse_duration
from keyturn.jose.algorithms import ES256, GENERATED_SIZES, PS256, RS256
from keyturn.jose.keys import MAX_KID_LENGTH
from keyturn.keys.schedule import Policy
from keyturn.problems import Problem
from keyturn.timestamps import InvalidTimestamp, parse_rfc3339
from keyturn_operator.settings import GROUP

ALGORITHMS: Final = (RS256, PS256, ES256)
SIZES: Final = tuple(sorted(GENERATED_SIZES[RS256]))
RETAIN: Final = "Retain"
DELETE: Final = "Delete"
FIELDS: Final = frozenset(
    {
        *("algorithm", "size", "secretName", "rotateEvery", "publishBefore", "retainAfter", "importFrom"),
        *("deletionPolicy", "revokeTokensIssuedBefore"),
    }
)
IMPORT_FIELDS: Final = frozenset({"secretName", "key", "passphraseKey", "kid"})

ROTATE_EVERY: Final = 720 * 3600
PUBLISH_BEFORE: Final = 600
IMPORT_MEMBER: Final = "private.pem"

ROTATE_ANNOTATION: Final = f"{GROUP}/rotate"
COMPROMISED_ANNOTATION: Final = f"{GROUP}/compromised"


@dataclass(frozen=True, slots=True)
class ImportSource:
    """A key that someone made elsewhere: the Secret, its members with the PEM and the passphrase, and the kid that tokens name."""

    secret_name: str
    member: str
    passphrase_member: str | None
    kid: str | None


@dataclass(frozen=True, slots=True)
class SigningKeySpec:
    """A SigningKey's spec as read. `import_from`: None also where it cannot be read, which `problems` tell."""

    policy: Policy
    secret_name: str
    revoke_before: float | None
    import_from: ImportSource | None = None
    delete_secret: bool = False


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The kids that the annotation calls compromised, and what is wrong with it (a sentence; empty when nothing is)."""

    kids: frozenset[str] = frozenset()
    problem: str = ""


def parse_spec(spec: Mapping[str, Any], *, name: str) -> tuple[SigningKeySpec, list[Problem]]:
    """The spec and what is wrong with it. What cannot be read has its default, for the key ring is never left without one.

    The exception is the schedule: a mistake in it rotates nothing.
    """
    problems: list[Problem] = []

    def report(reason: str, field: str, message: str) -> None:
        problems.append(Problem(reason, f"spec.{field}", message))

    def seconds(field: str, default: int) -> int | None:
        if field not in given:
            return default
        try:
            return parse_duration(given[field])
        except InvalidDuration as error:
            report(reasons.INVALID_SPEC, field, str(error))
            return None

    given = {field: value for field, value in spec.items() if value is not None}
    for field in sorted(set(given) - FIELDS):
        report(reasons.UNSUPPORTED_FIELD, field, f"is not known to version {__version__} of the operator: take it out")
    algorithm = given.get("algorithm", RS256)
    if algorithm not in ALGORITHMS:
        report(reasons.UNSUPPORTED_FIELD, "algorithm", f"this version signs with {', '.join(ALGORITHMS)}")
        algorithm = RS256
    size = given.get("size", SIZES[0])
    if isinstance(size, bool) or size not in SIZES:
        report(reasons.INVALID_SPEC, "size", f"must be one of {', '.join(map(str, SIZES))}")
        size = SIZES[0]
    secret_name = given.get("secretName", name)
    if not isinstance(secret_name, str) or not secret_name:
        report(reasons.INVALID_SPEC, "secretName", "must be the name of a Secret")
        secret_name = name
    revoke_before = None
    if "revokeTokensIssuedBefore" in given:
        try:
            revoke_before = parse_rfc3339(given["revokeTokensIssuedBefore"])
        except InvalidTimestamp as error:
            report(reasons.INVALID_SPEC, "revokeTokensIssuedBefore", str(error))
    rotate_every, retain_after = seconds("rotateEvery", ROTATE_EVERY), seconds("retainAfter", 0)
    publish_before = seconds("publishBefore", PUBLISH_BEFORE)
    policy = Policy(
        algorithm=algorithm,
        # The size is RSA's; an elliptic curve has its own.
        size=int(size) if algorithm != ES256 else next(iter(GENERATED_SIZES[ES256])),
        publish_before=float(PUBLISH_BEFORE if publish_before is None else publish_before),
        retain_after=float(retain_after or 0),
        rotate_every=float(rotate_every) if rotate_every else None,
    )
    deletion = given.get("deletionPolicy", RETAIN)
    if deletion not in (RETAIN, DELETE):
        report(reasons.INVALID_SPEC, "deletionPolicy", f"must be {RETAIN} or {DELETE}")
    source = None
    if "importFrom" in given:
        source, message = _import_source(given["importFrom"])
        if message:
            report(reasons.INVALID_SPEC, "importFrom", message)
    return SigningKeySpec(policy, secret_name, revoke_before, source, deletion == DELETE), problems


def _import_source(given: object) -> tuple[ImportSource | None, str]:
    if not isinstance(given, Mapping):
        return None, "must be an object"
    members = {name: value for name, value in given.items() if value is not None}
    if unknown := set(members) - IMPORT_FIELDS:
        return None, f"{min(unknown)} is not known to version {__version__} of the operator: take it out"
    if not all(isinstance(value, str) and value for value in members.values()):
        return None, "its members must be texts"
    if "secretName" not in members:
        return None, "must name a Secret in secretName"
    return (
        ImportSource(
            members["secretName"], members.get("key", IMPORT_MEMBER), members.get("passphraseKey"), members.get("kid")
        ),
        "",
    )


def rotation_request(obj: Mapping[str, Any]) -> str | None:
    """The value of the rotate annotation; an empty one asks for nothing."""
    return _annotation(obj, ROTATE_ANNOTATION) or None


def read_withdrawal(obj: Mapping[str, Any]) -> Withdrawal:
    """What the object calls compromised: kids separated by commas or spaces, or (where a kid holds those) a JSON array of texts.

    All of them count, however many: the API server bounds annotations, and the newest stands last.
    """
    value = _annotation(obj, COMPROMISED_ANNOTATION)
    listed: Any = [kid for kid in re.split(r"[,\s]+", value) if kid]
    if value.lstrip().startswith("["):
        try:
            listed = orjson.loads(value)
        except orjson.JSONDecodeError:
            text = 'it begins with "[" and is no JSON array: nothing of it was withdrawn'
            return Withdrawal(problem=f"The annotation {COMPROMISED_ANNOTATION} cannot be read, for {text}.")
    kids = frozenset(kid for kid in listed if isinstance(kid, str) and 0 < len(kid) <= MAX_KID_LENGTH)
    strange = sum(one not in kids if isinstance(one, str) else True for one in listed)
    if not strange:
        return Withdrawal(kids)
    text = f"{strange} of its entries are no texts of 1 to {MAX_KID_LENGTH} characters, and withdrew nothing"
    return Withdrawal(kids, f"The annotation {COMPROMISED_ANNOTATION} cannot be read in whole: {text}.")


def _annotation(obj: Mapping[str, Any], name: str) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(name, ""))
