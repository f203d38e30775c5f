"""What a newer CRD refuses or forgets of what an older one of the same version took: nothing may, within one version.

python -m keyturn_dev.crd_compatibility             # holds crds/ against every release and names what is narrower
python -m keyturn_dev.crd_compatibility record      # keeps crds/ as those of the project's present version, when it is released

A release's CRDs lie in tests/golden/crds/releases/<version>/. Whether a new CEL rule refuses what was accepted cannot be decided here: such
rules are listed in accepted-rules.yaml beside the releases, each with the reason why nobody's object is refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import yaml

from keyturn_dev.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    Schema = Mapping[str, Any]

CRDS = PROJECT / "crds"
RELEASES = PROJECT / "tests" / "golden" / "crds" / "releases"
ACCEPTED = "accepted-rules.yaml"

_UPPER = ("maxLength", "maxItems", "maxProperties", "maximum")
_LOWER = ("minLength", "minItems", "minProperties", "minimum")
_FLAGS_THAT_REFUSE = ("uniqueItems", "exclusiveMaximum", "exclusiveMinimum", "x-kubernetes-embedded-resource")
_FLAGS_THAT_ALLOW = ("nullable", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string")
# Whoever holds on to these when they are there may let go of them, but not bring in others.
_REMOVABLE = ("pattern", "format", "multipleOf", "not", "allOf", "anyOf", "oneOf")
# Merging and defaulting follow these: another value gives the same manifest another meaning.
_FIXED = ("default", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type")
_FOR_PEOPLE = ("description", "title", "example", "externalDocs")
_WALKED = ("type", "enum", "required", "properties", "items", "additionalProperties", "x-kubernetes-validations")
_KNOWN = frozenset(
    (*_UPPER, *_LOWER, *_FLAGS_THAT_REFUSE, *_FLAGS_THAT_ALLOW, *_REMOVABLE, *_FIXED, *_FOR_PEOPLE, *_WALKED)
)


@dataclasses.dataclass(frozen=True)
class NewRule:
    """A CEL rule that an older release did not have."""

    path: str
    rule: str


def narrowed(old: Schema, new: Schema, path: str = "") -> Iterator[str]:
    """Name everything that `new` refuses or drops of what `old` took, each as `path: what`. CEL rules: see `new_rules`."""
    here = path or "the object"
    yield from (f"{here}: {what}" for what in (*_types(old, new), *_bounds(old, new), *_others(old, new)))
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, part in before.items():
        below = f"{path}.{name}".lstrip(".")
        if name in after:
            yield from narrowed(part, after[name], below)
        else:
            yield f"{below}: is gone"
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        # The API server fills a default in before it validates.
        if "default" not in after.get(name, {}):
            yield f"{path}.{name}".lstrip(".") + ": is required now"
    yield from _nested(old, new, "items", f"{path}[]")
    yield from _nested(old, new, "additionalProperties", f"{path}{{}}")


def _nested(old: Schema, new: Schema, keyword: str, path: str) -> Iterator[str]:
    before, after = old.get(keyword), new.get(keyword)
    if isinstance(before, dict) and isinstance(after, dict):
        yield from narrowed(before, after, path)
    elif before not in (None, False) and after in (None, False):
        yield f"{path}: is gone"
    elif before is True and after is not True:
        yield f"{path}: takes no longer everything"
    elif before is None and after not in (None, True) and keyword == "items":
        yield f"{path}: is restricted now"


def _types(old: Schema, new: Schema) -> Iterator[str]:
    before, after = old.get("type"), new.get("type")
    # Each integer is a number.
    if before != after and after is not None and (before, after) != ("integer", "number"):
        yield f"the type was {before or 'any'} and is {after}"
    if "enum" in new:
        if "enum" not in old:
            yield "only some values are allowed now"
        elif missing := [one for one in old["enum"] if one not in new["enum"]]:
            yield f"the values {json.dumps(missing)} are not allowed any more"


def _bounds(old: Schema, new: Schema) -> Iterator[str]:
    for keyword in _UPPER:
        if keyword in new and (keyword not in old or new[keyword] < old[keyword]):
            yield f"{keyword} was {old.get(keyword, 'none')} and is {new[keyword]}"
    for keyword in _LOWER:
        if new.get(keyword, 0) > old.get(keyword, 0) or (
            keyword == "minimum" and keyword in new and keyword not in old
        ):
            yield f"{keyword} was {old.get(keyword, 'none')} and is {new[keyword]}"
    for keyword in _FLAGS_THAT_REFUSE:
        if new.get(keyword) and not old.get(keyword):
            yield f"{keyword} is set now"
    for keyword in _FLAGS_THAT_ALLOW:
        if old.get(keyword) and not new.get(keyword):
            yield f"{keyword} is not set any more"


def _others(old: Schema, new: Schema) -> Iterator[str]:
    for keyword in _REMOVABLE:
        # Which texts one pattern takes and another does not cannot be decided here, so that no change passes.
        if keyword in new and new[keyword] != old.get(keyword):
            yield f"{keyword} was {json.dumps(old.get(keyword))} and is {json.dumps(new[keyword])}"
    for keyword in _FIXED:
        if keyword in old and new.get(keyword) != old[keyword]:
            yield f"{keyword} was {json.dumps(old[keyword])} and is {json.dumps(new.get(keyword))}"
        elif keyword in new and keyword not in old:
            yield f"{keyword} is {json.dumps(new[keyword])} and was not set"
    for keyword in sorted((set(old) | set(new)) - _KNOWN):
        if old.get(keyword) != new.get(keyword):
            yield f"{keyword} has changed, and nothing here knows what that means"


def new_rules(old: Schema, new: Schema, path: str = "") -> Iterator[NewRule]:
    """Return the CEL rules of `new` at places that `old` has too, and there without them."""
    before = {_one_line(one["rule"]) for one in old.get("x-kubernetes-validations", ())}
    for one in new.get("x-kubernetes-validations", ()):
        if _one_line(one["rule"]) not in before:
            yield NewRule(path, _one_line(one["rule"]))
    for name, part in new.get("properties", {}).items():
        # A field that is new has no value in any object, so that its rules refuse none.
        if name in old.get("properties", {}):
            yield from new_rules(old["properties"][name], part, f"{path}.{name}".lstrip("."))
    for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(old.get(keyword), dict) and isinstance(new.get(keyword), dict):
            yield from new_rules(old[keyword], new[keyword], f"{path}{mark}")


def _one_line(rule: str) -> str:
    return " ".join(rule.split())


def incompatible(old: Mapping[str, Any], new: Mapping[str, Any], accepted: Collection[NewRule] = ()) -> list[str]:
    """Name all in which a CRD (the whole object) breaks with an older one. `accepted`: the new CEL rules that refuse nobody's object."""
    before, after = old["spec"], new["spec"]
    found = [f"{name} has changed" for name in ("group", "scope") if before[name] != after[name]]
    for name, value in before["names"].items():
        now = after["names"].get(name)
        kept = set(value) <= set(now or ()) if isinstance(value, list) else value == now
        if not kept:
            found.append(f"names.{name} was {json.dumps(value)} and is {json.dumps(now)}")
    versions = {one["name"]: one for one in after["versions"]}
    for one in before["versions"]:
        now = versions.get(one["name"])
        if now is None or (one["served"] and not now["served"]):
            found.append(f"{one['name']}: is not served any more")
            continue
        found += [
            f"{one['name']}: the subresource {name} is gone"
            for name in one.get("subresources", {})
            if name not in now.get("subresources", {})
        ]
        schemas = [each["schema"]["openAPIV3Schema"] for each in (one, now)]
        found += [f"{one['name']}: {what}" for what in narrowed(*schemas)]
        found += [
            f"{one['name']}: {rule.path or 'the object'}: the rule is new: {rule.rule}"
            for rule in new_rules(*schemas)
            if rule not in accepted
        ]
    return found


