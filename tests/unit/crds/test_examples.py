"""The examples that a newcomer applies are valid, and leave the paths of others alone."""

from typing import Any

import pytest
import yaml

from keyturn.clients.parse import parse_client
from keyturn.clients.sources import read_sources
from keyturn.rules.parse import parse_rule
from tests.crd_schemas import PROJECT, load_crd

EXAMPLES = {
    f"{path.name}: {given['kind']} {given['metadata']['name']}": given
    for path in sorted((PROJECT / "examples").glob("*.yaml"))
    for given in yaml.safe_load_all(path.read_text(encoding="utf-8"))
}
PLURALS = {"ClientCredential": "clientcredentials", "SigningKey": "signingkeys", "AccessRule": "accessrules"}


def of_kind(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "spec", [pytest.param(given["spec"], id=name) for name, given in EXAMPLES.items() if given["kind"] == kind]
    )


@pytest.mark.parametrize("given", EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_is_of_a_served_version_and_of_any_namespace(given: dict[str, Any]) -> None:
    spec = load_crd(PLURALS[given["kind"]])["spec"]
    assert given["apiVersion"] == f"{spec['group']}/{spec['versions'][0]['name']}"
    assert "namespace" not in given["metadata"]


@of_kind("ClientCredential")
def test_an_example_client_is_valid(spec: dict[str, Any]) -> None:
    state, problems = parse_client(spec, namespace="shop", name="example", created_at=0.0, last=None)
    assert problems == []
    assert state is not None
    assert state.keys or read_sources(spec)[0].generate


@of_kind("AccessRule")
def test_an_example_rule_is_valid_and_does_not_reach_below_trials(spec: dict[str, Any]) -> None:
    state, problems = parse_rule(spec, None)
    assert problems == []
    first = {route.path.split("/")[1] for route in state.routes}
    assert first.isdisjoint({"trials", "", "*"})
    assert not any(segment.startswith(":") for segment in first)


def test_there_is_an_example_of_each_kind() -> None:
    assert {given["kind"] for given in EXAMPLES.values()} == set(PLURALS)
