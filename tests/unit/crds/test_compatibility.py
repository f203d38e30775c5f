"""No release takes away what an earlier one of the same version took: the check itself, and the present CRDs under it."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyturn_dev.crd_compatibility import (
    ACCEPTED,
    RELEASES,
    NewRule,
    accepted_rules,
    check,
    incompatible,
    main,
    narrowed,
    new_rules,
    record,
)
from tests.crd_schemas import CRDS, PROJECT, load_crd, rules_at

S = {"type": "string"}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


NARROWER = {
    "a field is gone": (of(a=S, b=S), of(a=S), "b: is gone"),
    "a nested field is gone": (of(a=of(b=S)), of(a=of()), "a.b: is gone"),
    "a field of a list's items is gone": (
        of(a={"type": "array", "items": of(b=S)}),
        of(a={"type": "array", "items": of()}),
        "a[].b: is gone",
    ),
    "the items are gone": (
        of(a={"type": "array", "items": S}),
        of(a={"type": "array"}),
        "a[]: is gone",
    ),
    "a map's values are narrower": (
        of(a={"type": "object", "additionalProperties": S}),
        of(a={"type": "object", "additionalProperties": {**S, "maxLength": 3}}),
        "a{}: maxLength was none and is 3",
    ),
    "a map takes nothing": (
        of(a={"type": "object", "additionalProperties": S}),
        of(a={"type": "object"}),
        "a{}: is gone",
    ),
    "another type": (of(a=S), of(a={"type": "integer"}), "a: the type was string and is integer"),
    "a number must be an integer": (
        of(a={"type": "number"}),
        of(a={"type": "integer"}),
        "a: the type was number and is integer",
    ),
    "an enum": (of(a=S), of(a={**S, "enum": ["x"]}), "a: only some values are allowed now"),
    "a value less": (
        of(a={**S, "enum": ["x", "y"]}),
        of(a={**S, "enum": ["x", "z"]}),
        'a: the values ["y"] are not allowed any more',
    ),
    "a lower bound": (of(a={**S, "maxLength": 9}), of(a={**S, "maxLength": 8}), "a: maxLength was 9 and is 8"),
    "a bound where none was": (
        of(a={"type": "array", "items": S}),
        of(a={"type": "array", "items": S, "maxItems": 5}),
        "a: maxItems was none and is 5",
    ),
    "a maximum": (
        of(a={"type": "integer", "maximum": 5}),
        of(a={"type": "integer", "maximum": 4}),
        "a: maximum was 5 and is 4",
    ),
    "a minimum of nothing where none was": (
        of(a={"type": "integer"}),
        of(a={"type": "integer", "minimum": 0}),
        "a: minimum was none and is 0",
    ),
    "a negative minimum where none was": (
        of(a={"type": "integer"}),
        of(a={"type": "integer", "minimum": -5}),
        "a: minimum was none and is -5",
    ),
    "a higher minimum": (of(a={**S, "minLength": 1}), of(a={**S, "minLength": 2}), "a: minLength was 1 and is 2"),
    "a required field": (of(a=S), {**of(a=S), "required": ["a"]}, "a: is required now"),
    "a new field that is required": (of(), {**of(a=S), "required": ["a"]}, "a: is required now"),
    "another pattern": (of(a={**S, "pattern": "^a"}), of(a={**S, "pattern": "^b"}), 'a: pattern was "^a" and is "^b"'),
    "a pattern": (of(a=S), of(a={**S, "pattern": "^b"}), 'a: pattern was null and is "^b"'),
    "a format": (of(a=S), of(a={**S, "format": "date-time"}), 'a: format was null and is "date-time"'),
    "a choice": (of(a=S), {**of(a=S), "oneOf": [{}]}, "the object: oneOf was null and is [{}]"),
    "only different items": (
        of(a={"type": "array", "items": S}),
        of(a={"type": "array", "items": S, "uniqueItems": True}),
        "a: uniqueItems is set now",
    ),
    "no null": (of(a={**S, "nullable": True}), of(a=S), "a: nullable is not set any more"),
    "unknown fields are pruned": (
        of(a={"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
        of(a={"type": "object"}),
        "a: x-kubernetes-preserve-unknown-fields is not set any more",
    ),
    "another default": (of(a={**S, "default": "x"}), of(a={**S, "default": "y"}), 'a: default was "x" and is "y"'),
    "a default where none was": (of(a=S), of(a={**S, "default": "y"}), 'a: default is "y" and was not set'),
    "a list is merged otherwise": (
        of(a={"type": "array", "items": S, "x-kubernetes-list-type": "set"}),
        of(a={"type": "array", "items": S, "x-kubernetes-list-type": "atomic"}),
        'a: x-kubernetes-list-type was "set" and is "atomic"',
    ),
    "a keyword that nobody thought of": (
        of(a=S),
        of(a={**S, "x-new": 1}),
        "a: x-new has changed, and nothing here knows what that means",
    ),
}


@pytest.mark.parametrize(("old", "new", "told"), NARROWER.values(), ids=NARROWER)
def test_what_is_narrower_is_named(old: dict[str, Any], new: dict[str, Any], told: str) -> None:
    assert list(narrowed(old, new)) == [told]


WIDER = {
    "a new field": (of(a=S), of(a=S, b=S)),
    "a new field that is required and has a default": (of(), {**of(a={**S, "default": "x"}), "required": ["a"]}),
    "an optional field": ({**of(a=S), "required": ["a"]}, of(a=S)),
    "a higher bound": (of(a={**S, "maxLength": 8}), of(a={**S, "maxLength": 9})),
    "no bound": (of(a={**S, "minLength": 1, "maxLength": 8}), of(a=S)),
    "a lower minimum": (of(a={"type": "integer", "minimum": 1}), of(a={"type": "integer", "minimum": -1})),
    "more values": (of(a={**S, "enum": ["x"]}), of(a={**S, "enum": ["y", "x"]})),
    "any value": (of(a={**S, "enum": ["x"]}), of(a=S)),
    "no pattern": (of(a={**S, "pattern": "x", "format": "uuid"}), of(a=S)),
    "any number": (of(a={"type": "integer"}), of(a={"type": "number"})),
    "null": (of(a=S), of(a={**S, "nullable": True})),
    "other words": (of(a={**S, "description": "one"}), of(a={**S, "description": "other"})),
}


@pytest.mark.parametrize(("old", "new"), WIDER.values(), ids=WIDER)
def test_what_is_wider_is_no_fault(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert list(narrowed(old, new)) == []


def rule(text: str) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": text}]}


def test_rules_are_new_where_the_field_was_there_without_them() -> None:
    old = of(a={**S, **rule("self != ''")}, list={"type": "array", "items": of(b=S)})
    new = of(
        a={**S, **rule("self  !=\n''")},
        list={"type": "array", "items": of(b={**S, **rule("self != 'x'")})},
        added={**S, **rule("self != 'y'")},
    )
    assert list(new_rules(old, new)) == [NewRule("list[].b", "self != 'x'")]
    assert list(new_rules(new, old)) == []


def crd(**schema: Any) -> dict[str, Any]:
    version = {"name": "v1alpha1", "served": True, "storage": True, "subresources": {"status": {}}}
    names = {"plural": "things", "kind": "Thing", "shortNames": ["th", "tg"]}
    schema = schema or of(spec=of(a=S))
    return {
        "spec": {
            "group": "keyturn.dev",
            "scope": "Namespaced",
            "names": names,
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        }
    }


def test_of_a_whole_crd_names_versions_and_subresources_stay() -> None:
    old = crd()
    assert incompatible(old, copy.deepcopy(old)) == []
    new = copy.deepcopy(old)
    new["spec"]["names"]["shortNames"] = ["th"]
    new["spec"]["scope"] = "Cluster"
    del new["spec"]["versions"][0]["subresources"]
    assert incompatible(old, new) == [
        "scope has changed",
        'names.shortNames was ["th", "tg"] and is ["th"]',
        "v1alpha1: the subresource status is gone",
    ]
    new["spec"]["versions"][0]["served"] = False
    assert incompatible(old, new)[-1] == "v1alpha1: is not served any more"
    new["spec"]["versions"] = []
    assert incompatible(old, new)[-1] == "v1alpha1: is not served any more"


def write(folder: Path, document: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "things.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder


def test_a_new_rule_passes_only_when_it_is_listed_with_its_reason(tmp_path: Path) -> None:
    releases, crds = tmp_path / "releases", write(tmp_path / "crds", crd())
    assert record("0.1.0", releases, crds) == releases / "0.1.0"
    assert check(releases, crds) == []
    write(crds, crd(**of(spec=of(a={**S, **rule("self != 'x'")}))))
    assert check(releases, crds) == ["0.1.0 things: v1alpha1: spec.a: the rule is new: self != 'x'"]
    entry = {"crd": "things", "path": "spec.a", "rule": "self != 'x'", "reason": "nobody could have it"}
    (releases / ACCEPTED).write_text(yaml.safe_dump([entry]), encoding="utf-8")
    assert check(releases, crds) == []


def test_every_release_counts_and_none_is_recorded_twice(tmp_path: Path) -> None:
    releases, crds = tmp_path / "releases", write(tmp_path / "crds", crd(**of(spec=of(a=S, b=S))))
    record("0.1.0", releases, crds)
    write(crds, crd(**of(spec=of(a=S))))
    record("0.2.0", releases, crds)
    assert check(releases, crds) == ["0.1.0 things: v1alpha1: spec.b: is gone"]
    with pytest.raises(FileExistsError):
        record("0.2.0", releases, crds)
    (crds / "things.yaml").unlink()
    assert check(releases, crds) == ["0.1.0 things: is gone", "0.2.0 things: is gone"]


def test_our_crds_take_all_that_a_release_took(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().err == ""


def test_our_crds_would_be_found_to_break_with_a_release_that_had_more(tmp_path: Path) -> None:
    releases = tmp_path / "releases"
    (releases / "0.0.1").mkdir(parents=True)
    for plural in CRDS:
        document = copy.deepcopy(load_crd(plural))
        document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["gone"] = S
        (releases / "0.0.1" / f"{plural}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    assert check(releases) == [f"0.0.1 {plural}: v1alpha1: spec.gone: is gone" for plural in sorted(CRDS)]


def test_each_released_version_has_its_crds_kept() -> None:
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = set(re.findall(r"^## \[?(\d+\.\d+\.\d+)\]?", changes, re.MULTILINE))
    assert {path.name for path in RELEASES.glob("*") if path.is_dir()} == released


def test_each_accepted_rule_is_one_of_ours_and_has_a_reason() -> None:
    for plural, rules in accepted_rules().items():
        for one, reason in rules.items():
            assert one.rule in rules_at(plural, one.path)
            assert len(reason) > 20
