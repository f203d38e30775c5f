"""RFC 3339 times, as Kubernetes writes them and people put them into manifests."""

import re
from datetime import UTC, datetime
from typing import Final

_FORM: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


class InvalidTimestamp(ValueError):
    """Not a time of RFC 3339; the text says which form is expected."""


def parse_rfc3339(text: object) -> float:
    """Seconds since the epoch. Raises InvalidTimestamp; an offset is required (RFC 3339 section 5.6)."""
    problem = InvalidTimestamp("expected a time of RFC 3339 with an offset, such as 2026-01-31T08:00:00Z")
    if not isinstance(text, str) or len(text) > 64 or (match := _FORM.fullmatch(text)) is None:
        raise problem
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, offset_hour, offset_minute = match.groups()[6:]
    # RFC 3339 section 5.6 allows the leap second; POSIX time has none, so it is the second after.
    leap = 1 if second == 60 else 0
    offset = 0
    if sign is not None:
        if int(offset_hour) > 23 or int(offset_minute) > 59:
            raise problem
        offset = (int(offset_hour) * 60 + int(offset_minute)) * (60 if sign == "+" else -60)
    try:
        whole = datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC).timestamp()
    except ValueError:
        raise problem from None
    return whole + leap - offset + (int(fraction.ljust(9, "0")) / 1e9 if fraction else 0.0)


def format_rfc3339(seconds: float) -> str:
    """UTC with whole seconds (cut, not rounded), the form of Kubernetes' own times."""
    return datetime.fromtimestamp(seconds // 1, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
