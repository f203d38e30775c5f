"""From the reference's authorization configuration to routes of AccessRules, and what means something else with us.

    {path: {METHOD or ALL: {authorization: {expression, public}, backofficeAuthorization: {expression, public}}}}

Where the configuration leaves something open, the stricter meaning is taken and reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from keyturn.expressions import ExpressionError, compile_expression
from keyturn.rules import syntax
from keyturn.rules.state import ALL, METHODS

from .access_rule import MAX_ROUTES, MAX_TEXT_BYTES, text_bytes
from .places import Place, falls_back, may_cover, rank

# Kinds of differences; scripts read them in the report.
UNKNOWN_ROUTE: Final = "UnknownRoute"
BACKOFFICE_MISSING: Final = "BackofficeMissing"
PATH_READINGS: Final = "PathReadings"
OWN_TOKENS_NO_USERS: Final = "OwnTokensNoUsers"
METHOD_NOT_COVERED: Final = "MethodNotCovered"
SAME_PATH: Final = "SamePath"
TRAILING_SLASH: Final = "TrailingSlash"
WILDCARD: Final = "Wildcard"
PUBLIC_WITH_EXPRESSION: Final = "PublicWithExpression"
INVALID_PATH: Final = "InvalidPath"
INVALID_METHOD: Final = "InvalidMethod"
INVALID_EXPRESSION: Final = "InvalidExpression"
INVALID_AUTHORIZATION: Final = "InvalidAuthorization"
WOULD_OPEN: Final = "WouldOpen"

AUTHORIZATION: Final = "authorization"
BACKOFFICE: Final = "backofficeAuthorization"
CLOSED: Final[Mapping[str, Any]] = {"expression": "false"}
_KNOWN: Final = (AUTHORIZATION, BACKOFFICE)

# What an expression asks of users alone; texts in quotes, and members of other objects, are none of that.
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_OF_USERS: Final = re.compile(r"(?<![\w.-])(?:groups|userProperties)\b")


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that means something else with us. `lost`: it could not be converted; it was left out, or written closed.

    `path` and `method` are as the configuration writes them; both are empty where the difference is of no one place.
    """

    kind: str
    message: str
    path: str = ""
    method: str = ""
    lost: bool = False

    def __str__(self) -> str:
        place = " ".join(filter(None, (self.method, self.path)))
        return f"{self.kind}: {place}: {self.message}" if place else f"{self.kind}: {self.message}"

    def to_body(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "path": self.path or None,
            "method": self.method or None,
            "lost": self.lost,
            "message": self.message,
        }


@dataclass(slots=True)
class Conversion:
    """Routes in the form of an AccessRule's `spec.routes`, and the differences."""

    routes: list[dict[str, Any]] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not any(difference.lost for difference in self.differences)

    @property
    def would_open(self) -> bool:
        """Whether something left out would leave its requests to a wider route: then the routes must not be used."""
        return any(difference.kind == WOULD_OPEN for difference in self.differences)


def convert(configuration: Mapping[str, Any]) -> Conversion:
    """The routes for a configuration; it never raises on any JSON object."""
    converter = _Converter()
    for path, methods in configuration.items():
        converter.path(path, methods)
    return converter.finish()


