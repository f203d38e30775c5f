"""What the parts may do in a cluster: no more than they use."""

from typing import Any

import pytest
import yaml

from keyturn_operator.settings import OperatorSettings
from tests.crd_schemas import CRDS, PROJECT

RBAC = yaml.safe_load((PROJECT / "charts" / "keyturn" / "files" / "rbac.yaml").read_text(encoding="utf-8"))

parts = pytest.mark.parametrize("part", RBAC)


def grants(part: str, kind: str = "rules") -> set[tuple[str, str, str]]:
    """Each (API group, resource, verb) that a part has, in its namespace or (`clusterRules`) in the whole cluster."""
    rules: list[dict[str, Any]] = RBAC[part].get(kind, [])
    if kind == "rules":
        rules = [*rules, *RBAC[part].get("homeRules", [])]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@parts
def test_nothing_is_granted_by_a_wildcard(part: str) -> None:
    assert [grant for grant in grants(part) | grants(part, "clusterRules") if "*" in "".join(grant)] == []


@parts
def test_nothing_is_impersonated_bound_or_escalated(part: str) -> None:
    verbs = {verb for _, _, verb in grants(part)}
    assert verbs <= {"get", "list", "watch", "create", "update", "patch", "delete"}


def test_what_may_be_deleted_are_registrations() -> None:
    """The admission policy narrows both: to registered clients, and to the Secrets that hold their hashes."""
    deleted = {(part, resource) for part in RBAC for _, resource, verb in grants(part) if verb == "delete"}
    assert deleted == {("api", "clientcredentials"), ("operator", "secrets")}


def test_the_api_reads_nothing_and_writes_registrations() -> None:
    assert grants("api") == {
        ("keyturn.dev", "clientcredentials", "create"),
        ("keyturn.dev", "clientcredentials", "patch"),
        ("keyturn.dev", "clientcredentials", "delete"),
        ("", "secrets", "create"),
    }


@parts
def test_nothing_cluster_wide_is_granted(part: str) -> None:
    groups = {group for group, _, _ in grants(part)}
    assert groups <= {"", "keyturn.dev", "coordination.k8s.io", "events.k8s.io"}


def test_the_operator_writes_of_our_kinds_the_status_alone() -> None:
    ours = {(resource, verb) for group, resource, verb in grants("operator") if group == "keyturn.dev"}
    reads = {(kind, verb) for kind in CRDS for verb in ("get", "list", "watch")}
    assert ours == reads | {(f"{kind}/status", "patch") for kind in CRDS}


def test_of_the_whole_cluster_the_api_may_ask_for_reviews_and_the_operator_may_see_leases() -> None:
    reviews = {
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    }
    leases = {("coordination.k8s.io", "leases", verb) for verb in ("get", "list")}
    assert {part: grants(part, "clusterRules") for part in RBAC} == {"operator": leases, "api": reviews}


def test_what_only_the_release_s_namespace_needs_is_granted_nowhere_else() -> None:
    everywhere = {
        (resource, verb)
        for rule in RBAC["operator"]["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert "delete" not in {verb for _, verb in everywhere}
    assert "leases" not in {resource for resource, _ in everywhere}


def test_at_home_the_operator_touches_its_own_lease_alone() -> None:
    leases = [rule for rule in RBAC["operator"]["homeRules"] if rule["resources"] == ["leases"]]
    names = {verb: rule.get("resourceNames") for rule in leases for verb in rule["verbs"]}
    ours = [OperatorSettings.model_fields["lease_name"].default]
    # RBAC cannot hold `create` to a name: the object is not there yet.
    assert names == {"get": ours, "update": ours, "create": None}


def test_of_the_leases_of_the_whole_cluster_the_operator_sees_those_of_operators_alone() -> None:
    (leases,) = [rule for rule in RBAC["operator"]["clusterRules"] if rule["resources"] == ["leases"]]
    assert leases["resourceNames"] == [OperatorSettings.model_fields["lease_name"].default]


OPERATIONS = {"create": "CREATE", "patch": "UPDATE", "delete": "DELETE"}


@pytest.mark.parametrize(
    ("part", "verbs"),
    [
        pytest.param("api", {"create", "patch", "delete"}, id="whatever the API writes"),
        pytest.param("operator", {"delete"}, id="whatever the operator deletes"),
    ],
)
def test_the_admission_policy_looks_at(part: str, verbs: set[str]) -> None:
    document = yaml.safe_load((PROJECT / "charts/keyturn/files/admission-policy.yaml").read_text(encoding="utf-8"))
    looked_at = {
        (group, resource, operation)
        for rule in document[part]["matchConstraints"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for operation in rule["operations"]
    }
    written = {(group, kind, OPERATIONS[verb]) for group, kind, verb in grants(part) if verb in verbs}
    assert document[part]["failurePolicy"] == "Fail"
    assert written <= looked_at
