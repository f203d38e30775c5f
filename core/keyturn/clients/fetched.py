"""Keys that a client publishes at its `jwksUri`: read one by one from the document, and how long a copy counts."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from keyturn import reasons
from keyturn.clients.keys import still_named
from keyturn.clients.state import SOURCE_JWKS_URI, ClientKey, ClientState
from keyturn.jose.keys import KeyRejected, parse_jwk
from keyturn.jose.strict_json import InvalidJson, parse_object
from keyturn.problems import Problem

MAX_KEYS: Final = 10
COPY_COUNTS: Final = 24 * 3600.0
"""Seconds for which the last good copy counts, at most, from when it was fetched."""
RENEW_AT: Final = 23 * 3600.0
"""A copy that counts this long still is not written anew only because it was fetched again: each write reaches every replica."""

_FIELD: Final = "spec.jwksUri"
# As the CRD's status has them.
_KID: Final = re.compile(r"[ !#-\[\]-~]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FetchedKeys:
    """A document as fetched from `uri` at `fetched_at` (epoch seconds): the keys that count, and what is wrong with the others."""

    uri: str
    fetched_at: float
    keys: tuple[ClientKey, ...]
    problems: tuple[Problem, ...] = ()


def read_jwk_set(document: bytes, *, uri: str, fetched_at: float) -> FetchedKeys:
    """The keys of a JWK Set (RFC 7517 section 5). Raises ValueError for what is none; one bad key hides no other."""
    try:
        body = parse_object(document)
    except InvalidJson:
        raise ValueError("the answer is no JSON object") from None
    listed = body.get("keys")
    if not isinstance(listed, list):
        raise ValueError("the answer is no JWK Set: it has no list keys")
    problems: list[Problem] = []
    keys: list[ClientKey] = []
    if len(listed) > MAX_KEYS:
        problems.append(
            Problem(reasons.INVALID_KEY, _FIELD, f"at most {MAX_KEYS} keys are read, the document has {len(listed)}")
        )
    for index, entry in enumerate(listed[:MAX_KEYS]):
        # RFC 7517 section 4.2: keys for encryption may stand beside; they are not meant for us.
        if isinstance(entry, Mapping) and entry.get("use") == "enc" and "d" not in entry and "k" not in entry:
            continue
        try:
            key = parse_jwk(entry, field=f"{_FIELD} keys[{index}]")
        except KeyRejected as error:
            problems.append(Problem(error.reason, error.field, error.description))
            continue
        if not _KID.fullmatch(key.kid):
            fault = "kid must have 1 to 128 printable ASCII characters without quotation marks and backslashes"
            problems.append(Problem(reasons.INVALID_KEY, f"{_FIELD} keys[{index}]", fault))
            continue
        keys.append(
            ClientKey(
                kid=key.kid,
                thumbprint=key.thumbprint,
                algorithm=key.algorithm,
                size=key.size,
                source=SOURCE_JWKS_URI,
                jwk=key.jwk,
                not_after=fetched_at + COPY_COUNTS,
            )
        )
    doubled = {kid for kid, count in Counter(key.kid for key in keys).items() if count > 1}
    problems += [
        Problem(reasons.DUPLICATE_KID, _FIELD, f"several keys have the kid {kid!r}: none of them counts")
        for kid in sorted(doubled)
    ]
    return FetchedKeys(uri, fetched_at, tuple(key for key in keys if key.kid not in doubled), tuple(problems))


def kept_copy(last: ClientState | None, uri: str | None) -> tuple[ClientKey, ...]:
    """The keys in force of the same URL."""
    if last is None or uri is None or last.jwks_uri != uri:
        return ()
    return tuple(key for key in last.keys if key.source == SOURCE_JWKS_URI)


def fetched_keys(
    fetched: FetchedKeys | None, last: ClientState | None, uri: str | None, *, may_add: bool, now: float
) -> tuple[ClientKey, ...]:
    """What counts of this URL's keys: the fetched ones, else the last good copy, which ends by itself.

    Without `may_add` (the edit has a mistake, and the URL is another) nothing is added.
    """
    copy = tuple(key for key in kept_copy(last, uri) if key.not_after is None or now < key.not_after)
    if fetched is None or fetched.uri != uri:
        return copy
    if not may_add:
        return still_named(copy, fetched.keys)
    return _renewed(fetched.keys, copy)


def _renewed(fresh: Sequence[ClientKey], copy: Sequence[ClientKey]) -> tuple[ClientKey, ...]:
    """The same keys keep the end that they have until it comes near."""
    before = {(key.kid, key.thumbprint): key for key in copy}
    same = [before.get((key.kid, key.thumbprint)) for key in fresh]
    kept = [key for key in same if key is not None]
    if len(kept) == len(fresh) == len(copy) and all(
        (new.not_after or 0.0) - (old.not_after or 0.0) < COPY_COUNTS - RENEW_AT
        for new, old in zip(fresh, kept, strict=True)
    ):
        return tuple(kept)
    return tuple(
        new if old is None else replace(new, added_at=old.added_at) for new, old in zip(fresh, same, strict=True)
    )


def copy_fetched_at(keys: Sequence[ClientKey]) -> float | None:
    """When the copy in force was fetched, as far as its end tells."""
    ends = [key.not_after for key in keys if key.source == SOURCE_JWKS_URI and key.not_after is not None]
    return min(ends) - COPY_COUNTS if ends else None
