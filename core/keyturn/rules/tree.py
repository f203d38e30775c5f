"""The tree of all routes by path segments, and its changes, which leave the tree that requests read as it is."""

from typing import Final

from keyturn.rules import syntax
from keyturn.rules.decision import Requirement
from keyturn.rules.guard import Guard
from keyturn.rules.hosts import ANY_HOST, suffixes
from keyturn.rules.paths import Segments
from keyturn.rules.state import RuleState


class Entry:
    """A route of a rule at its place in the tree: its main part and its backoffice part."""

    __slots__ = ("backoffice", "main")

    def __init__(self, main: Requirement, backoffice: Requirement) -> None:
        self.main: Final = main
        self.backoffice: Final = backoffice


Methods = dict[str, list[Entry]]


class Node:
    __slots__ = ("hosts", "literals", "parameter", "wildcard")

    def __init__(self) -> None:
        self.literals: dict[str, Node] = {}
        self.parameter: Node | None = None
        self.wildcard: Node | None = None
        self.hosts: dict[str, Methods] = {}

    def clone(self) -> "Node":
        copy = Node()
        copy.literals = dict(self.literals)
        copy.parameter, copy.wildcard = self.parameter, self.wildcard
        copy.hosts = {
            host: {method: list(entries) for method, entries in methods.items()} for host, methods in self.hosts.items()
        }
        return copy

    def child(self, segment: str) -> "Node | None":
        if segment == syntax.PARAMETER:
            return self.parameter
        if segment == syntax.WILDCARD:
            return self.wildcard
        return self.literals.get(segment)

    def set_child(self, segment: str, node: "Node | None") -> None:
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

    def for_host(self, host: str) -> Methods | None:
        """What the closest host of this path says."""
        if (found := self.hosts.get(host)) is not None:
            return found
        if len(self.hosts) > (ANY_HOST in self.hosts):
            for suffix in suffixes(host):
                if (found := self.hosts.get(suffix)) is not None:
                    return found
        return self.hosts.get(ANY_HOST)


class Editor:
    """Changes a tree without touching the one that requests read: a node is copied before it is changed for the first time."""

    def __init__(self, root: Node) -> None:
        self.root = root.clone()
        self._own: set[Node] = {self.root}

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
                    entries.append(Entry(main, backoffice))
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

    def _path(self, segments: Segments) -> list[Node]:
        """The nodes from the root to a place, made or copied so that they may be changed."""
        path = [self.root]
        for segment in segments:
            child = path[-1].child(segment)
            if child not in self._own:
                child = Node() if child is None else child.clone()
                self._own.add(child)
                path[-1].set_child(segment, child)
            path.append(child)
        return path
