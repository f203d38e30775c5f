"""docs/clients.md names every field that a ClientCredential may have, and every reason for which it is not ready."""

from __future__ import annotations

import ast
import re

import pytest
import yaml

from keyturn import reasons
from tests.documents import PROJECT

PAGE = (PROJECT / "docs" / "clients.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"`([A-Za-z]+)`", PAGE))
CRD = yaml.safe_load((PROJECT / "crds" / "clientcredentials.yaml").read_text(encoding="utf-8"))
SPEC = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
# The modules that judge clients, and what they share with others.
SOURCES = [
    *sorted((PROJECT / "core" / "keyturn" / "clients").glob("*.py")),
    PROJECT / "core" / "keyturn" / "jose" / "keys.py",
    *(
        PROJECT / "operator" / "keyturn_operator" / f"{name}.py"
        for name in (
            "client_status",
            "clients",
            "conditions",
            "credentials",
            "jwk_sets",
            "reconcile",
            "service_accounts",
        )
    ),
]
# Types of conditions, events of credentials, and verdicts that all is well again.
NO_REASONS_NOT_TO_BE_READY = {"NO_KEY_ENDS_SOON", "GRANT_FITS", "FETCHED"}


def reasons_used() -> set[str]:
    names = {
        node.attr
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "reasons"
    }
    return {str(getattr(reasons, name)) for name in names - NO_REASONS_NOT_TO_BE_READY if name != "WARNINGS"}


@pytest.mark.parametrize("field", sorted(SPEC))
def test_every_field_is_on_the_page(field: str) -> None:
    assert field in CODE


@pytest.mark.parametrize("reason", sorted(reasons_used()))
def test_every_reason_is_on_the_page(reason: str) -> None:
    assert reason in CODE


def test_every_reason_of_the_page_is_one() -> None:
    known = {value for value in vars(reasons).values() if isinstance(value, str)}
    said = set(
        re.findall(r"`([A-Za-z]+)`", "".join(re.findall(r"^\| (?:True|False|Unknown) \|(.*?)\|", PAGE, re.MULTILINE)))
    )
    assert len(said) > 20
    assert said <= known


def test_the_bounds_are_the_crd_s() -> None:
    assert f"up to {SPEC['permissions']['maxItems']}, 10,240 characters together" in PAGE
    assert f"tokens: up to {SPEC['audiences']['maxItems']}." in PAGE
    assert SPEC["publicKeys"]["maxItems"] == 10
