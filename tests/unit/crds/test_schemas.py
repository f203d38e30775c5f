"""The contract itself: what people read of it, that it is bounded, and that it is what the parsers read."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from keyturn.clients import parse as client_parse
from keyturn.clients import sources
from keyturn.clients.claims import RESERVED_CLAIMS
from keyturn.clients.client_id import PATTERN
from keyturn.clients.keys import FIELDS as KEY_FIELDS
from keyturn.clients.keys import MAX_KEYS
from keyturn.clients.registration import FIELDS as REGISTRATION_FIELDS
from keyturn.clients.service_account import FIELDS as ACCOUNT_FIELDS
from keyturn.clients.state import AUTH_METHODS
from keyturn.keys.state import KeyPhase
from keyturn_operator.conditions import MAX_MESSAGE
from tests.crd_schemas import CRDS, Schema, at, dearest_character, load_crd, rules_at, schema_of, walk
from tests.golden import assert_golden

MAX_OBJECT_BYTES = 80 * 1024
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
REFERENCE_MEMBERS = frozenset({"x5u", "x5c", "jku"})
# Declared only so that a rule can refuse them: no stored object has them.
REFUSED = {f"spec.publicKeys[].jwk.{member}" for member in PRIVATE_MEMBERS | REFERENCE_MEMBERS}
# Strings whose characters a CEL rule restricts: bytes of JSON for the dearest one. For a PEM file that is its line breaks.
RESTRICTED_BY_RULE = {
    "spec.clientId": 1,
    **{
        f"spec.publicKeys[].jwk.{member}": 1 for member in ("kty", "use", "alg", "crv", "key_ops[]", "n", "e", "x", "y")
    },
    "spec.publicKeys[].pem": 2,
}
# Strings whose lengths a CEL rule bounds in sum: by list, the bytes of JSON for each unit of that sum, and the strings counted.
_CONDITION = ("expression", "permissions.anyOf[]", "permissions.allOf[]")
BUDGETS = {
    "spec.publicKeys": (2, ("spec.publicKeys[].pem", "spec.publicKeys[].jwk.n")),
    "spec.permissions": (1, ("spec.permissions[]",)),
    "spec.registration.requested.permissions": (1, ("spec.registration.requested.permissions[]",)),
    "spec.routes": (
        1,
        (
            "spec.routes[].path",
            *(f"spec.routes[].{part}" for part in _CONDITION),
            *(f"spec.routes[].backoffice.{part}" for part in _CONDITION),
        ),
    ),
}
# Lists whose quotation marks and commas are in such a sum, too.
COUNTED_WHOLE = {
    f"spec.routes[].{owner}permissions.{name}" for owner in ("", "backoffice.") for name in ("anyOf", "allOf")
}
# The operator writes these itself: text without control characters, in any script.
WRITTEN_BY_US = 4

plurals = pytest.mark.parametrize("plural", CRDS)


def largest(schema: Schema, path: str) -> int:
    """Upper bound of the bytes of compact JSON (UTF-8) that a value of this schema takes."""
    if path in REFUSED:
        return 0
    match schema["type"]:
        case "object":
            members = {name: largest(part, f"{path}.{name}".lstrip(".")) for name, part in schema["properties"].items()}
            # A member is its name in quotes, a colon, its value, a comma.
            return 2 + sum(len(name) + 4 + size for name, size in members.items() if size)
        case "array":
            if path in COUNTED_WHOLE:
                return 2
            items: int = schema["maxItems"] * (largest(schema["items"], f"{path}[]") + 1)
            return 2 + items + budget(schema, path)
        case "string":
            counted = any(path in strings for _, strings in BUDGETS.values())
            return 2 if counted else 2 + longest_text(schema, path)
        case "boolean":
            return len("false")
        case "integer":
            return 20
        case other:
            raise AssertionError(f"{path}: no bound known for {other}")


def longest_text(schema: Schema, path: str) -> int:
    if "enum" in schema:
        return max(len(value) for value in schema["enum"])
    length: int = schema["maxLength"]
    if schema.get("format") == "date-time":
        return length
    pattern = schema.get("pattern")
    if pattern is None and path.startswith("status."):
        return length * WRITTEN_BY_US
    return length * RESTRICTED_BY_RULE.get(path, dearest_character(pattern))


def budget(schema: Schema, path: str) -> int:
    if path not in BUDGETS:
        return 0
    ((limit,),) = [
        re.findall(r"\.sum\(\) <= (\d+)$", " ".join(rule["rule"].split()))
        for rule in schema["x-kubernetes-validations"]
    ]
    return int(limit) * BUDGETS[path][0]


@plurals
def test_every_field_is_described_for_kubectl_explain(plural: str) -> None:
    bare = [path for path, schema in walk(schema_of(plural)) if path != "metadata" and not schema.get("description")]
    assert bare == []


@plurals
def test_every_string_and_list_is_bounded(plural: str) -> None:
    unbounded = [
        path
        for path, schema in walk(schema_of(plural))
        if path not in ("apiVersion", "kind")
        and (
            (schema["type"] == "string" and not {"enum", "maxLength"} & set(schema))
            or (schema["type"] == "array" and "maxItems" not in schema)
        )
    ]
    assert unbounded == []


@plurals
def test_no_object_passes_80_kib(plural: str) -> None:
    parts = schema_of(plural)["properties"]
    size = sum(largest(parts[part], part) for part in ("spec", "status"))
    assert size <= MAX_OBJECT_BYTES, size


@plurals
def test_nothing_is_kept_that_is_not_declared(plural: str) -> None:
    text = json.dumps(load_crd(plural))
    assert "x-kubernetes-preserve-unknown-fields" not in text
    assert "additionalProperties" not in text


@plurals
def test_a_rule_says_in_its_message_what_is_wrong(plural: str) -> None:
    for path, schema in walk(schema_of(plural)):
        for rule in schema.get("x-kubernetes-validations", []):
            assert rule["message"], path


@plurals
def test_a_condition_can_hold_the_longest_message_that_the_operator_writes(plural: str) -> None:
    assert at(plural, "status.conditions[].message")["maxLength"] >= MAX_MESSAGE


@plurals
def test_the_contract_is_as_it_was_agreed(plural: str) -> None:
    assert_golden(f"crds/{plural}.json", json.dumps(load_crd(plural), indent=1, sort_keys=True) + "\n")


@pytest.mark.parametrize(
    ("plural", "short"), [("clientcredentials", "cc"), ("signingkeys", "sk"), ("accessrules", "ar")]
)
def test_each_kind_is_namespaced_and_has_its_short_name_and_category(plural: str, short: str) -> None:
    spec = load_crd(plural)["spec"]
    assert (spec["scope"], spec["names"]["shortNames"], spec["names"]["categories"]) == (
        "Namespaced",
        [short],
        ["keyturn"],
    )
    assert spec["versions"][0]["subresources"] == {"status": {}}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("spec", client_parse.FIELDS),
        ("spec.clientSecret", sources.SECRET_FIELDS),
        ("spec.generateKey", sources.GENERATE_KEY_FIELDS),
        ("spec.publicKeys[]", KEY_FIELDS),
        ("spec.serviceAccount", ACCOUNT_FIELDS),
        ("spec.registration", REGISTRATION_FIELDS),
    ],
)
def test_the_client_schema_has_exactly_the_fields_that_the_operator_reads(path: str, fields: frozenset[str]) -> None:
    assert set(at("clientcredentials", path)["properties"]) == fields


@pytest.mark.parametrize(("field", "limit"), [*client_parse.MAX_ITEMS.items(), ("publicKeys", MAX_KEYS)])
def test_the_client_schema_and_the_operator_agree_on_the_length_of_lists(field: str, limit: int) -> None:
    assert at("clientcredentials", f"spec.{field}")["maxItems"] == limit


def test_the_client_schema_and_the_operator_agree_on_methods_and_client_ids() -> None:
    assert at("clientcredentials", "spec.authMethod")["enum"] == list(AUTH_METHODS)
    assert rules_at("clientcredentials", "spec.clientId") == [f"self.matches('{PATTERN}')"]


def test_the_client_schema_and_the_operator_agree_on_sizes_and_policies() -> None:
    assert at("clientcredentials", "spec.generateKey.size")["enum"] == list(sources.SIZES)
    assert at("clientcredentials", "spec.deletionPolicy")["enum"] == list(sources.DELETION_POLICIES)
    assert at("clientcredentials", "spec.jwksUri")["maxLength"] == sources.MAX_URI


def test_the_client_schema_refuses_the_claims_that_the_operator_reserves() -> None:
    (rule,) = rules_at("clientcredentials", "spec.allowedCustomClaims")
    assert set(re.findall(r"'([^']+)'", rule)) == RESERVED_CLAIMS


def test_the_signing_key_status_knows_the_states_that_a_key_can_have() -> None:
    assert at("signingkeys", "status.keys[].state")["enum"] == [phase.value for phase in KeyPhase]


def test_every_private_member_of_a_jwk_is_declared_and_refused() -> None:
    refusal, references, *_ = rules_at("clientcredentials", "spec.publicKeys[].jwk")
    assert set(re.findall(r"!has\(self\.(\w+)\)", refusal)) == PRIVATE_MEMBERS
    assert set(re.findall(r"!has\(self\.(\w+)\)", references)) == REFERENCE_MEMBERS
    assert set(at("clientcredentials", "spec.publicKeys[].jwk")["properties"]) > PRIVATE_MEMBERS | REFERENCE_MEMBERS


def test_no_key_material_is_under_a_constraint_that_echoes_it() -> None:
    for path, schema in walk(at("clientcredentials", "spec.publicKeys"), "spec.publicKeys"):
        if path.split(".")[-1] not in ("kid", "publicKeys", "publicKeys[]"):
            assert not {"pattern", "enum"} & set(schema), path


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        pytest.param(None, 6, id="anything may be a control character"),
        pytest.param("^[a-z]+$", 1, id="letters cost one"),
        pytest.param("^[!-~]+$", 2, id="a quotation mark costs two"),
        pytest.param('^/[^\\x00-\\x20"\\\\\\x7f]*$', 4, id="other scripts cost up to four"),
    ],
)
def test_the_size_of_text_is_counted_by_its_dearest_character(pattern: str | None, size: int) -> None:
    assert dearest_character(pattern) == size


def test_the_bound_is_found_where_a_schema_is_too_large() -> None:
    large: Mapping[str, Any] = {"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": 1000}}
    assert largest(large, "spec.invented") > MAX_OBJECT_BYTES
