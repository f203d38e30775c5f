"""The charts rendered without a cluster, for a dozen ways of installing them."""

import json
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from keyturn_dev.node_programs import ensure_helm
from keyturn_dev.progress import Progress
from tests.crd_schemas import PROJECT

CHARTS: Final = PROJECT / "charts"
NAMESPACE: Final = "shop"
ISSUER: Final = {"issuer": "https://tokens.shop.example"}
LONGEST_RELEASE: Final = "a-release-with-the-longest-name-that-helm-takes-12345"

# A phrase for each: its release's name and its values. Passwords are not generated here, or no two renderings would be alike.
VALUE_SETS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "defaults": ("keyturn", {}),
    "least": (
        "keyturn",
        {
            "signingKey": {"create": False},
            "administration": {"enabled": False},
            "admissionPolicy": {"enabled": False},
            "networkPolicy": {"enabled": False},
            "registration": {"mode": "disabled"},
            "operator": {"podDisruptionBudget": {"enabled": False}},
            "api": {"podDisruptionBudget": {"enabled": False}},
            "store": {"existingSecret": "database"},
        },
    ),
    "everything": (
        "keyturn",
        {
            "publicUrl": "https://public.shop.example/tokens",
            "commonLabels": {"team": "shop"},
            "imagePullSecrets": [{"name": "registry"}],
            "signingKey": {"spec": {"size": 3072, "rotateEvery": "720h"}},
            "registration": {"mode": "token", "tokensSecret": "registration-tokens"},
            "operator": {
                "podAnnotations": {"a": "b"},
                "podLabels": {"c": "d"},
                "priorityClassName": "high",
                "settings": {
                    "KEYTURN_JWKS_URI_HOSTS": "keys.shop.example",
                    "KEYTURN_JWKS_URI_CA_FILE": "/etc/ca/ca.crt",
                },
                "extraEnv": [{"name": "TZ", "value": "UTC"}],
                "extraVolumes": [{"name": "ca", "configMap": {"name": "authorities"}}],
                "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
            },
            "api": {
                "gatewayProfile": "envoy-grpc",
                "tls": {"secretName": "api-tls"},
                "autoscaling": {"enabled": True},
                "settings": {
                    "KEYTURN_ACCEPTED_AUDIENCES": "shop",
                    "KEYTURN_WORKERS": 2,
                    "KEYTURN_OPENID_CONFIG_PATH": "/etc/metadata/openid.json",
                },
                "trustedIssuers": [
                    {
                        "issuer": "https://login.shop.example",
                        "audiences": ["shop"],
                        "algorithms": ["RS256"],
                        "claims": {"groups": ["realm_access", "roles"], "permissions": "scope"},
                    }
                ],
                "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/etc/ca/ca.crt"}],
                "extraVolumes": [
                    {"name": "ca", "configMap": {"name": "authorities"}},
                    {"name": "metadata", "configMap": {"name": "metadata"}},
                ],
                "extraVolumeMounts": [
                    {"name": "ca", "mountPath": "/etc/ca", "readOnly": True},
                    {"name": "metadata", "mountPath": "/etc/metadata", "readOnly": True},
                ],
                "podAnnotations": {"a": "b"},
                "podLabels": {"c": "d"},
                "nodeSelector": {"disk": "fast"},
                "tolerations": [{"key": "gateway", "operator": "Exists"}],
            },
            "networkPolicy": {
                "apiFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}]
            },
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True},
            "dashboard": {"enabled": True},
            "clientCredentials": [{"name": "billing", "spec": {"generateKey": {"secretName": "billing-key"}}}],
            "accessRules": [{"name": "orders", "spec": {"routes": [{"path": "/orders", "public": True}]}}],
        },
    ),
    "external database": (
        "keyturn",
        {
            "store": {
                "existingSecret": "database",
                "urlKey": "uri",
                "listenUrlKey": "direct-uri",
                "pgbouncer": True,
                "tls": {"mode": "verify-full", "caKey": "ca.crt"},
                "poolSize": 10,
                "statementTimeout": 2.5,
            }
        },
    ),
    "published by an Ingress": (
        "keyturn",
        {"ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls", "annotations": {"a": "b"}}},
    ),
    "published by a Gateway": (
        "keyturn",
        {
            "issuer": "https://tokens.shop.example/tenant",
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]},
        },
    ),
    "several namespaces": (
        "keyturn",
        {
            "watch": {
                "scope": "List",
                "namespaces": ["payments", "shop"],
                "grants": [{"namespace": "payments", "permissions": ["pay.*"], "audiences": ["payments"]}],
            }
        },
    ),
    "all namespaces": ("keyturn", {"watch": {"scope": "All"}}),
    "another name": ("blue", {"nameOverride": "tokens"}),
    "a full name": ("blue", {"fullnameOverride": "shop-tokens"}),
    "the longest name": (LONGEST_RELEASE, {}),
    "one replica each": ("keyturn", {"operator": {"replicas": 1}, "api": {"replicas": 1}}),
}


# The same of the chart with the kinds.
CRD_VALUE_SETS: Final[Mapping[str, dict[str, Any]]] = {
    "kinds": {},
    "kinds that go with their chart": {"keep": False, "annotations": {"a": "b"}, "roles": {"create": False}},
}


@cache
def helm() -> Path:
    return ensure_helm(os.environ, Progress())


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run([helm(), *arguments], env=environ, capture_output=True, text=True, timeout=60, check=False)


def render(folder: Path, name: str, *, chart: str = "keyturn", namespace: str = NAMESPACE) -> str:
    """What Helm would install of a value set. Raises AssertionError with Helm's words."""
    release, values = VALUE_SETS[name]
    return render_values(folder, values, release=release, chart=CHARTS / chart, namespace=namespace)


def render_values(
    folder: Path,
    values: Mapping[str, Any],
    *,
    release: str = "keyturn",
    chart: Path = CHARTS / "keyturn",
    namespace: str = NAMESPACE,
) -> str:
    """What Helm would install of these values, in a file as people keep them. Raises AssertionError with Helm's words."""
    path = folder / "values.json"
    own = {**ISSUER, **values}
    if "existingSecret" not in values.get("store", {}):
        own["postgresql"] = {"auth": {"existingSecret": "database"}, **values.get("postgresql", {})}
    path.write_text(json.dumps(own), encoding="utf-8")
    done = run_helm("template", release, str(chart), "--namespace", namespace, "--values", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout


def render_crds(folder: Path, name: str) -> str:
    """What Helm would install of a value set of the chart with the kinds."""
    path = folder / "values.json"
    path.write_text(json.dumps(CRD_VALUE_SETS[name]), encoding="utf-8")
    done = run_helm("template", "keyturn-crds", str(CHARTS / "keyturn-crds"), "--values", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(rendered: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(rendered) if document]


def deployed(rendered: str, name: str) -> dict[str, Any]:
    """The one Deployment or StatefulSet of this name."""
    (found,) = [
        one
        for one in objects(rendered)
        if one["kind"] in ("Deployment", "StatefulSet") and one["metadata"]["name"] == name
    ]
    return found


def environment(rendered: str, name: str) -> dict[str, str | None]:
    """The variables of its container; a name that stands there twice fails."""
    listed = deployed(rendered, name)["spec"]["template"]["spec"]["containers"][0]["env"]
    values = {one["name"]: one.get("value") for one in listed}
    assert len(values) == len(listed)
    return values
