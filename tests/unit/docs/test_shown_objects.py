"""Whatever object a reader copies from a document or from `examples` is taken as it stands."""

from typing import Any

import pytest

from keyturn.clients.parse import parse_client
from keyturn.problems import Problem
from keyturn.rules.parse import parse_rule
from keyturn_operator.signing_key_spec import parse_spec
from tests.crd_schemas import schema_of
from tests.documents import shown_objects
from tests.unit.docs.schema_check import faults

SHOWN = dict(shown_objects())
PLURALS = {"ClientCredential": "clientcredentials", "SigningKey": "signingkeys", "AccessRule": "accessrules"}


def problems(shown: dict[str, Any]) -> list[Problem]:
    spec, name = shown["spec"], shown["metadata"]["name"]
    if shown["kind"] == "ClientCredential":
        return parse_client(spec, namespace="team", name=name, created_at=0.0, last=None)[1]
    if shown["kind"] == "AccessRule":
        return parse_rule(spec, None)[1]
    return parse_spec(spec, name=name)[1]


def test_each_kind_is_shown_in_the_readme_or_the_examples() -> None:
    assert {shown["kind"] for shown in SHOWN.values()} == set(PLURALS)


@pytest.mark.parametrize("place", SHOWN)
def test_a_shown_object_fits_the_schema_of_its_kind(place: str) -> None:
    assert list(faults(schema_of(PLURALS[SHOWN[place]["kind"]]), SHOWN[place])) == []


@pytest.mark.parametrize("place", SHOWN)
def test_a_shown_object_is_parsed_without_a_problem(place: str) -> None:
    assert problems(SHOWN[place]) == []


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        pytest.param({}, "spec lacks routes", id="a missing field"),
        pytest.param({"routes": [], "rutes": []}, "spec.rutes is not known", id="an unknown field"),
        pytest.param({"routes": [{"path": 7}]}, "spec.routes[0].path is no string", id="a wrong type"),
        pytest.param(
            {"routes": [{"path": "/a", "methods": ["FETCH"]}]},
            "spec.routes[0].methods[0] is none of",
            id="a wrong value",
        ),
        pytest.param({"routes": [{"path": "a"}]}, "spec.routes[0].path does not match", id="a wrong form"),
    ],
)
def test_the_schema_check_finds(spec: dict[str, Any], fault: str) -> None:
    shown = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "AccessRule", "metadata": {"name": "x"}, "spec": spec}
    assert any(one.startswith(fault) for one in faults(schema_of("accessrules"), shown))
