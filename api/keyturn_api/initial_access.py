"""Initial access tokens (RFC 7591 section 1.2): several, each with a name and perhaps an end, in files that a Secret brings."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from keyturn.timestamps import InvalidTimestamp, parse_rfc3339
from keyturn_api.logs import get_logger

_log = get_logger("registration")
_MAX_FILES: Final = 200
_MAX_BYTES: Final = 4096
# A token shorter than this could be guessed.
_MIN_LENGTH: Final = 22
_MAX_LENGTH: Final = 1024
_READ_EVERY: Final = 1.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~+/=-]{{{_MIN_LENGTH},{_MAX_LENGTH}}}", re.ASCII)
_HASHED: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_EXPIRES: Final = "expires:"


@dataclass(frozen=True, slots=True)
class InitialToken:
    """One token. `digest`: SHA-256. `expires_at`: seconds since the epoch, None: never."""

    name: str
    digest: bytes = field(repr=False)
    expires_at: float | None = None


class InvalidTokenFile(ValueError):
    """A file that holds no token; the text says why and repeats nothing of it."""


def parse_file(name: str, text: str) -> InitialToken:
    """A file's name is the token's; its first line the token itself or `sha256:` and its hash in hex, a second one may say
    `expires: 2027-01-31T00:00:00Z`. Raises InvalidTokenFile.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InvalidTokenFile("it is empty")
    hashed = _HASHED.fullmatch(lines[0])
    if hashed is not None:
        digest = bytes.fromhex(hashed[1])
    elif lines[0].startswith("sha256:"):
        raise InvalidTokenFile("sha256: must be followed by 64 hexadecimal digits in lower case")
    elif _TOKEN.fullmatch(lines[0]):
        digest = hashlib.sha256(lines[0].encode("ascii")).digest()
    else:
        raise InvalidTokenFile(f"the token must be {_MIN_LENGTH} to {_MAX_LENGTH} characters of a Bearer token")
    expires_at = None
    for line in lines[1:]:
        if not line.startswith(_EXPIRES) or expires_at is not None:
            raise InvalidTokenFile("after the token there may be one line with expires: and a time, and nothing else")
        try:
            expires_at = parse_rfc3339(line.removeprefix(_EXPIRES).strip())
        except InvalidTimestamp as error:
            raise InvalidTokenFile(f"expires: {error}") from None
    return InitialToken(name, digest, expires_at)


class InitialAccessTokens:
    """The tokens of a directory, read again at the first use after a second: an edit of the Secret needs no restart.

    A file that cannot be read is no token, and the log says so once. Files whose names begin with a dot are the kubelet's own.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock
        self._read_at: float | None = None
        self._tokens: tuple[InitialToken, ...] = ()
        self._complained: dict[str, str] = {}

    def find(self, token: str) -> str | None:
        """The name of this token if it counts now."""
        now = self._clock()
        if self._read_at is None or not 0 <= now - self._read_at < _READ_EVERY:
            self._read_at, self._tokens = now, self._read()
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        found = None
        # Every one is compared, each in constant time: how long it takes says nothing of where the right one is.
        for one in self._tokens:
            if hmac.compare_digest(one.digest, digest) and (one.expires_at is None or now < one.expires_at):
                found = one.name
        return found

    def _read(self) -> tuple[InitialToken, ...]:
        tokens: list[InitialToken] = []
        faults: dict[str, str] = {}
        try:
            files = sorted(one for one in self._directory.iterdir() if not one.name.startswith("."))
        except OSError as error:
            files, faults = [], {str(self._directory): type(error).__name__}
        if len(files) > _MAX_FILES:
            faults["*"] = f"more than {_MAX_FILES} files: those after are not read"
        for path in files[:_MAX_FILES]:
            try:
                if not _NAME.fullmatch(path.name):
                    raise InvalidTokenFile("its name must be letters, digits, dots, underscores and hyphens")
                with path.open("rb") as file:
                    tokens.append(parse_file(path.name, file.read(_MAX_BYTES).decode("utf-8")))
            except (OSError, UnicodeDecodeError) as error:
                faults[path.name] = type(error).__name__
            except InvalidTokenFile as error:
                faults[path.name] = str(error)
        for name, fault in faults.items():
            if self._complained.get(name) != fault:
                _log.warning("initial_access_token_unusable", file=name, cause=fault)
        self._complained = faults
        return tuple(tokens)
