"""The signing keys and their states in one Secret, as the operator writes it and API pods find it mounted.

One Secret, one write: no reader can see a key without its state or a state without its key.
"""

import hashlib
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson

from keyturn.jose import signing
from keyturn.jose.strict_json import InvalidJson, parse_object
from keyturn.keys.state import (
    InvalidState,
    KeyPhase,
    RingKey,
    SigningKeyState,
    optional_time,
    read_keys,
    read_kids,
    read_serial,
)

INDEX: Final = "keyring.json"
MAX_KEYS: Final = 128
MAX_WITHDRAWN: Final = 512
MAX_NAMED_KIDS: Final = 10

_FORMAT: Final = 1
_SECRET_MEMBER: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
# A kid that can name a file as it is; any other goes by its hash. None of the former begins like the latter, so names never collide.
_PLAIN_KID: Final = re.compile(r"(?!sha256-)[a-zA-Z0-9_-][-._a-zA-Z0-9]{0,127}")
_MAX_MEMBER_BYTES: Final = 256 * 1024
_ATTEMPTS: Final = 10
_PAUSE: Final = 0.01
# Phases whose private half must be there: the one that signs and the one that is about to.
_SIGNING_PHASES: Final = (KeyPhase.NEXT, KeyPhase.ACTIVE)


class RingDamaged(ValueError):
    """The Secret, or its mounted folder, holds no usable key ring. `description` names the member, never a value."""

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = description


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that people must hear of, as it happened last (seconds since the epoch). `reason`: a constant of `keyturn.reasons`.

    `kids`: those that it was about, where that is told; `MAX_NAMED_KIDS` at most.
    """

    reason: str
    at: float
    kids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All signing keys with their states, and the private halves by kid.

    `handled_rotation`: the value of the rotate annotation that was acted upon last, on the object with the uid `owner`. `imported`: the kid
    of the key that was adopted at first. `withdrawn`: kids that never count again, whether or not a key of theirs was ever seen. `serial`
    grows with each write, also over a lost Secret, so that one restored from a backup can be told.
    """

    keys: tuple[RingKey, ...] = ()
    private: Mapping[str, signing.PrivateKey] = field(default_factory=dict, repr=False)
    handled_rotation: str | None = None
    owner: str | None = None
    imported: str | None = None
    withdrawn: tuple[str, ...] = ()
    incidents: tuple[Incident, ...] = ()
    serial: int = 0

    def in_phase(self, phase: KeyPhase) -> tuple[RingKey, ...]:
        """The keys in this phase, in the ring's order."""
        return tuple(key for key in self.keys if key.phase is phase)

    def signing_key(self) -> signing.PrivateKey | None:
        """The private half of the Active key."""
        return next((self.private[key.kid] for key in self.in_phase(KeyPhase.ACTIVE) if key.kid in self.private), None)

    @property
    def refused(self) -> frozenset[str]:
        """All kids whose tokens never count again."""
        return frozenset(self.withdrawn) | {key.kid for key in self.in_phase(KeyPhase.COMPROMISED)}

    def incident(self, reason: str) -> Incident | None:
        """The last one of this reason."""
        return next((one for one in self.incidents if one.reason == reason), None)

    def with_incident(self, reason: str, at: float, kids: Collection[str] = ()) -> "KeyRing":
        """With the last one of its reason replaced."""
        others = tuple(one for one in self.incidents if one.reason != reason)
        return replace(self, incidents=(*others, Incident(reason, at, tuple(kids))))

    def holds_the_same(self, other: "KeyRing") -> bool:
        """Whether both say the same, whichever was written later."""
        return replace(self, private={}, serial=0) == replace(other, private={}, serial=0) and set(self.private) == set(
            other.private
        )

    def written(self, now: float, *, after: int = 0) -> "KeyRing":
        """As it is to be written: with a serial later than its own and than `after`, and in step with the clock where that is right."""
        return replace(self, serial=max(self.serial + 1, after + 1, int(now * 1000)))

    def state(self, *, revoke_before: float | None = None) -> SigningKeyState:
        """What of it goes into the store."""
        return SigningKeyState(self.keys, revoke_before, self.withdrawn, self.serial)

    def to_secret_data(self) -> dict[str, bytes]:
        """The Secret's members: `keyring.json` and one `.pem` for each private half. Equal rings make equal members."""
        listed = []
        data: dict[str, bytes] = {}
        for key in self.keys:
            entry = key.to_body()
            if (private := self.private.get(key.kid)) is not None:
                entry["file"] = _file_name(key.kid)
                data[entry["file"]] = private.to_pem()
            listed.append(entry)
        index = {
            "version": _FORMAT,
            "serial": self.serial,
            "owner": self.owner,
            "handledRotation": self.handled_rotation,
            "imported": self.imported,
            "keys": listed,
            "withdrawn": list(self.withdrawn),
            "incidents": [
                {"reason": one.reason, "at": one.at, **({"kids": list(one.kids)} if one.kids else {})}
                for one in self.incidents
            ],
        }
        return {INDEX: orjson.dumps(index, option=orjson.OPT_INDENT_2), **data}

    def member_names(self) -> frozenset[str]:
        """Every Secret member that this ring, or one before it, may have written."""
        kids = [*(key.kid for key in self.keys), *self.private, *self.withdrawn]
        return frozenset({INDEX, *map(_file_name, kids)})

    @classmethod
    def from_secret_data(cls, data: Mapping[str, bytes]) -> "KeyRing":
        """Reads `to_secret_data`'s form; members that the index does not name are ignored. Raises RingDamaged."""
        return _read(data.get)


