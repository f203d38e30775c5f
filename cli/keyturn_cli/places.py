"""Places of routes: what a configuration's path stands for, and which other one a request of it may find."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from keyturn.rules import syntax

# What is decoded once may still separate, or be decoded again.
_SEVERAL: Final = re.compile(r"[/\\%]")

Place = tuple[str, ...]
"""A path's segments, parameters without their names."""


def rank(place: Place) -> tuple[int, tuple[int, ...]]:
    """Sorts places as requests look for them: most segments first, then from the left literals, parameters, the wildcard."""
    kinds = tuple(1 if part == syntax.PARAMETER else 2 if part == syntax.WILDCARD else 0 for part in place)
    return -len(place), kinds


def falls_back(place: Place, other: Place) -> bool:
    """Whether a request may match both places and look at `other` later."""
    variable = (syntax.PARAMETER, syntax.WILDCARD)
    return rank(other) > rank(place) and all(
        one == two or one in variable or two in variable for one, two in zip(place, other, strict=False)
    )


def may_cover(place: Place, path: str) -> bool:
    """Whether a place may cover requests of a path that can't be written, as far as it can be told what the path means."""
    parts = [part for part in path.partition("?")[0].partition("#")[0].split("/") if part]
    if any(unquote(part) in (".", "..") for part in parts):
        return True
    for index, segment in enumerate(place):
        if index == len(parts):
            return False
        own = parts[index]
        decoded = unquote(own)
        if syntax.WILDCARD in own or _SEVERAL.search(decoded):
            # Perhaps several segments, perhaps none.
            return True
        meanings = (own, decoded, decoded.partition(";")[0], syntax.PARAMETER, syntax.WILDCARD)
        if segment not in meanings and not own.startswith(syntax.PARAMETER):
            return False
    return True
