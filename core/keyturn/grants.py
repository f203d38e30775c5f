"""What each namespace may use of an installation that watches more than its own: nothing, unless a grant names it.

The release's own namespace is bound by nothing here: whoever may edit its objects administers the project.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from keyturn import reasons
from keyturn.clients.state import ClientState
from keyturn.problems import Problem
from keyturn.rules.state import RuleState

_MEMBERS: Final = frozenset({"namespace", "permissions", "audiences", "customClaims", "hosts", "paths"})
_MAX_PATTERNS: Final = 500
_MAX_NAMED: Final = 5


class InvalidGrants(ValueError):
    """The installation's grants cannot be read; the text names the place."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Patterns of permissions, audiences and custom claims, in which `*` stands for any characters; hosts as rules write them (`*`: any,
    and rules without a host); path prefixes, on segments.
    """

    permissions: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    custom_claims: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @classmethod
    def from_body(cls, body: Mapping[str, Any], *, where: str) -> Self:
        """Reads one entry; what several entries of a namespace name adds up. Raises `InvalidGrants`."""
        unknown = set(body) - _MEMBERS
        if unknown:
            raise InvalidGrants(f"{where}: there is no member {min(unknown)!r}")
        return cls(
            permissions=_patterns(body, "permissions", where),
            audiences=_patterns(body, "audiences", where),
            custom_claims=_patterns(body, "customClaims", where),
            hosts=tuple(host.lower() for host in _patterns(body, "hosts", where)),
            paths=_patterns(body, "paths", where),
        )

    def __or__(self, other: "Grant") -> "Grant":
        return Grant(
            permissions=self.permissions + other.permissions,
            audiences=self.audiences + other.audiences,
            custom_claims=self.custom_claims + other.custom_claims,
            hosts=self.hosts + other.hosts,
            paths=self.paths + other.paths,
        )


def _patterns(body: Mapping[str, Any], member: str, where: str) -> tuple[str, ...]:
    values = body.get(member, [])
    if (
        not isinstance(values, list)
        or len(values) > _MAX_PATTERNS
        or not all(isinstance(one, str) and one for one in values)
    ):
        raise InvalidGrants(f"{where}.{member} must be a list of at most {_MAX_PATTERNS} texts")
    if member == "paths" and not all(one.startswith("/") for one in values):
        raise InvalidGrants(f"{where}.paths must begin with a slash")
    return tuple(values)


class Grants:
    """All grants of an installation. `home`: its own namespace."""

    def __init__(self, home: str, granted: Mapping[str, Grant] | None = None) -> None:
        self._home = home
        self._granted = dict(granted or {})

    @classmethod
    def read(cls, home: str, document: object) -> Self:
        """Reads the list of grants, plain JSON. Raises `InvalidGrants`."""
        if not isinstance(document, list):
            raise InvalidGrants("grants must be a list")
        granted: dict[str, Grant] = {}
        for number, entry in enumerate(document):
            where = f"grants[{number}]"
            namespace = entry.get("namespace") if isinstance(entry, dict) else None
            if not isinstance(namespace, str) or not namespace:
                raise InvalidGrants(f"{where} must name a namespace")
            granted[namespace] = granted.get(namespace, Grant()) | Grant.from_body(entry, where=where)
        return cls(home, granted)

    def of(self, namespace: str) -> Grant | None:
        """What binds a namespace; None: nothing does."""
        return None if namespace == self._home else self._granted.get(namespace, Grant())


def bound_client(state: ClientState, grant: Grant | None) -> tuple[ClientState, list[Problem]]:
    """The client without what its namespace may not use, and what that was."""
    if grant is None:
        return state, []
    problems: list[Problem] = []
    kept: dict[str, Any] = {}
    for member, field, patterns in (
        ("permissions", "spec.permissions", grant.permissions),
        ("audiences", "spec.audiences", grant.audiences),
        ("allowed_custom_claims", "spec.allowedCustomClaims", grant.custom_claims),
    ):
        values: tuple[str, ...] = getattr(state, member)
        fits = _matcher(patterns)
        outside = [value for value in values if not fits(value)]
        if outside:
            kept[member] = tuple(value for value in values if fits(value))
            problems.append(_not_granted(field, outside))
    if state.introspection != "own":
        # Others' tokens belong to other namespaces too.
        kept["introspection"] = "own"
        problems.append(_not_granted("spec.introspection", [state.introspection]))
    if "audiences" in kept and not kept["audiences"]:
        # A client without audiences is good for the issuer itself: nothing that it asked for, and not harmless. It gets no token.
        kept["suspended"] = True
    return dataclasses.replace(state, **kept), problems


def bound_rule(state: RuleState, grant: Grant | None) -> tuple[RuleState, list[Problem]]:
    """The rule without the hosts and routes that its namespace may not decide, and what that was."""
    if grant is None:
        return state, []
    problems: list[Problem] = []
    hosts = tuple(host for host in state.hosts if any(_covers(pattern, host) for pattern in grant.hosts))
    outside = [host for host in state.hosts if host not in hosts]
    if not state.hosts and "*" not in grant.hosts:
        outside = ["every host"]
    if outside:
        problems.append(_not_granted("spec.hosts", outside))
    prefixes = [_segments(path) for path in grant.paths]
    routes = tuple(
        route for route in state.routes if any(_segments(route.path)[: len(prefix)] == prefix for prefix in prefixes)
    )
    if len(routes) < len(state.routes):
        problems.append(_not_granted("spec.routes", [route.path for route in state.routes if route not in routes]))
    if outside and not hosts:
        # Without hosts a rule would hold for all of them.
        routes = ()
    return dataclasses.replace(state, hosts=hosts, routes=routes), problems


def _covers(pattern: str, host: str) -> bool:
    if pattern in ("*", host):
        return True
    return pattern.startswith("*.") and host.removeprefix("*").endswith(pattern[1:])


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]


def _matcher(patterns: Iterable[str]) -> Any:
    joined = "|".join(".*".join(re.escape(part) for part in pattern.split("*")) for pattern in patterns)
    compiled = re.compile(joined, re.DOTALL) if joined else None
    return lambda value: compiled is not None and compiled.fullmatch(value) is not None


def _not_granted(field: str, values: Sequence[str]) -> Problem:
    named = ", ".join(values[:_MAX_NAMED]) + (
        f" and {len(values) - _MAX_NAMED} more" if len(values) > _MAX_NAMED else ""
    )
    return Problem(
        reasons.NOT_GRANTED, field, f"this namespace may not use {named}: the installation's grants say what it may"
    )
