"""Which rules contradict one another: the same host, path and method, decided differently."""

from collections.abc import Mapping
from dataclasses import dataclass

from keyturn.rules import syntax
from keyturn.rules.state import AUDIT, Condition, RuleState

_Meaning = tuple[Condition, Condition, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Conflict:
    """`others` are the rules (`namespace/name`) that decide this otherwise; a rule that contradicts itself names itself.

    `host` is empty for rules without hosts; `path` is as the rule itself writes it.
    """

    others: tuple[str, ...]
    host: str
    path: str
    method: str


def find_conflicts(rules: Mapping[str, RuleState]) -> dict[str, list[Conflict]]:
    """The contradictions of every rule that has any, sorted by host, path and method.

    Conditions are compared in their normal form, with the backoffice part that is in effect and the rule's audiences.
    Parameters of different names are the same path, and so are a path with and without a trailing slash. A rule under Audit
    decides nothing and so contradicts nothing.
    """
    places: dict[tuple[str, str, str], list[tuple[str, str, _Meaning]]] = {}
    for ref, state in sorted(rules.items()):
        if state.mode == AUDIT:
            continue
        audiences = tuple(sorted(set(state.audiences)))
        for route in state.routes:
            meaning = (route.main, route.part(is_backoffice=True), audiences)
            shape = syntax.shape(route.path)
            for host in state.hosts or ("",):
                for method in route.methods:
                    places.setdefault((host, shape, method), []).append((ref, route.path, meaning))
    found: dict[str, list[Conflict]] = {}
    for (host, _, method), routes in sorted(places.items()):
        if len({meaning for _, _, meaning in routes}) == 1:
            continue
        reported: set[str] = set()
        for ref, path, _ in routes:
            if ref in reported:
                continue
            reported.add(ref)
            own = {meaning for other, _, meaning in routes if other == ref}
            others = {other for other, _, meaning in routes if {meaning} != own}
            found.setdefault(ref, []).append(Conflict(tuple(sorted(others)), host, path, method))
    return found
