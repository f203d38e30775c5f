"""Templates to HTML. Everything is escaped; what comes from objects is shown on one line, without characters that would act on it."""

from __future__ import annotations

import time
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader
from starlette.responses import HTMLResponse

from ..client_view import ago, span, until
from .rule_index import needs

if TYPE_CHECKING:
    from collections.abc import Mapping


def plain(text: object) -> str:
    """Without control characters and reversals of the writing direction: nothing can look like something else than it is."""
    return "".join(" " if unicodedata.category(one)[0] == "C" else one for one in str(text))


def visible(text: str) -> str:
    """A text of several lines, in which such characters are seen."""
    return "".join(f"\\u{ord(one):04x}" if one != "\n" and unicodedata.category(one)[0] == "C" else one for one in text)


def date(at: float | None) -> str:
    """A time as people write it, in UTC like everything in the cluster; a dash where there is none."""
    if at is None:
        return "-"
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M\u00a0UTC")


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).isoformat()


def duration(at: float | None, now: float) -> str:
    """How long ago, or how long until then."""
    if at is None:
        return "-"
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


class Pages:
    """The templates of this package."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("keyturn_cli.console"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "plain": plain,
            "visible": visible,
            "date": date,
            "iso": iso,
            "ago": ago,
            "until": until,
            "duration": duration,
            "needs": needs,
        }

    def answer(self, template: str, context: Mapping[str, Any], *, status: int = 200) -> HTMLResponse:
        text = self._environment.get_template(template).render({"now": time.time(), **context})
        return HTMLResponse(text, status)
