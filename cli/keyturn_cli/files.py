"""Writing the files of a key pair, so that the private one is never readable by others, not even for a moment."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import CommandError, Exit

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write. `private`: mode 0600 whatever the umask."""

    path: Path
    content: bytes = field(repr=False)
    private: bool = False


def write_all(files: list[NewFile], *, overwrite: bool) -> None:
    """Writes all files or none: what was written is taken away again when a later one fails.

    Raises:
        CommandError: a file exists and `overwrite` is not set, or the folder can't be written to.
    """
    if not overwrite:
        for file in files:
            # lexists: a link that leads nowhere is in the way too.
            if os.path.lexists(file.path):
                raise in_the_way(file.path)
    written: list[Path] = []
    file = files[0]
    try:
        for folder in {file.path.parent for file in files}:
            make_folder(folder)
        for file in files:
            # A replacement is written beside the old file and put in its place when all are there: so neither the old file's
            # mode nor a link's target lives on.
            target = beside(file.path) if overwrite else file.path
            create(target, file)
            written.append(target)
        if overwrite:
            for file, target in zip(files, written, strict=True):
                target.replace(file.path)
    except FileExistsError:
        remove(written)
        raise in_the_way(file.path) from None
    except OSError as error:
        remove(written)
        raise cannot_write(file.path, error) from None


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None


def beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def create(path: Path, file: NewFile) -> None:
    """Creates `path` with `file`'s content and mode. Raises FileExistsError; follows no link."""
    mode = PRIVATE_MODE if file.private else PUBLIC_MODE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            if file.private:
                os.fchmod(stream.fileno(), PRIVATE_MODE)
            stream.write(file.content)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        remove([path])
        raise


def remove(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def in_the_way(path: Path) -> CommandError:
    return CommandError(
        f"{path} exists already and was left as it is.",
        "Choose another name or folder, or replace it with --force (a replaced private key is gone for good).",
        Exit.REFUSED,
    )


def cannot_write(path: Path, error: OSError) -> CommandError:
    return CommandError(
        f"{path} can't be written: {error.strerror or 'unknown cause'}.",
        "Name a folder that you may write to with --out.",
        Exit.USAGE,
    )
