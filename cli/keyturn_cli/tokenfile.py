"""An access token from a file or from stdin."""

from __future__ import annotations

import sys
from typing import Final

from .errors import CommandError, Exit

MAX_TOKEN_BYTES: Final = 16_384


def read_token(path: str) -> str:
    """An access token from a file, or stdin for `-`: never from the command line, where others can read it."""
    try:
        if path == "-":
            content = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 1)
        else:
            with open(path, "rb") as stream:  # noqa: PTH123
                content = stream.read(MAX_TOKEN_BYTES + 1)
        token = content.decode("ascii").strip().removeprefix("Bearer ").strip()
    except OSError as error:
        raise CommandError(f"The token can't be read: {error.strerror}.", "", Exit.USAGE) from None
    except UnicodeDecodeError:
        token = ""
    if not token or len(content) > MAX_TOKEN_BYTES or not token.isprintable() or " " in token:
        raise CommandError("There is no access token to read.", "Give one on stdin, or name its file.", Exit.USAGE)
    return token
