"""A spec's `publicKeys`, read one by one so that one bad key never hides another."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from keyturn import reasons
from keyturn.clients.state import SOURCE_PUBLIC_KEYS, ClientKey
from keyturn.jose.keys import KeyRejected, PublicKey, checked_kid, parse_jwk, parse_pem
from keyturn.problems import Problem
from keyturn.timestamps import InvalidTimestamp, parse_rfc3339

MAX_KEYS: Final = 10
FIELDS: Final = frozenset({"kid", "jwk", "pem", "notBefore", "notAfter"})

_FIELD: Final = "spec.publicKeys"


def read_keys(value: object) -> tuple[list[ClientKey], list[Problem]]:
    """The keys that can be read, and what is wrong with the others. Keys that share a kid are all returned, with one problem each kid."""
    if value is None:
        return [], []
    if not isinstance(value, list):
        return [], [Problem(reasons.INVALID_SPEC, _FIELD, "expected a list of keys")]
    keys: list[ClientKey] = []
    problems: list[Problem] = []
    if len(value) > MAX_KEYS:
        problems.append(
            Problem(reasons.INVALID_SPEC, _FIELD, f"at most {MAX_KEYS} keys are allowed; those after are not read")
        )
    for index, entry in enumerate(value[:MAX_KEYS]):
        read = _read_key(entry, f"{_FIELD}[{index}]")
        if isinstance(read, Problem):
            problems.append(read)
        else:
            keys.append(read)
    for kid, count in Counter(key.kid for key in keys).items():
        if count > 1:
            problems.append(
                Problem(
                    reasons.DUPLICATE_KID, _FIELD, f"{count} keys have the kid {kid!r}: give each key a kid of its own"
                )
            )
    return keys, problems


def still_named(last: Sequence[ClientKey], named: Sequence[ClientKey]) -> tuple[ClientKey, ...]:
    """Of the last keys those that an invalid edit still names, each no longer valid than both say.

    A key is the same when kid and thumbprint are: other material under an old kid is an addition.
    """
    kept = []
    for key in last:
        same = [key, *(other for other in named if (other.kid, other.thumbprint) == (key.kid, key.thumbprint))]
        if len(same) == 1:
            continue
        kept.append(
            replace(
                key,
                not_before=max((k.not_before for k in same if k.not_before is not None), default=None),
                not_after=min((k.not_after for k in same if k.not_after is not None), default=None),
            )
        )
    return tuple(kept)


def _read_key(entry: object, field: str) -> ClientKey | Problem:
    if not isinstance(entry, Mapping):
        return Problem(reasons.INVALID_KEY, field, "expected an object with jwk or pem")
    try:
        not_before, not_after = (_time(entry, name, field) for name in ("notBefore", "notAfter"))
    except _BadTimeError as error:
        return error.problem
    if not_before is not None and not_after is not None and not_after <= not_before:
        return Problem(
            reasons.INVALID_SPEC, f"{field}.notAfter", "must be later than notBefore, or the key never counts"
        )
    try:
        key = _parse(entry, field)
    except KeyRejected as error:
        return Problem(error.reason, error.field, error.description)
    return ClientKey(
        kid=key.kid,
        thumbprint=key.thumbprint,
        algorithm=key.algorithm,
        size=key.size,
        source=SOURCE_PUBLIC_KEYS,
        jwk=key.jwk,
        not_before=not_before,
        not_after=not_after,
    )


def _parse(entry: Mapping[str, Any], field: str) -> PublicKey:
    jwk, pem = entry.get("jwk"), entry.get("pem")
    kid = checked_kid(entry.get("kid"), field=f"{field}.kid")
    if (jwk is None) == (pem is None):
        fault = (
            "holds neither jwk nor pem: give one of them"
            if jwk is None
            else "holds both jwk and pem: take one of them out"
        )
        raise KeyRejected(reasons.INVALID_KEY, fault, field=field)
    if jwk is not None:
        return parse_jwk(jwk, kid=kid, field=f"{field}.jwk")
    if not isinstance(pem, str):
        raise KeyRejected(reasons.INVALID_KEY, "expected the text of a PEM file", field=f"{field}.pem")
    return parse_pem(pem, kid=kid, field=f"{field}.pem")


class _BadTimeError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _time(entry: Mapping[str, Any], name: str, field: str) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    try:
        return parse_rfc3339(value)
    except InvalidTimestamp as error:
        raise _BadTimeError(Problem(reasons.INVALID_SPEC, f"{field}.{name}", str(error))) from None
