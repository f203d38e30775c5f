"""What is in force while a rule's edit is invalid: the last valid state, less what the new spec no longer names or restricts.

- A route (path and method) that the new spec does not name is withdrawn; if a path in it cannot be read, it is closed instead:
  a misspelt path must not hand its requests to a wider route.
- A route that it names with another, readable condition is bound by both the old and the new one.
- A route whose condition cannot be read keeps its last form.
- A route that had no last form is closed: it denies its path and methods.
- Hosts and audiences are those of both states; nothing new is added. Where none of the new ones can be read, all is closed.
- Of two modes Enforce holds: an edit with a mistake neither takes a rule out of force nor keeps it from coming into force.
"""

from dataclasses import dataclass
from typing import Final

from keyturn.rules.state import ALL, AUDIT, ENFORCE, Condition, RouteState, RuleState

CLOSED: Final = Condition(deny="InvalidEdit")
# Each invalid edit in a row may bind a route once more; beyond this it is closed.
MAX_BINDINGS: Final = 8


@dataclass(frozen=True, slots=True)
class DraftRoute:
    """A route as far as it could be read: `methods` or `main` None where that part could not be (nor its backoffice part)."""

    path: str
    methods: tuple[str, ...] | None
    main: Condition | None
    backoffice: Condition | None
    field: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A spec as far as it could be read. Hosts and audiences: () if none are given, None if none of those given is readable.

    Where the spec holds something that this version does not know, `conditions_readable` is false: it may restrict. `complete`
    is false where a route's path could not be read: it may be any of the last state's.
    """

    hosts: tuple[str, ...] | None
    audiences: tuple[str, ...] | None
    routes: tuple[DraftRoute, ...]
    conditions_readable: bool
    complete: bool = True
    mode: str | None = ENFORCE  # None: it could not be read


def in_force(draft: Draft, last: RuleState | None) -> RuleState:
    """The state in force; applying it again to its own result changes nothing."""
    if draft.hosts is None:
        return _closed(last)
    before = last or RuleState(hosts=draft.hosts, audiences=draft.audiences or (), mode=draft.mode or ENFORCE)
    mode = AUDIT if before.mode == AUDIT and draft.mode != ENFORCE else ENFORCE
    hosts = _hosts(before.hosts, draft.hosts)
    if hosts is None:
        return RuleState()
    audiences = _narrowed(before.audiences, draft.audiences)
    routes: dict[tuple[str, str], tuple[Condition, Condition | None]] = {}
    for route in draft.routes:
        for method, parts in _route(route, before, readable=draft.conditions_readable):
            key = (route.path, method)
            routes[key] = _bound(routes[key], parts) if key in routes else parts
    if not draft.complete:
        for former in before.routes:
            for method in former.methods:
                routes.setdefault((former.path, method), (CLOSED, None))
    if audiences is None:
        routes = dict.fromkeys(routes, (CLOSED, None))
    return RuleState(hosts, audiences or (), mode, _grouped(routes))


def _closed(last: RuleState | None) -> RuleState:
    """What no readable host says where to hold: closed where it held until now, so that no rule without hosts takes over."""
    if last is None:
        return RuleState()
    routes = tuple(dict.fromkeys(RouteState(route.path, route.methods, CLOSED) for route in last.routes))
    return RuleState(last.hosts, last.audiences, last.mode, routes)


def _route(
    route: DraftRoute, last: RuleState, *, readable: bool
) -> list[tuple[str, tuple[Condition, Condition | None]]]:
    old = _by_method(route.path, last)
    named = route.methods if route.methods is not None else (*old, ALL)
    wanted = dict.fromkeys(named)
    if ALL in wanted:
        wanted |= dict.fromkeys(old)
    result: list[tuple[str, tuple[Condition, Condition | None]]] = []
    for method in wanted:
        parts = old.get(method, old.get(ALL))
        if parts is None:
            result.append((method, (CLOSED, None)))
        elif readable and route.main is not None:
            result.append((method, _bound(parts, (route.main, route.backoffice))))
        else:
            result.append((method, parts))
    return result


def _by_method(path: str, state: RuleState) -> dict[str, tuple[Condition, Condition | None]]:
    found: dict[str, tuple[Condition, Condition | None]] = {}
    for route in state.routes:
        if route.path != path:
            continue
        for method in route.methods:
            parts = (route.main, route.backoffice)
            found[method] = _bound(found[method], parts) if method in found else parts
    return found


def _bound(
    one: tuple[Condition, Condition | None], other: tuple[Condition, Condition | None]
) -> tuple[Condition, Condition | None]:
    """Both must hold, in the main part and, if either has one, in the backoffice part (which falls back to the main one)."""
    backoffice: Condition | None = None
    if one[1] is not None or other[1] is not None:
        backoffice = both(one[1] or one[0], other[1] or other[0])
    return both(one[0], other[0]), backoffice


def both(one: Condition, other: Condition) -> Condition:
    """A condition that holds when both do."""
    parts = list(dict.fromkeys((*_flat(one), *_flat(other))))
    demanding = [part for part in parts if part != Condition(public=True)] or parts
    if len(demanding) > MAX_BINDINGS or CLOSED in demanding:
        return CLOSED
    first, *rest = demanding
    return Condition(first.public, first.any_of, first.all_of, first.expression, first.deny, tuple(rest))


def _flat(condition: Condition) -> tuple[Condition, ...]:
    own = Condition(condition.public, condition.any_of, condition.all_of, condition.expression, condition.deny)
    return (own, *(part for other in condition.also for part in _flat(other)))


def _grouped(routes: dict[tuple[str, str], tuple[Condition, Condition | None]]) -> tuple[RouteState, ...]:
    methods: dict[tuple[str, tuple[Condition, Condition | None]], list[str]] = {}
    for (path, method), parts in routes.items():
        methods.setdefault((path, parts), []).append(method)
    return tuple(RouteState(path, tuple(names), *parts) for (path, parts), names in methods.items())


def _narrowed(last: tuple[str, ...], new: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The audiences of both (no audiences: any); None if nothing is left."""
    if new is None:
        return None
    if not last or not new:
        return last or new
    return tuple(audience for audience in last if audience in new) or None


def _hosts(last: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...] | None:
    """The hosts of both (no hosts: every host); None if nothing is left."""
    if not last or not new:
        return last or new
    kept = {host for host in new if _covers(last, host)} | {host for host in last if _covers(new, host)}
    return tuple(sorted(kept)) or None


def _covers(hosts: tuple[str, ...], host: str) -> bool:
    return any(host == other or (other.startswith("*.") and host.endswith(other[1:])) for other in hosts)
