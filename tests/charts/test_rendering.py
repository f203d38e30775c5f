"""What the charts make of their values."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.charts.rendering import CHARTS, ISSUER, NAMESPACE, VALUE_SETS, environment, objects, render, run_helm
from tests.golden import assert_golden

# The first one waits for Helm where that has to be built.
pytestmark = pytest.mark.timeout(1500)
value_sets = pytest.mark.parametrize("name", VALUE_SETS)


@value_sets
def test_the_rendering_is_what_was_agreed_to(name: str, tmp_path: Path) -> None:
    assert_golden(f"charts/{name.replace(' ', '-')}.yaml", render(tmp_path, name))


@value_sets
def test_helm_finds_nothing_to_complain_of(name: str, tmp_path: Path) -> None:
    _, values = VALUE_SETS[name]
    path = tmp_path / "values.json"
    path.write_text(json.dumps({**ISSUER, **values}), encoding="utf-8")
    done = run_helm("lint", str(CHARTS / "keyturn"), "--strict", "--quiet", "--values", str(path))
    assert done.returncode == 0, done.stdout


@value_sets
def test_every_reference_resolves(name: str, tmp_path: Path) -> None:
    rendered = objects(render(tmp_path, name))
    known = {(one["kind"], one["metadata"]["name"]) for one in rendered}
    given = {
        ("Secret", secret)
        for secret in (
            "keyturn",
            "database",
            "registration-tokens",
            "api-tls",
            "tls",
            "registry",
            secret_of_the_test(rendered),
        )
    }
    given |= {("ConfigMap", name) for name in ("authorities", "metadata")}
    missing = [reference for one in rendered for reference in references(one) if reference not in known | given]
    assert missing == []


def secret_of_the_test(rendered: list[dict[str, Any]]) -> str:
    """The Secret that the operator makes for the client of `helm test`."""
    for one in rendered:
        if one["kind"] == "ClientCredential" and "helm.sh/hook" in one["metadata"].get("annotations", {}):
            name: str = one["spec"]["clientSecret"]["secretName"]
            return name
    return ""


def references(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What an object names: ServiceAccounts, Secrets, ConfigMaps, Services, roles."""
    kind, spec = one["kind"], one.get("spec") or {}
    if kind in ("RoleBinding", "ClusterRoleBinding"):
        yield one["roleRef"]["kind"], one["roleRef"]["name"]
        for subject in one["subjects"]:
            assert subject["namespace"] == NAMESPACE
            yield subject["kind"], subject["name"]
    if kind == "HorizontalPodAutoscaler":
        yield spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]
    if kind == "Ingress":
        for path in spec["rules"][0]["http"]["paths"]:
            yield "Service", path["backend"]["service"]["name"]
    if kind == "HTTPRoute":
        for rule in spec["rules"]:
            for backend in rule["backendRefs"]:
                yield "Service", backend["name"]
    if kind == "StatefulSet":
        yield "Service", spec["serviceName"]
    pod = spec if kind == "Pod" else spec.get("template", {}).get("spec")
    if kind in ("Deployment", "StatefulSet", "Pod") and pod:
        if "serviceAccountName" in pod:
            yield "ServiceAccount", pod["serviceAccountName"]
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                yield "Secret", volume["secret"]["secretName"]
            if "configMap" in volume:
                yield "ConfigMap", volume["configMap"]["name"]
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    yield "Secret", variable["valueFrom"]["secretKeyRef"]["name"]


