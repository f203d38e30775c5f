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
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from keyturn.rules import decision, syntax
from keyturn.rules.decision import Match, Requirement
from keyturn.rules.guard import Guard
from keyturn.rules.hosts import ANY_HOST, normal_host, suffixes
from keyturn.rules.paths import Refused, Segments, readings
from keyturn.rules.state import ALL, METHODS, RuleState

CACHE_ENTRIES: Final = 4096
# Longer ones are looked up each time, so that the cache's memory is bounded too.
MAX_CACHED_LENGTH: Final = 512

_METHODS: Final = frozenset(METHODS)
_Key = tuple[str, str | None, bytes, bool]


class _Entry:
    """A route of a rule at its place in the tree: its main part and its backoffice part."""

    __slots__ = ("backoffice", "main")

    def __init__(self, main: Requirement, backoffice: Requirement) -> None:
        self.main: Final = main
        self.backoffice: Final = backoffice


_Methods = dict[str, list[_Entry]]


class _Node:
    __slots__ = ("hosts", "literals", "parameter", "wildcard")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.wildcard: _Node | None = None
        self.hosts: dict[str, _Methods] = {}

    def clone(self) -> "_Node":
        copy = _Node()
        copy.literals = dict(self.literals)
        copy.parameter, copy.wildcard = self.parameter, self.wildcard
        copy.hosts = {
            host: {method: list(entries) for method, entries in methods.items()} for host, methods in self.hosts.items()
        }
        return copy

    def child(self, segment: str) -> "_Node | None":
        if segment == syntax.PARAMETER:
            return self.parameter
        if segment == syntax.WILDCARD:
            return self.wildcard
        return self.literals.get(segment)

    def set_child(self, segment: str, node: "_Node | None") -> None:
        if segment == syntax.PARAMETER:
            self.parameter = node
        elif segment == syntax.WILDCARD:
            self.wildcard = node
        elif node is None:
            self.literals.pop(segment, None)
        else:
            self.literals[segment] = node

    @property
    def empty(self) -> bool:
        return not (self.hosts or self.literals or self.parameter or self.wildcard)

    def for_host(self, host: str) -> _Methods | None:
        """What the closest host of this path says."""
        if (found := self.hosts.get(host)) is not None:
            return found
        if len(self.hosts) > (ANY_HOST in self.hosts):
            for suffix in suffixes(host):
                if (found := self.hosts.get(suffix)) is not None:
                    return found
        return self.hosts.get(ANY_HOST)


class RouteTable:
    """An immutable table; a change makes a new one that shares what did not change. Its cache of look-ups is bounded, its own."""

    __slots__ = ("_cache", "_root", "_rules")

    def __init__(self) -> None:
        self._root = _Node()
        self._rules: dict[str, tuple[RuleState, ...]] = {}
        self._cache: dict[_Key, Match] = {}

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
        editor = _Editor(self._root)
        for ref, states in changes.items():
            for old in table._rules.pop(ref, ()):
                editor.remove(ref, old)
            if states:
                table._rules[ref] = tuple(states)
            for state in states:
                editor.add(ref, state)
        table._root = editor.root
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
            if len(key[2]) + len(host or "") <= MAX_CACHED_LENGTH:
                if len(self._cache) >= CACHE_ENTRIES:
                    del self._cache[next(iter(self._cache))]
                self._cache[key] = found
        return found

    def _match(self, method: str, target: bytes, host: str | None, *, is_backoffice: bool) -> Match:
        read = readings(target)
        if isinstance(read, Refused):
            return decision.refused(read.description)
        # A host that cannot be read is one that is not known; two that differ are both asked.
        hosts = dict.fromkeys(normal_host(name) for name in (host, read.host) if name is not None) or {None: None}
        entries: dict[_Entry, None] = {}
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

    def _candidates(self, segments: Segments) -> list[_Node]:
        """The nodes that cover the path and hold routes, most specific first."""
        levels: list[list[_Node]] = []
        frontier = [self._root]
        levels.append(frontier)
        for segment in segments:
            following: list[_Node] = []
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


def _for_host(candidates: list[_Node], host: str, method: str) -> Collection[_Entry]:
    for node in candidates:
        methods = node.for_host(host)
        if methods is not None:
            return methods.get(method) or methods.get(ALL) or ()
    return ()


def _for_any_host(candidates: list[_Node], method: str) -> Collection[_Entry]:
    """The closest routes for each host that has any here, up to the first path that holds for every host."""
    seen: set[str] = set()
    entries: list[_Entry] = []
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


class _Editor:
    """Changes a tree without touching the one that requests read: a node is copied before it is changed for the first time."""

    def __init__(self, root: _Node) -> None:
        self.root = root.clone()
        self._own: set[_Node] = {self.root}

    def add(self, ref: str, state: RuleState) -> None:
        audiences = frozenset(state.audiences)
        for route in state.routes:
            node = self._path(syntax.segments_of(route.path))[-1]
            main = Requirement(ref, route.path, Guard(route.main), audiences)
            backoffice = main
            if route.backoffice is not None:
                backoffice = Requirement(ref, route.path, Guard(route.backoffice), audiences)
            for host in state.hosts or (ANY_HOST,):
                methods = node.hosts.setdefault(host, {})
                for method in route.methods:
                    entries = methods.setdefault(method, [])
                    entries.append(_Entry(main, backoffice))
                    # The answer names the first rule: the same one whatever the order of the changes.
                    entries.sort(key=lambda entry: entry.main.rule)

    def remove(self, ref: str, state: RuleState) -> None:
        for segments in dict.fromkeys(syntax.segments_of(route.path) for route in state.routes):
            path = self._path(segments)
            node = path[-1]
            for host in state.hosts or (ANY_HOST,):
                methods = node.hosts.pop(host, {})
                left = {
                    method: [entry for entry in entries if entry.main.rule != ref]
                    for method, entries in methods.items()
                }
                if kept := {method: entries for method, entries in left.items() if entries}:
                    node.hosts[host] = kept
            for parent, segment, child in zip(path[-2::-1], segments[::-1], path[:0:-1], strict=True):
                if not child.empty:
                    break
                parent.set_child(segment, None)

    def _path(self, segments: Segments) -> list[_Node]:
        """The nodes from the root to a place, made or copied so that they may be changed."""
        path = [self.root]
        for segment in segments:
            child = path[-1].child(segment)
            if child not in self._own:
                child = _Node() if child is None else child.clone()
                self._own.add(child)
                path[-1].set_child(segment, child)
            path.append(child)
        return path
