"""What the programs of an installation may do on a cluster, by the files of rules that the chart uses too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from keyturn_dev.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGNING_KEY = "keyturn"
ADMISSION_POLICY = PROJECT / "charts" / "keyturn" / "files" / "admission-policy.yaml"
RBAC_RULES = PROJECT / "charts" / "keyturn" / "files" / "rbac.yaml"
ACCOUNTS = {"operator": "keyturn-operator", "api": "keyturn-api", "mirror": "keyturn-mirror"}
EVERY = "*"
"""Among the namespaces to watch: all of the cluster."""
_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io/v1"


def rbac_objects(namespace: str, watched: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return ServiceAccounts, their roles and bindings: rules from the file that the chart uses too, and the mirror's.

    `watched`: namespaces besides its own, or `*` for the whole cluster. Names of cluster-scoped objects begin with the namespace;
    `cluster_scoped` knows them.
    """
    rules = yaml.safe_load(RBAC_RULES.read_text(encoding="utf-8"))
    own_secret = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": [SIGNING_KEY],
        "verbs": ["get", "watch"],
    }
    operator = rules["operator"]
    every = EVERY in watched
    here = operator["homeRules"] if every else [*operator["rules"], *operator["homeRules"]]
    roles = {"operator": here, "api": rules["api"]["rules"], "mirror": [own_secret]}
    cluster = {"api": rules["api"]["clusterRules"]}
    if every:
        cluster["operator"] = [*operator["rules"], *operator["clusterRules"]]
    objects: list[dict[str, Any]] = []
    for part, account in ACCOUNTS.items():
        subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        metadata = {"name": account, "namespace": namespace}
        objects.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        objects += _bound("Role", metadata, roles[part], subject)
        if part == "operator" and not every:
            for other in watched:
                objects += _bound(
                    "Role", {"name": f"{namespace}-{account}", "namespace": other}, operator["rules"], subject
                )
        if wide := cluster.get(part):
            objects += _bound("ClusterRole", {"name": f"{namespace}-{account}"}, wide, subject)
    return objects


def _bound(kind: str, metadata: dict[str, str], rules: list[Any], subject: dict[str, str]) -> list[dict[str, Any]]:
    """A role and its binding to one account, of the same name."""
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": metadata["name"]},
            "subjects": [subject],
        },
    ]


def policy_objects(namespace: str) -> list[dict[str, Any]]:
    """Return the admission policies that hold the parts' rights to objects of their own making, from the file that the chart uses too."""
    objects: list[dict[str, Any]] = []
    for part, spec in yaml.safe_load(ADMISSION_POLICY.read_text(encoding="utf-8")).items():
        name = f"{namespace}-{ACCOUNTS[part]}"
        user = f"system:serviceaccount:{namespace}:{ACCOUNTS[part]}"
        here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        conditions = [{"name": part, "expression": f"request.userInfo.username == '{user}'"}]
        policy = {**spec, "matchConstraints": {**spec["matchConstraints"], **here}, "matchConditions": conditions}
        objects += [
            {"apiVersion": _ADMISSION, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": policy},
            {
                "apiVersion": _ADMISSION,
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": name},
                "spec": {"policyName": name, "validationActions": ["Deny"]},
            },
        ]
    return objects


def cluster_scoped(namespace: str) -> list[str]:
    """What an installation has outside its namespace, as `kind/name` for kubectl: the namespace's deletion leaves it."""
    every = [*rbac_objects(namespace), *policy_objects(namespace)]
    wide = [one for one in every if "namespace" not in one["metadata"]]
    return [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in wide]
