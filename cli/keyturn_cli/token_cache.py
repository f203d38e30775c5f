"""Access tokens kept in the user's own cache, so that a script that asks often asks the service seldom."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .files import NewFile, beside, create, remove
from .server import ACCESS_TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A token that is handed out must still hold for the request that it was asked for, and for clocks that differ.
MARGIN_SECONDS: Final = 30
MAX_FILE_BYTES: Final = 64 * 1024
MAX_FILES: Final = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """A token and until when it may be handed out, in epoch seconds."""

    token: str = field(repr=False)
    until: float


def cache_folder(environ: Mapping[str, str]) -> Path:
    """By the XDG base directory specification: a relative or empty `XDG_CACHE_HOME` counts as unset."""
    named = Path(environ.get("XDG_CACHE_HOME", ""))
    base = named if named.is_absolute() else Path(environ.get("HOME") or Path.home()) / ".cache"
    return base / "keyturn" / "tokens"


class TokenCache:
    """One file a request that a token answers, readable by its owner alone. What can't be used is as if it were not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, asked: Sequence[object], now: float) -> str | None:
        """The token for what `asked` names, if it holds for at least `MARGIN_SECONDS` more. `now`: epoch seconds."""
        kept = _read(self._path(asked))
        return kept.token if kept is not None and now < kept.until - MARGIN_SECONDS else None

    def keep(self, asked: Sequence[object], kept: Kept, now: float) -> bool:
        """Puts a token in the place of the one before, and takes away what has expired. False where it can't be written."""
        path = self._path(asked)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep(now)
            content = json.dumps({"access_token": kept.token, "until": kept.until}).encode()
            # Beside it first: whoever reads meanwhile finds a whole one, and no link is followed.
            written = beside(path)
            create(written, NewFile(path, content, private=True))
            try:
                written.replace(path)
            except OSError:
                remove([written])
                raise
        except OSError:
            return False
        return True

    def _path(self, asked: Sequence[object]) -> Path:
        # A digest: names of clients and servers are not fit for the name of a file, and JSON keeps the parts apart.
        return self._folder / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()}.json"

    def _sweep(self, now: float) -> None:
        """Deletes the files of tokens that are over. Bounded; the rest has its turn the next time."""
        for path, _ in zip(sorted(self._folder.glob("*.json")), range(MAX_FILES), strict=False):
            kept = _read(path)
            if kept is None or kept.until <= now:
                with contextlib.suppress(OSError):
                    path.unlink()


def _read(path: Path) -> Kept | None:
    """What a file holds, if it is one that we wrote and that nobody else can read or write."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
                return None
            found = json.loads(stream.read(MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    match found:
        case {"access_token": str(token), "until": int() | float() as until} if ACCESS_TOKEN.match(token):
            return Kept(token, until)
        case _:
            return None
