"""AccessRules from manifests on disk, read as the operator would read them from the cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from keyturn.problems import Problem
from keyturn.reasons import INVALID_SPEC
from keyturn.rules.conflicts import Conflict, find_conflicts
from keyturn.rules.parse import parse_rule
from keyturn.rules.table import RouteTable, enforced

from .access_rule import beyond_bounds
from .errors import CommandError, Exit
from .manifest import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from keyturn.rules.state import RuleState

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_FILES: Final = 10_000
SUFFIXES: Final = (".yaml", ".yml", ".json")

_STEP: Final = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class InvalidRule:
    """One mistake in a manifest: where it stands (1-based line) and what it is."""

    file: str
    line: int
    rule: str
    problem: Problem

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.problem} ({self.problem.reason})"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules read, compiled as a replica of the API compiles them. An invalid rule is in it: it is closed, as a new one is."""

    table: RouteTable
    count: int
    invalid: tuple[InvalidRule, ...] = ()
    conflicts: dict[str, list[Conflict]] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not self.invalid and not self.conflicts


def load_rules(paths: Sequence[Path], *, namespace: str = "default", enforce_audit: bool = False) -> RuleSet:
    """Reads files, and folders with all that is below them. Objects of other kinds are passed over.

    `namespace` is for manifests that name none. With `enforce_audit` rules under Audit are taken as if they were in force.

    Raises:
        CommandError: a file can't be read, is no YAML, or no AccessRule is found at all.
    """
    rules: list[tuple[str, RuleState]] = []
    invalid: list[InvalidRule] = []
    places: dict[str, str] = {}
    for path in _files(paths):
        for node in _documents(path):
            manifest = _value(node, path)
            if not isinstance(manifest, dict) or manifest.get("kind") != "AccessRule":
                continue
            ref, state, problems = _rule(manifest, namespace)
            first = places.setdefault(ref, f"{path}:{_line(node, '')}")
            if first != f"{path}:{_line(node, '')}":
                problems.append(Problem(INVALID_SPEC, "metadata.name", f"{first} has the same namespace and name"))
            invalid.extend(InvalidRule(str(path), _line(node, problem.field), ref, problem) for problem in problems)
            rules.append((ref, enforced(state) if enforce_audit else state))
    if not rules:
        named = ", ".join(str(path) for path in paths)
        raise CommandError(
            f"There is no AccessRule in {named}.", "Name files or folders that hold AccessRule manifests.", Exit.USAGE
        )
    return RuleSet(RouteTable.build(rules), len(rules), tuple(invalid), find_conflicts(dict(rules)))


def read_text(path: Path, *, limit: int = MAX_FILE_BYTES) -> str:
    """A file's text. Raises CommandError where it can't be read, is too long, or is not UTF-8."""
    try:
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise unusable(path, error.strerror or "it can't be read") from None
    if len(content) > limit:
        raise unusable(path, f"it is longer than {limit} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise unusable(path, "it is not UTF-8") from None


def read_yaml(path: Path) -> Any:
    """The one document of a YAML file. Raises CommandError."""
    nodes = list(_nodes(path))
    if len(nodes) != 1:
        raise unusable(path, "it must hold one YAML document")
    return _value(nodes[0], path)


def unusable(path: Path, cause: str) -> CommandError:
    return CommandError(f"{path} can't be used: {cause}.", "", Exit.USAGE)


def _files(paths: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(
                sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
            )
        else:
            found[path] = None
    if len(found) > MAX_FILES:
        raise CommandError(f"There are more than {MAX_FILES} files to read.", "Name a smaller folder.", Exit.USAGE)
    return list(found)


def _documents(path: Path) -> Iterator[yaml.Node]:
    """The objects of a file; those of a List one by one."""
    for node in _nodes(path):
        kind, items = _member(node, "kind"), _member(node, "items")
        if isinstance(items, yaml.SequenceNode) and kind is not None and str(kind.value).endswith("List"):
            yield from items.value
        else:
            yield node


def _nodes(path: Path) -> Iterator[yaml.Node]:
    text = read_text(path)
    try:
        yield from yaml.compose_all(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark
        where = "" if at is None else f" at line {at.line + 1}, column {at.column + 1}"
        raise unusable(path, f"it is no YAML{where}") from None
    except (yaml.YAMLError, RecursionError):
        raise unusable(path, "it is no YAML") from None


def _value(node: yaml.Node, path: Path) -> Any:
    if (line := _doubled(node)) is not None:
        raise unusable(path, f"a member stands twice in one object, at line {line}")
    constructor = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise unusable(path, "it holds something that is no plain data") from None


def _doubled(root: yaml.Node) -> int | None:
    """The line of a member that stands twice in one object: readers differ in which one they take."""
    pending, seen = [root], {id(root)}
    while pending:
        node = pending.pop()
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in names:
                        return int(key.start_mark.line) + 1
                    names.add(key.value)
                children.extend((key, value))
        elif isinstance(node, yaml.SequenceNode):
            children.extend(node.value)
        for child in children:
            if id(child) not in seen:
                seen.add(id(child))
                pending.append(child)
    return None


def _rule(manifest: dict[str, Any], namespace: str) -> tuple[str, RuleState, list[Problem]]:
    metadata, spec = manifest.get("metadata"), manifest.get("spec")
    problems: list[Problem] = []
    if manifest.get("apiVersion") != API_VERSION:
        problems.append(Problem(INVALID_SPEC, "apiVersion", f"It must be {API_VERSION}"))
    name: Any = None
    if isinstance(metadata, dict):
        name = metadata.get("name")
        if isinstance(metadata.get("namespace"), str):
            namespace = metadata["namespace"]
    if not isinstance(name, str) or not name:
        problems.append(Problem(INVALID_SPEC, "metadata.name", "The object needs a name"))
        name = "?"
    if not isinstance(spec, dict):
        problems.append(Problem(INVALID_SPEC, "spec", "The object needs a spec"))
        spec = {}
    state, found = parse_rule(spec, None)
    return f"{namespace}/{name}", state, [*problems, *found, *beyond_bounds(spec)]


def _member(node: yaml.Node, name: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == name and isinstance(value, yaml.Node):
                return value
    return None


def _line(node: yaml.Node, field: str) -> int:
    """The line of a field such as `spec.routes[2].expression`, or of the nearest part around it that is there."""
    for name, index in _STEP.findall(field):
        child: yaml.Node | None = None
        if name:
            child = _member(node, name)
        elif isinstance(node, yaml.SequenceNode) and int(index) < len(node.value):
            child = node.value[int(index)]
        if child is None:
            break
        node = child
    return int(node.start_mark.line) + 1