def accepted_rules(releases: Path = RELEASES) -> dict[str, dict[NewRule, str]]:
    """By CRD, the accepted CEL rules with their reasons: a list of `{crd, path, rule, reason}` in the file, all texts."""
    path = releases / ACCEPTED
    found: dict[str, dict[NewRule, str]] = {}
    for one in yaml.safe_load(path.read_text(encoding="utf-8")) or () if path.exists() else ():
        found.setdefault(one["crd"], {})[NewRule(one["path"], _one_line(one["rule"]))] = one["reason"]
    return found


def check(releases: Path = RELEASES, crds: Path = CRDS) -> list[str]:
    """Hold the present CRDs against those of every release; name what has been narrowed."""
    accepted = accepted_rules(releases)
    found = []
    for release in sorted(path for path in releases.glob("*") if path.is_dir()):
        for path in sorted(release.glob("*.yaml")):
            if not (crds / path.name).exists():
                found.append(f"{release.name} {path.stem}: is gone")
                continue
            old, new = (yaml.safe_load(each.read_text(encoding="utf-8")) for each in (path, crds / path.name))
            found += [
                f"{release.name} {path.stem}: {what}" for what in incompatible(old, new, accepted.get(path.stem, {}))
            ]
    return found


def record(version: str, releases: Path = RELEASES, crds: Path = CRDS) -> Path:
    """Keep the present CRDs as those of a release, for good. Raises FileExistsError when it has some already."""
    folder = releases / version
    folder.mkdir(parents=True)
    for path in sorted(crds.glob("*.yaml")):
        shutil.copyfile(path, folder / path.name)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 1 when something was narrowed, or the release has its CRDs already."""
    parser = argparse.ArgumentParser(prog="python -m keyturn_dev.crd_compatibility", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("check", "record"), default="check")
    if parser.parse_args(arguments).command == "record":
        project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
        try:
            print(record(project["project"]["version"]))
        except FileExistsError as error:
            print(f"{error.filename} exists: a release's CRDs are never written anew", file=sys.stderr)
            return 1
        return 0
    found = check()
    for one in found:
        print(one, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
