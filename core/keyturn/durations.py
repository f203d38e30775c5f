"""Durations in manifests and settings: whole hours, minutes and seconds, such as `60s`, `15m`, `1h30m`, `720h`."""

import re
from typing import Final

MAX_SECONDS: Final = 100 * 366 * 24 * 3600

_FORM: Final = re.compile(r"(?:(?P<h>[0-9]{1,7})h)?(?:(?P<m>[0-9]{1,9})m)?(?:(?P<s>[0-9]{1,10})s)?", re.ASCII)


class InvalidDuration(ValueError):
    """Not a duration; the text says which form is expected."""


def parse_duration(text: object) -> int:
    """The duration in seconds. Zero is a duration (`0s`). Raises InvalidDuration."""
    if not isinstance(text, str) or not text or len(text) > 32 or (match := _FORM.fullmatch(text)) is None:
        raise InvalidDuration("expected whole hours, minutes and seconds, such as 60s, 15m, 1h30m or 720h")
    hours, minutes, seconds = (int(match[unit] or 0) for unit in "hms")
    total = hours * 3600 + minutes * 60 + seconds
    if total > MAX_SECONDS:
        raise InvalidDuration("longer than a hundred years")
    return total


def format_duration(seconds: int) -> str:
    """The shortest form of whole seconds that `parse_duration` reads: `90` is `1m30s`, `0` is `0s`. Raises ValueError below zero."""
    if seconds < 0:
        raise ValueError("a duration is never negative")
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    return "".join(f"{amount}{unit}" for amount, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if amount) or "0s"