def load_directory(path: Path) -> KeyRing | None:
    """The ring in a folder where the Secret is mounted; None when the folder or `keyring.json` is absent. Blocking, a few files.

    The kubelet puts each version of a Secret into a folder of its own and swaps the symlink `..data` to it. So the link is resolved
    once and everything read from there; a version that vanishes meanwhile is left for the new one. A folder without
    `..data` is read as it is. Raises RingDamaged.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE)
        version = _current_version(path)
        try:
            ring = _read(lambda name, folder=version: _read_member(folder, name))  # type: ignore[misc]
        except _IndexMissing:
            if not _exists(path) or _is_settled(path, version):
                return None
        except RingDamaged:
            if _is_settled(path, version):
                raise
        else:
            return ring
    raise RingDamaged("the folder of the key ring changes while it is read")


class _IndexMissing(RingDamaged):
    pass


def _read(member: Callable[[str], bytes | None]) -> KeyRing:
    raw = member(INDEX)
    if raw is None:
        raise _IndexMissing(f"{INDEX} is missing")
    try:
        index = parse_object(raw)
        if index.get("version") != _FORMAT:
            raise InvalidState("version is not one that this program knows")
        keys = read_keys(index)
        withdrawn = read_kids(index, "withdrawn")
        incidents = _read_incidents(index)
        serial = read_serial(index)
        handled, owner, imported = (_optional_text(index, name) for name in ("handledRotation", "owner", "imported"))
    except (InvalidJson, InvalidState) as error:
        raise RingDamaged(f"{INDEX}: {error}") from None
    if len(keys) > MAX_KEYS:
        raise RingDamaged(f"{INDEX}: more than {MAX_KEYS} keys")
    for phase in _SIGNING_PHASES:
        if sum(key.phase is phase for key in keys) > 1:
            raise RingDamaged(f"{INDEX}: more than one {phase} key")
    private: dict[str, signing.PrivateKey] = {}
    for key, entry in zip(keys, index["keys"], strict=True):
        if entry.get("file") is not None:
            # A compromised key must not come back into use by its file alone.
            if key.phase is not KeyPhase.COMPROMISED:
                private[key.kid] = _read_private(key, entry["file"], member)
        elif key.phase in _SIGNING_PHASES:
            raise RingDamaged(f"{INDEX}: the {key.phase} key has no file")
    return KeyRing(keys, private, handled, owner, imported, withdrawn, incidents, serial)


def _optional_text(index: Mapping[str, Any], member: str) -> str | None:
    value = index.get(member)
    if value is not None and not isinstance(value, str):
        raise InvalidState(f"{member} is not a text")
    return value


def _read_incidents(index: Mapping[str, Any]) -> tuple[Incident, ...]:
    listed = index.get("incidents") or []
    if not isinstance(listed, list):
        raise InvalidState("incidents is not a list")
    read = []
    for one in listed[:MAX_KEYS]:
        at = optional_time(one, "at") if isinstance(one, dict) else None
        if at is None or not isinstance(one.get("reason"), str):
            raise InvalidState("an incident has no reason or no time")
        read.append(Incident(one["reason"], at, read_kids(one, "kids")[:MAX_NAMED_KIDS]))
    return tuple(read)


def _read_private(key: RingKey, name: Any, member: Callable[[str], bytes | None]) -> signing.PrivateKey:
    # Without a separator and not beginning with "..", a name cannot leave the folder (and the API server takes no other).
    if not isinstance(name, str) or not _SECRET_MEMBER.fullmatch(name) or name == "." or name.startswith(".."):
        raise RingDamaged(f"{INDEX}: file of the {key.phase} key is no Secret member's name")
    pem = member(name)
    if pem is None:
        raise RingDamaged(f"{name} is missing")
    try:
        private = signing.load_pem(pem, kid=key.kid, algorithm=key.algorithm)
    except signing.KeyRejected as error:
        raise RingDamaged(f"{name}: {error.description}") from None
    if private.public.jwk != key.jwk:
        raise RingDamaged(f"{name} is not the private half of the key that {INDEX} names")
    return private


def _file_name(kid: str) -> str:
    if _PLAIN_KID.fullmatch(kid):
        return f"{kid}.pem"
    return f"sha256-{hashlib.sha256(kid.encode()).hexdigest()}.pem"


def _current_version(path: Path) -> Path:
    link = path / "..data"
    try:
        return path / link.readlink()
    except OSError:
        # No such link, or no link: a plain folder.
        return path


def _is_settled(path: Path, version: Path) -> bool:
    """Whether what was read from `version` can be believed: it is still there and still the current one."""
    return _current_version(path) == version and _exists(version)


def _exists(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:
        # Out of reach, not absent.
        return True


def _read_member(folder: Path, name: str) -> bytes | None:
    try:
        with (folder / name).open("rb") as file:
            content = file.read(_MAX_MEMBER_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RingDamaged(f"{name} cannot be read ({type(error).__name__})") from error
    if len(content) > _MAX_MEMBER_BYTES:
        raise RingDamaged(f"{name} is longer than {_MAX_MEMBER_BYTES} bytes")
    return content