@value_sets
def test_every_selector_selects_just_its_own_pods(name: str, tmp_path: Path) -> None:
    rendered = objects(render(tmp_path, name))
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in rendered
        if one["kind"] in ("Deployment", "StatefulSet")
    }
    for one in rendered:
        selector = (one.get("spec") or {}).get("selector") or {}
        if one["kind"] == "Service":
            labels = selector
        elif one["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            labels = selector["matchLabels"]
        elif one["kind"] == "NetworkPolicy":
            labels = one["spec"]["podSelector"]["matchLabels"]
        else:
            continue
        chosen = [pod for pod, theirs in pods.items() if labels.items() <= theirs.items()]
        assert len(chosen) == 1, f"{one['kind']} {one['metadata']['name']} selects {chosen}"


@value_sets
def test_names_and_labels_fit_their_limits(name: str, tmp_path: Path) -> None:
    for one in objects(render(tmp_path, name)):
        # A pod's name adds a hash or a number to its controller's.
        most = {"StatefulSet": 52, "Deployment": 52, "Service": 63}.get(one["kind"], 253)
        assert len(one["metadata"]["name"]) <= most, one["metadata"]["name"]
        for value in one["metadata"].get("labels", {}).values():
            assert len(value) <= 63
            assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", value), value


OFF = {
    "signingKey.create=false": [("SigningKey", "keyturn")],
    "administration.enabled=false": [("ClusterRole", "keyturn.shop.keyturn.api")],
    "admissionPolicy.enabled=false": [
        (kind, f"keyturn.shop.keyturn.{part}")
        for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
        for part in ("api", "operator")
    ],
    "clusterRights=false": [
        ("ClusterRole", "keyturn.shop.keyturn.api"),
        ("ClusterRoleBinding", "keyturn.shop.keyturn.api"),
        *(
            (kind, f"keyturn.shop.keyturn.{part}")
            for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
            for part in ("api", "operator")
        ),
    ],
    "networkPolicy.enabled=false": [("NetworkPolicy", f"keyturn-{part}") for part in ("api", "operator", "postgresql")],
    "operator.podDisruptionBudget.enabled=false": [("PodDisruptionBudget", "keyturn-operator")],
    "api.podDisruptionBudget.enabled=false": [("PodDisruptionBudget", "keyturn-api")],
    "store.existingSecret=mine": [
        (kind, "keyturn-postgresql") for kind in ("StatefulSet", "Service", "Secret", "NetworkPolicy")
    ],
}


@pytest.mark.parametrize(("switch", "gone"), OFF.items(), ids=OFF)
def test_what_is_switched_off_leaves_none_of_its_objects(switch: str, gone: list[tuple[str, str]]) -> None:
    command = ["template", "keyturn", str(CHARTS / "keyturn"), "--namespace", NAMESPACE]
    before = run_helm(*command, "--set", f"issuer={ISSUER['issuer']}")
    after = run_helm(*command, "--set", f"issuer={ISSUER['issuer']},{switch}")
    named = [{(one["kind"], one["metadata"]["name"]) for one in objects(done.stdout)} for done in (before, after)]
    assert set(gone) <= named[0]
    assert not set(gone) & named[1]


@pytest.mark.parametrize("kind", ["Ingress", "HTTPRoute"])
def test_only_public_paths_are_published(kind: str, tmp_path: Path) -> None:
    rendered = render(tmp_path, "published by an Ingress" if kind == "Ingress" else "published by a Gateway")
    (route,) = (one for one in objects(rendered) if one["kind"] == kind)
    paths = re.findall(r'"(?:path|value)": "(/[^"]*)"', json.dumps(route))
    assert paths
    for path in paths:
        assert path.rstrip("/") not in (
            "",
            "/auth",
            "/clients",
            "/explain",
            "/metrics",
            "/healthz",
            "/readyz",
            "/docs",
            "/openapi.json",
        )
        assert not path.startswith("/auth")


CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


def test_without_rights_on_the_cluster_nothing_is_cluster_scoped_and_nobody_asks_for_it() -> None:
    command = ["template", "keyturn", str(CHARTS / "keyturn"), "--namespace", NAMESPACE, "--set"]
    issuer = f"issuer={ISSUER['issuer']}"
    with_rights = objects(run_helm(*command, issuer).stdout)
    assert {one["kind"] for one in with_rights} >= CLUSTER_SCOPED
    done = run_helm(*command, f"{issuer},clusterRights=false")
    assert not {one["kind"] for one in objects(done.stdout)} & CLUSTER_SCOPED
    assert environment(done.stdout, "keyturn-api")["KEYTURN_ADMINISTRATION"] == "false"


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_registered_clients_manage_theirs_whoever_may_register_now(mode: str) -> None:
    values = f"issuer={ISSUER['issuer']},administration.enabled=false,registration.mode={mode}"
    rendered = objects(
        run_helm("template", "keyturn", str(CHARTS / "keyturn"), "--namespace", NAMESPACE, "--set", values).stdout
    )
    rules = [one["rules"] for one in rendered if one["kind"] == "Role" and one["metadata"]["name"] == "keyturn-api"]
    verbs = {(kind, verb) for rule in rules[0] for kind in rule["resources"] for verb in rule["verbs"]}
    assert {("clientcredentials", "patch"), ("clientcredentials", "delete"), ("secrets", "create")} <= verbs
    assert ("RoleBinding", "keyturn-api") in {(one["kind"], one["metadata"]["name"]) for one in rendered}


REFUSED = {
    "the whole cluster without rights on it": (
        ["--set", "issuer=https://a.example,watch.scope=All,clusterRights=false"],
        "watch.scope All needs rights on the cluster",
    ),
    "an unknown value": (["--set", "replica=3"], "additional properties 'replica' not allowed"),
    "no issuer": ([], "issuer is required"),
    "an issuer that is no URL": (["--set", "issuer=tokens.example"], "issuer"),
    "an issuer with a query": (["--set", "issuer=https://a.example?x=1"], "issuer"),
    "an unknown scope": (["--set", "watch.scope=Some"], "watch/scope"),
    "an unknown profile": (["--set", "api.gatewayProfile=kong"], "gatewayProfile"),
    "a setting that is none of ours": (["--set", "api.settings.PATH=x"], "'PATH' not allowed"),
    "a setting with a mistake in its name": (
        ["--set", "api.settings.KEYTURN_ACCEPTED_AUDIENCE=orders"],
        "'KEYTURN_ACCEPTED_AUDIENCE' not allowed",
    ),
    "a setting of the API for the operator": (
        ["--set", "operator.settings.KEYTURN_ACCEPTED_AUDIENCES=orders"],
        "'KEYTURN_ACCEPTED_AUDIENCES' not allowed",
    ),
    "a setting that is a value of the chart": (
        ["--set", "api.settings.KEYTURN_ISSUER=https://other.example"],
        "'KEYTURN_ISSUER' not allowed",
    ),
    "two places for trusted issuers": (
        [
            "--set-json",
            'api.trustedIssuers=[{"issuer":"https://a.example","audiences":["a"],"algorithms":["RS256"]}]',
            "--set",
            "issuer=https://tokens.example,api.settings.KEYTURN_TRUSTED_ISSUERS_FILE=/etc/issuers.yaml",
        ],
        "one of them says where the issuers stand",
    ),
    "a trusted issuer for any audience": (
        ["--set-json", 'api.trustedIssuers=[{"issuer":"https://a.example","algorithms":["RS256"]}]'],
        "missing property 'audiences'",
    ),
    "an Ingress for paths that nobody is told of": (
        ["--set", "ingress.enabled=true,issuer=https://a.example/tenant,api.settings.KEYTURN_SERVICE_PREFIX=/other"],
        'told that the endpoints lie under "/tenant/other"',
    ),
    "an HTTPRoute for paths that nobody is told of": (
        [
            "--set",
            "httpRoute.enabled=true,publicUrl=https://a.example/x",
            "--set-string",
            "api.settings.KEYTURN_SERVICE_PREFIX=",
        ],
        'and the route publishes them under "/"',
    ),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_in_the_values_is_named(options: list[str], words: str) -> None:
    issuer = (
        []
        if any("issuer=" in option for option in options) or words == "issuer is required"
        else ["--set", "issuer=https://a.example"]
    )
    done = run_helm("template", "keyturn", str(CHARTS / "keyturn"), *issuer, *options)
    assert done.returncode != 0
    assert words in done.stderr
