"""All routes of an installation, compiled for look-up: which route decides a request.

A tree by path segments, so that a look-up costs what the path is long, however many routes there are. The order in which a
request finds its route:

1. the path: the route that covers most segments of the request's (`/foo` covers `/foo/bar`, never `/foo-bar`); among equally
   long ones, from the left, a literal segment before a parameter (`:id`) before the wildcard (`*`, one or more segments at
   the end: `/a/*` does not cover `/a`);
2. the host: the exact one, then the longest `*.suffix` (any number of labels before it), then a rule without hosts;
3. the method: itself before `ALL` (GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS).

The longest path that any rule has for the host decides, and at that path the closest host: where it says nothing of the
method, the request is unknown. A shorter path, or a rule without hosts, is not asked then: a rule for a part of the paths or for
one host is written to say all about it, so falling back could only loosen it. Routes that are equal in all three are all to be
satisfied. Where a request's host is not known, the closest routes for every host must let it pass.

A rule under Audit is in none of this. What it would do is found by the table in which this one rule is in force besides those that
are: so it is told exactly what would be denied if its mode were changed, whatever other rules are under Audit at the same time.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from keyturn.rules import decision
from keyturn.rules.decision import Audit, Match, Requirement
from keyturn.rules.hosts import ANY_HOST, normal_host, suffixes
from keyturn.rules.paths import Refused, Segments, readings
from keyturn.rules.state import ALL, AUDIT, ENFORCE, METHODS, RuleState
from keyturn.rules.tree import Editor, Entry, Node

CACHE_ENTRIES: Final = 4096
# Longer ones are looked up each time, so that the cache's memory is bounded too.
MAX_CACHED_LENGTH: Final = 512

_METHODS: Final = frozenset(METHODS)
_Key = tuple[str, str | None, bytes, bool]


class RouteTable:
    """An immutable table; a change makes a new one that shares what did not change. Its cache of look-ups is bounded, its own."""

    __slots__ = ("_audited", "_cache", "_root", "_rules", "_shadows")

    def __init__(self) -> None:
        self._root = Node()
        self._rules: dict[str, tuple[RuleState, ...]] = {}
        self._cache: dict[_Key, Match] = {}
        # The rules under Audit alone, to find those that cover a request; None where there are none.
        self._audited: RouteTable | None = None
        self._shadows: dict[str, RouteTable] = {}

    @classmethod
    def build(cls, rules: Iterable[tuple[str, RuleState]]) -> "RouteTable":
        """From (`namespace/name`, state in force) of every rule; the order does not matter.

        A name may stand twice, as when an object was made again and its former row is not gone yet: both hold.
        """
        named: dict[str, tuple[RuleState, ...]] = {}
        for ref, state in rules:
            named[ref] = (*named.get(ref, ()), state)
        return cls().updated(named)

    def updated(self, changes: Mapping[str, Sequence[RuleState]]) -> "RouteTable":
        """A new table in which each name given has these states in force and no others (an empty sequence: it is removed).

        It costs what the change is large; this table stays as it is.
        """
        table = RouteTable()
        table._rules = dict(self._rules)
        editor = Editor(self._root)
        audited: dict[str, list[RuleState]] = {}
        for ref, states in changes.items():
            for old in table._rules.pop(ref, ()):
                if old.mode == AUDIT:
                    audited.setdefault(ref, [])
                else:
                    editor.remove(ref, old)
            if states:
                table._rules[ref] = tuple(states)
            for state in states:
                if state.mode == AUDIT:
                    audited.setdefault(ref, []).append(enforced(state))
                else:
                    editor.add(ref, state)
        table._root = editor.root
        table._audited = self._audited
        if audited:
            changed = (self._audited or RouteTable()).updated(audited)
            table._audited = changed if changed.rules else None
        return table

    @property
    def rules(self) -> Mapping[str, tuple[RuleState, ...]]:
        """The states that the table was made of, by `namespace/name`."""
        return MappingProxyType(self._rules)

    def match(self, method: str, target: bytes, host: str | None, *, is_backoffice: bool = False) -> Match:
        """The routes that decide a request, over all readings of its path; no token is needed for it. Never raises.

        `target` is the raw request target, `host` the request's host as received (None: not known).
        """
        if method not in _METHODS:
            return decision.unknown("No rule covers this method")
        key = (method, host, target.partition(b"?")[0], is_backoffice)
        found = self._cache.get(key)
        if found is None:
            found = self._match(method, target, host, is_backoffice=is_backoffice)
            if self._audited is not None:
                found = replace(
                    found,
                    audits=tuple(
                        Audit(ref, self.shadow(ref)._match(method, target, host, is_backoffice=is_backoffice))
                        for ref in self._audited._covering(target, host)
                    ),
                )
            if len(key[2]) + len(host or "") <= MAX_CACHED_LENGTH:
                if len(self._cache) >= CACHE_ENTRIES:
                    del self._cache[next(iter(self._cache))]
                self._cache[key] = found
        return found

    def shadow(self, ref: str) -> "RouteTable":
        """The table in which this rule under Audit is in force as well, and no other that is not."""
        found = self._shadows.get(ref)
        if found is None:
            assert self._audited is not None
            found = RouteTable()
            editor = Editor(self._root)
            for state in self._audited.rules[ref]:
                editor.add(ref, state)
            found._root = editor.root
            self._shadows[ref] = found
        return found

    def _covering(self, target: bytes, host: str | None) -> list[str]:
        """The rules with a path over some reading of the request, for its host, whatever the method."""
        read = readings(target)
        if isinstance(read, Refused):
            return []
        hosts = hosts_of(host, read.host)
        refs: set[str] = set()
        for segments in read.readings:
            for node in self._candidates(segments):
                for name in hosts:
                    # All that could count for the host, not the closest alone: each rule is looked at by itself.
                    places = node.hosts if name is None else (name, *suffixes(name), ANY_HOST)
                    for place in places:
                        for entries in node.hosts.get(place, {}).values():
                            refs.update(entry.main.rule for entry in entries)
        return sorted(refs)

    def _match(self, method: str, target: bytes, host: str | None, *, is_backoffice: bool) -> Match:
        read = readings(target)
        if isinstance(read, Refused):
            return decision.refused(read.description)
        hosts = hosts_of(host, read.host)
        entries: dict[Entry, None] = {}
        for segments in read.readings:
            candidates = self._candidates(segments)
            for name in hosts:
                found = _for_any_host(candidates, method) if name is None else _for_host(candidates, name, method)
                if not found:
                    return decision.unknown()
                entries.update(dict.fromkeys(found))
        parts = dict.fromkeys(entry.backoffice if is_backoffice else entry.main for entry in entries)
        return decision.matched(tuple(parts))

    def requirements(
        self, method: str, segments: Segments, host: str | None, *, is_backoffice: bool = False
    ) -> tuple[Requirement, ...]:
        """What one reading of a path asks, for one host in normal form (None: not known); nothing where no route covers it.

        For explanations: a request is decided by `match`, over all its readings and hosts.
        """
        candidates = self._candidates(segments)
        found = _for_any_host(candidates, method) if host is None else _for_host(candidates, host, method)
        return tuple(dict.fromkeys(entry.backoffice if is_backoffice else entry.main for entry in found))

    def _candidates(self, segments: Segments) -> list[Node]:
        """The nodes that cover the path and hold routes, most specific first."""
        levels: list[list[Node]] = []
        frontier = [self._root]
        levels.append(frontier)
        for segment in segments:
            following: list[Node] = []
            for node in frontier:
                if (literal := node.literals.get(segment)) is not None:
                    following.append(literal)
                if node.parameter is not None:
                    following.append(node.parameter)
                if node.wildcard is not None:
                    following.append(node.wildcard)
            if not following:
                break
            levels.append(following)
            frontier = following
        return [node for level in reversed(levels) for node in level if node.hosts]


def enforced(state: RuleState) -> RuleState:
    """The same rule in force."""
    return replace(state, mode=ENFORCE)


def hosts_of(host: str | None, absolute: str | None) -> Collection[str | None]:
    """A host that cannot be read is one that is not known; two that differ are both asked."""
    return dict.fromkeys(normal_host(name) for name in (host, absolute) if name is not None) or (None,)


def _for_host(candidates: list[Node], host: str, method: str) -> Collection[Entry]:
    for node in candidates:
        methods = node.for_host(host)
        if methods is not None:
            return methods.get(method) or methods.get(ALL) or ()
    return ()


def _for_any_host(candidates: list[Node], method: str) -> Collection[Entry]:
    """The closest routes for each host that has any here, up to the first path that holds for every host."""
    seen: set[str] = set()
    entries: list[Entry] = []
    for node in candidates:
        # Sorted, so that the answer names the same rule whatever the order of the changes.
        for host in sorted(node.hosts.keys() - seen):
            seen.add(host)
            methods = node.hosts[host]
            found = methods.get(method) or methods.get(ALL)
            if not found:
                return ()
            entries.extend(found)
        if ANY_HOST in node.hosts:
            break
    return entries