def split(routes: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The routes in as many parts as the bounds of one object ask for, in the order given."""
    parts: list[list[dict[str, Any]]] = []
    size = 0
    for route in routes:
        own = text_bytes(route)
        if not parts or len(parts[-1]) == MAX_ROUTES or size + own > MAX_TEXT_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(route)
        size += own
    return parts


class _Converter:
    def __init__(self) -> None:
        self.result = Conversion()
        # By the path as it is written: its methods with their conditions.
        self.converted: dict[str, dict[str, dict[str, Any]]] = {}
        self.unwritable: list[tuple[str, tuple[str, ...]]] = []
        self.without_backoffice = 0
        self.of_users = 0

    def path(self, path: str, methods: Any) -> None:
        error = syntax.path_error(path)
        if error:
            self._differ(INVALID_PATH, f"the route was left out. {error}", path, lost=True)
            named = [name for name in methods if name in METHODS] if isinstance(methods, Mapping) else []
            self.unwritable.append((path, METHODS if not named or ALL in methods else tuple(named)))
            return
        if not isinstance(methods, Mapping):
            self._differ(
                INVALID_AUTHORIZATION, "no methods are named; the path was written closed", path, ALL, lost=True
            )
            methods = {ALL: None}
        written = self.converted.setdefault(path, {})
        for method, entry in methods.items():
            if method == ALL or method in METHODS:
                written[method] = self._entry(path, method, entry)
        for method in methods:
            if method == ALL or method in METHODS:
                continue
            meant = method.strip().upper()
            if meant in (ALL, *METHODS) and meant not in written:
                # Whether the reference took it is not known: so it is neither opened nor left to another route.
                written[meant] = dict(CLOSED)
                message = f"methods are written in capitals; {meant} was written closed"
            else:
                message = f"it was left out: a request's method is one of {', '.join(METHODS)}, others are denied"
            self._differ(INVALID_METHOD, message, path, method, lost=True)
        if path != "/" and path.endswith("/"):
            self._differ(TRAILING_SLASH, f"a trailing slash means nothing here: {path[:-1]} is covered too", path)

        if path.endswith(f"/{syntax.WILDCARD}"):
            above = path.removesuffix(f"/{syntax.WILDCARD}") or "/"
            message = (
                f"it covers what is below {_shown(above)}, not {_shown(above)} itself: name that too if it is meant"
            )
            self._differ(WILDCARD, message, path)

    def finish(self) -> Conversion:
        places = self._places()
        self._same_paths(places)
        for path, methods in self.converted.items():
            self.result.routes.extend(_routes(path, methods))
        self._methods_not_covered(places)
        self._opened(places)
        if self.without_backoffice:
            self._differ(
                BACKOFFICE_MISSING,
                f"{self.without_backoffice} entries have no {BACKOFFICE}: with isbackoffice: 1 their {AUTHORIZATION} decides",
            )
        if self.of_users:
            self._differ(
                OWN_TOKENS_NO_USERS,
                f"{self.of_users} expressions ask for groups or userProperties: with Keyturn's own tokens both are empty, "
                "the reference may have taken them from claims that such a token copies",
            )
        self._differ(
            PATH_READINGS,
            "a path that can be read in several ways (%2F, .., ;, a backslash) is decided by its strictest reading; "
            "the reference takes an encoded slash for a slash",
        )
        self._differ(
            UNKNOWN_ROUTE,
            "where no route matches, the reference answers 200 with mia-allowed: 0, Keyturn answers 403 with mia-allowed: 0",
        )
        return self.result

    def _entry(self, path: str, method: str, entry: Any) -> dict[str, Any]:
        if not isinstance(entry, Mapping):
            self._differ(INVALID_AUTHORIZATION, "it is no object; it was written closed", path, method, lost=True)
            return dict(CLOSED)
        if unknown := [name for name in entry if name not in _KNOWN]:
            message = f"{_shown(unknown[0])} is not known and may restrict; the route was written closed"
            self._differ(INVALID_AUTHORIZATION, message, path, method, lost=True)
            return dict(CLOSED)
        route = self._part(path, method, AUTHORIZATION, entry.get(AUTHORIZATION))
        if entry.get(BACKOFFICE) is None:
            self.without_backoffice += 1
        else:
            backoffice = self._part(path, method, BACKOFFICE, entry[BACKOFFICE])
            if backoffice != route:
                route = {**route, "backoffice": backoffice}
        if text_bytes({"path": path, **route}) > MAX_TEXT_BYTES:
            message = f"its texts exceed {MAX_TEXT_BYTES} bytes (an expression's count twice); it was written closed"
            self._differ(INVALID_EXPRESSION, message, path, method, lost=True)
            return dict(CLOSED)
        return route

    def _part(self, path: str, method: str, name: str, part: Any) -> dict[str, Any]:
        def closed(kind: str, message: str) -> dict[str, Any]:
            self._differ(kind, f"{name}: {message}; it was written closed", path, method, lost=True)
            return dict(CLOSED)

        if part is None:
            return closed(INVALID_AUTHORIZATION, "it is missing")
        if not isinstance(part, Mapping):
            return closed(INVALID_AUTHORIZATION, "it is no object")
        if unknown := [member for member in part if member not in ("expression", "public")]:
            return closed(INVALID_AUTHORIZATION, f"{_shown(unknown[0])} is not known and may restrict")
        public, expression = part.get("public"), part.get("expression")
        if not isinstance(public, bool | None):
            return closed(INVALID_AUTHORIZATION, "public is neither true nor false")
        if expression is None:
            return {"public": True} if public else closed(INVALID_AUTHORIZATION, "it has no condition")
        if not isinstance(expression, str):
            return closed(INVALID_EXPRESSION, "the expression is no text")
        try:
            compile_expression(expression)
        except ExpressionError as error:
            return closed(INVALID_EXPRESSION, f"{error.description}, at column {error.position}")
        if _OF_USERS.search(_QUOTED.sub('""', expression)):
            self.of_users += 1
        if not public:
            return {"expression": expression}
        if expression.strip() == "true":
            return {"public": True}
        self._differ(
            PUBLIC_WITH_EXPRESSION,
            f"{name}: both public and an expression are given; the expression decides, and a caller must be logged in",
            path,
            method,
        )
        return {"expression": expression}

    def _places(self) -> dict[Place, list[str]]:
        """The paths as written, by the place in the table that they stand for."""
        places: dict[Place, list[str]] = {}
        for path in self.converted:
            places.setdefault(syntax.segments_of(path), []).append(path)
        return places

    def _methods(self, paths: list[str]) -> set[str]:
        return {method for path in paths for method in self.converted[path]}

    def _same_paths(self, places: dict[Place, list[str]]) -> None:
        """Paths that are one here: what each of them asks of a method must hold, also what it asks of all."""
        for paths in places.values():
            for other in paths[1:]:
                message = f"it is the same path as {_shown(paths[0])} here; where they differ, both must be satisfied"
                self._differ(SAME_PATH, message, other)
            named = self._methods(paths) if len(paths) > 1 else set()
            for path in paths:
                methods = self.converted[path]
                if ALL in methods:
                    for method in named:
                        methods.setdefault(method, methods[ALL])

    def _methods_not_covered(self, places: dict[Place, list[str]]) -> None:
        """A longer path decides alone here; the reference may go on to a shorter one that names the method."""
        named = {place: self._methods(paths) for place, paths in places.items()}
        for place, methods in named.items():
            if ALL in methods or not methods:
                continue
            wider = sorted((other for other in named if falls_back(place, other)), key=rank)
            for method in METHODS:
                found = next((other for other in wider if method in named[other] or ALL in named[other]), None)
                if method not in methods and found is not None:
                    message = (
                        "the path is named without this method, so it is denied; the reference may let "
                        f"{_shown(places[found][0])} decide: add the method to this path if that is meant"
                    )
                    self._differ(METHOD_NOT_COVERED, message, places[place][0], method)

    def _opened(self, places: dict[Place, list[str]]) -> None:
        for path, methods in self.unwritable:
            for place, paths in places.items():
                named = self._methods(paths)
                if may_cover(place, path) and (ALL in named or not named.isdisjoint(methods)):
                    message = f"without this route {_shown(paths[0])} would decide its requests: mend the path first"
                    self._differ(WOULD_OPEN, message, path, lost=True)
                    break

    def _differ(self, kind: str, message: str, path: str = "", method: str = "", *, lost: bool = False) -> None:
        self.result.differences.append(Difference(kind, message, _shown(path), _shown(method), lost))


def _routes(path: str, methods: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One route for all methods that ask the same."""
    grouped: list[tuple[dict[str, Any], list[str]]] = []
    for method in (*METHODS, ALL):
        if method not in methods:
            continue
        for condition, names in grouped:
            if condition == methods[method] and method != ALL:
                names.append(method)
                break
        else:
            grouped.append((methods[method], [method]))
    return [
        {"path": path, **({} if names == [ALL] else {"methods": names}), **condition} for condition, names in grouped
    ]


def _shown(text: str) -> str:
    """A name of the configuration on one bounded line."""
    kept = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return kept if len(kept) <= 200 else f"{kept[:199]}…"
