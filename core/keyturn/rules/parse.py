"""From an AccessRule's spec to what is in force of it, and what its author has to mend.

A valid spec is in force as it stands. Of an invalid one the last valid state stays in force, less what the new spec no longer
names or restricts (`keyturn.rules.invalid`), so that a mistake neither opens a path nor keeps open what was taken away.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from keyturn import reasons
from keyturn.expressions import ExpressionError, compile_expression
from keyturn.problems import Problem
from keyturn.rules import syntax
from keyturn.rules.invalid import Draft, DraftRoute, in_force
from keyturn.rules.state import ALL, ENFORCE, METHODS, MODES, Condition, RouteState, RuleState

MAX_ROUTES: Final = 1000
MAX_HOSTS: Final = 100
MAX_AUDIENCES: Final = 100
MAX_PERMISSIONS: Final = 100

_SPEC: Final = ("hosts", "audiences", "mode", "routes")
_CONDITION: Final = ("public", "permissions", "expression")
_ROUTE: Final = ("path", "methods", "backoffice", *_CONDITION)
_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,512}")


def parse_rule(spec: Mapping[str, Any], last: RuleState | None) -> tuple[RuleState, list[Problem]]:
    """The state in force and the problems (none: the spec is valid).

    `last` is the state in force before, or None where there is none: then an invalid rule is closed, it denies the hosts,
    paths and methods that it names. It never raises on any JSON. Reasons: InvalidSpec, InvalidPath, InvalidExpression,
    UnsupportedField.
    """
    parser = _Parser()
    draft = parser.rule(spec)
    if parser.problems:
        return in_force(draft, last), parser.problems
    routes = tuple(
        RouteState(route.path, route.methods, route.main, route.backoffice)
        for route in draft.routes
        if route.main is not None and route.methods is not None
    )
    return RuleState(draft.hosts or (), draft.audiences or (), draft.mode or ENFORCE, routes), []


class _Parser:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def rule(self, spec: Mapping[str, Any]) -> Draft:
        readable = self._known(spec, _SPEC, "spec")
        mode = spec.get("mode", ENFORCE)
        if mode not in MODES:
            self._problem(reasons.UNSUPPORTED_FIELD, "spec.mode", f"This version knows the modes {' and '.join(MODES)}")
            mode, readable = None, False
        hosts = self._hosts(spec)
        audiences = self._audiences(spec)
        routes: list[DraftRoute] = []
        listed = self._list(spec.get("routes"), "spec.routes", MAX_ROUTES, empty=False)
        complete = isinstance(spec.get("routes"), list | tuple) and len(spec["routes"]) <= MAX_ROUTES
        for index, route in listed:
            drafted = self._route(route, f"spec.routes[{index}]")
            if drafted is None:
                complete = False
            else:
                routes.append(drafted)
        return Draft(hosts, audiences, tuple(routes), readable, complete, mode)

    def _hosts(self, spec: Mapping[str, Any]) -> tuple[str, ...] | None:
        if spec.get("hosts") is None:
            return ()
        hosts: list[str] = []
        for index, host in self._list(spec["hosts"], "spec.hosts", MAX_HOSTS):
            error = syntax.host_error(host) if isinstance(host, str) else "A host is a text"
            if error:
                self._problem(reasons.INVALID_SPEC, f"spec.hosts[{index}]", error)
            else:
                hosts.append(host)
        return _given(hosts, spec["hosts"])

    def _audiences(self, spec: Mapping[str, Any]) -> tuple[str, ...] | None:
        if spec.get("audiences") is None:
            return ()
        audiences: list[str] = []
        for index, audience in self._list(spec["audiences"], "spec.audiences", MAX_AUDIENCES):
            if isinstance(audience, str) and _VISIBLE.fullmatch(audience):
                audiences.append(audience)
            else:
                self._problem(
                    reasons.INVALID_SPEC,
                    f"spec.audiences[{index}]",
                    "An audience is a text of 1 to 512 visible ASCII characters",
                )
        return _given(audiences, spec["audiences"])

    def _route(self, route: Any, field: str) -> DraftRoute | None:
        if not isinstance(route, Mapping):
            self._problem(reasons.INVALID_SPEC, field, "A route is an object")
            return None
        readable = self._known(route, _ROUTE, field)
        path = route.get("path")
        error = syntax.path_error(path) if isinstance(path, str) else "A route needs a path"
        if error:
            self._problem(reasons.INVALID_PATH, f"{field}.path", error)
        methods = self._methods(route, field)
        main = self._condition(route, field)
        backoffice: Condition | None = None
        if route.get("backoffice") is not None:
            backoffice = self._backoffice(route["backoffice"], f"{field}.backoffice")
            readable = readable and backoffice is not None
        if error or not isinstance(path, str):
            return None
        return DraftRoute(path, methods, main if readable else None, backoffice, field)

    def _backoffice(self, value: Any, field: str) -> Condition | None:
        if not isinstance(value, Mapping):
            self._problem(reasons.INVALID_SPEC, field, "backoffice is an object")
            return None
        known = self._known(value, _CONDITION, field)
        condition = self._condition(value, field)
        return condition if known else None

    def _methods(self, route: Mapping[str, Any], field: str) -> tuple[str, ...] | None:
        if route.get("methods") is None:
            return (ALL,)
        methods: list[str] = []
        before = len(self.problems)
        for index, method in self._list(route["methods"], f"{field}.methods", len(METHODS) + 1):
            if method == ALL or method in METHODS:
                methods.append(method)
            else:
                self._problem(
                    reasons.INVALID_SPEC, f"{field}.methods[{index}]", f"A method is one of {', '.join(METHODS)}, {ALL}"
                )
        if len(self.problems) > before:
            return None
        if ALL in methods or not methods:
            return (ALL,)
        return tuple(method for method in METHODS if method in methods)

    def _condition(self, value: Mapping[str, Any], field: str) -> Condition | None:
        given = [name for name in _CONDITION if value.get(name) is not None and value.get(name) is not False]
        if not isinstance(value.get("public"), bool | None):
            self._problem(reasons.INVALID_SPEC, f"{field}.public", "public is true or false")
            return None
        if len(given) != 1:
            self._problem(reasons.INVALID_SPEC, field, "Give exactly one of public: true, permissions and expression")
            return None
        match given[0]:
            case "public":
                return Condition(public=True)
            case "permissions":
                return self._permissions(value["permissions"], f"{field}.permissions")
            case _:
                return self._expression(value["expression"], f"{field}.expression")

    def _permissions(self, value: Any, field: str) -> Condition | None:
        if not isinstance(value, Mapping):
            self._problem(reasons.INVALID_SPEC, field, "permissions is an object with anyOf, allOf or both")
            return None
        before = len(self.problems)
        self._known(value, ("anyOf", "allOf"), field)
        wanted: dict[str, tuple[str, ...]] = {}
        for name in ("anyOf", "allOf"):
            if value.get(name) is None:
                continue
            names: set[str] = set()
            for index, permission in self._list(value[name], f"{field}.{name}", MAX_PERMISSIONS, empty=False):
                if isinstance(permission, str) and syntax.is_permission(permission):
                    names.add(permission)
                else:
                    self._problem(
                        reasons.INVALID_SPEC,
                        f"{field}.{name}[{index}]",
                        f'A permission has 1 to {syntax.MAX_PERMISSION_LENGTH} visible ASCII characters, neither " nor \\',
                    )
            wanted[name] = tuple(sorted(names))
        if not wanted and len(self.problems) == before:
            self._problem(reasons.INVALID_SPEC, field, "Name at least one permission in anyOf or allOf")
        if len(self.problems) > before:
            return None
        return Condition(any_of=wanted.get("anyOf", ()), all_of=wanted.get("allOf", ()))

    def _expression(self, value: Any, field: str) -> Condition | None:
        if not isinstance(value, str):
            self._problem(reasons.INVALID_EXPRESSION, field, "An expression is a text")
            return None
        try:
            compile_expression(value)
        except ExpressionError as error:
            self._problem(reasons.INVALID_EXPRESSION, field, f"{error.description}, at column {error.position}")
            return None
        return Condition(expression=value)

    def _known(self, value: Mapping[str, Any], names: tuple[str, ...], field: str) -> bool:
        unknown = [name for name in value if name not in names]
        for name in unknown:
            self._problem(
                reasons.UNSUPPORTED_FIELD, f"{field}.{str(name)[:64]}", "This version does not know this field"
            )
        return not unknown

    def _list(self, value: Any, field: str, limit: int, *, empty: bool = True) -> Iterator[tuple[int, Any]]:
        if not isinstance(value, list | tuple):
            self._problem(reasons.INVALID_SPEC, field, "A list is needed here")
            return iter(())
        if not value and not empty:
            self._problem(reasons.INVALID_SPEC, field, "At least one element is needed")
        if len(value) > limit:
            self._problem(reasons.INVALID_SPEC, field, f"At most {limit} elements")
        return enumerate(value[:limit])

    def _problem(self, reason: str, field: str, message: str) -> None:
        self.problems.append(Problem(reason, field, message))


def _given(readable: list[str], given: Any) -> tuple[str, ...] | None:
    """What was read; None where something was given and nothing of it can be read: that is not the same as nothing given."""
    if readable or given in ([], ()):
        return tuple(sorted(set(readable)))
    return None
