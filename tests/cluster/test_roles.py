"""The roles that come with the CRDs, bound to people: who sees what, and who may change what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from keyturn_dev.errors import DevError
from keyturn_dev.kubeconfig import run_kubectl
from keyturn_dev.waiting import wait_until
from tests.charts.rendering import CHARTS, run_helm
from tests.cluster.clients import World
from tests.cluster.test_life_of_objects import basic_client, secret
from tests.manifests import manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET_VALUE = "a-client-secret-that-no-viewer-reads"
# The role that each is bound to in the project's namespace: Kubernetes's own, or ours.
PEOPLE = {
    "viewer": "view",
    "deployer": "edit",
    "our-viewer": "keyturn-view",
    "editor": "keyturn-edit",
    "admin": "keyturn-admin",
    "nobody": None,
}
OURS = ("clientcredentials", "accessrules", "signingkeys")
NOTHING: frozenset[str] = frozenset()
READ = frozenset({"get", "list", "watch"})
WRITE = frozenset({"create", "update", "patch", "delete", "deletecollection"})
VERBS = (*sorted(READ | WRITE), "explain", "introspect", "revoke")
EXPECTED: dict[str, dict[str, frozenset[str]]] = {
    "viewer": dict.fromkeys(OURS, READ),
    # Who deploys programs does not thereby decide who may call the project's APIs; `edit` holds what `view` does.
    "deployer": dict.fromkeys(OURS, READ),
    "our-viewer": dict.fromkeys(OURS, READ),
    "editor": {
        "clientcredentials": READ | WRITE | {"explain"},
        "accessrules": READ | WRITE,
        "signingkeys": READ,
    },
    "admin": {
        "clientcredentials": READ | WRITE | {"explain", "introspect", "revoke"},
        "accessrules": READ | WRITE,
        "signingkeys": READ | WRITE,
    },
    "nobody": dict.fromkeys(OURS, NOTHING),
}


@pytest.fixture(scope="module")
def roles(world: World) -> Iterator[World]:
    """The CRD chart's roles, and people who are bound to them in the project's namespace."""
    done = run_helm("template", "keyturn-crds", str(CHARTS / "keyturn-crds"), "--show-only", "templates/roles.yaml")
    assert done.returncode == 0, done.stderr
    rendered = [one for one in yaml.safe_load_all(done.stdout) if one]
    assert [one["kind"] for one in rendered] == ["ClusterRole"] * 3
    bindings: list[dict[str, Any]] = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"person-{person}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": person}],
        }
        for person, role in PEOPLE.items()
        if role is not None
    ]
    world.apply(*rendered, *bindings)
    world.apply(secret("seen-by-none", client_secret=SECRET_VALUE), basic_client("watched", "seen-by-none"))
    world.objects.wait_for("clientcredentials", "watched")
    wait_until(lambda: allowed(world, "viewer", "list", OURS[0]), "`view` to be made up of our role too", seconds=20)
    yield world
    world.kubectl("delete", *(f"rolebinding/{one['metadata']['name']}" for one in bindings))
    world.kubectl("delete", *(f"clusterrole/{one['metadata']['name']}" for one in rendered))


def allowed(world: World, person: str, verb: str, resource: str, group: str = "keyturn.dev") -> bool:
    attributes = {"namespace": world.namespace, "verb": verb, "group": group, "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": person, "groups": ["system:authenticated"], "resourceAttributes": attributes},
    }
    answer = world.objects.create_at("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def as_person(world: World, person: str, *arguments: str) -> str:
    target = world.installation.target
    who = (f"--as={person}", "--as-group=system:authenticated", f"--namespace={world.namespace}")
    return run_kubectl(target.kubectl, target.kubeconfig, *who, *arguments)


@pytest.mark.parametrize("person", PEOPLE)
def test_what_may_be_done_with_our_objects_by_the(person: str, roles: World) -> None:
    told = {kind: frozenset(verb for verb in VERBS if allowed(roles, person, verb, kind)) for kind in OURS}
    assert told == EXPECTED[person]


@pytest.mark.parametrize("person", ["viewer", "our-viewer", "editor", "admin"])
def test_secrets_are_not_read_by_the(person: str, roles: World) -> None:
    assert not any(allowed(roles, person, verb, "secrets", "") for verb in READ)
    with pytest.raises(DevError, match="forbidden"):
        as_person(roles, person, "get", "secret", "seen-by-none", "-o", "yaml")


@pytest.mark.parametrize("person", ["viewer", "our-viewer", "editor", "admin"])
def test_no_secret_and_no_hash_of_one_is_in_what_is_seen_by_the(person: str, roles: World) -> None:
    seen = as_person(roles, person, "get", "clientcredentials,signingkeys,accessrules", "-o", "json")
    assert "watched" in seen
    assert SECRET_VALUE not in seen
    # bcrypt and SHA-256 as the store keeps them, and private keys in either form.
    assert "$2b$" not in seen
    assert "PRIVATE KEY" not in seen
    assert '"d":' not in seen
    assert as_person(roles, person, "get", "cc", "watched").split()[0] == "NAME"


def test_a_change_by_a_viewer_is_refused_and_by_an_editor_taken(roles: World) -> None:
    change = ("patch", "clientcredential", "watched", "--type=merge", "-p", '{"spec":{"permissions":["more"]}}')
    for person in ("viewer", "our-viewer", "deployer"):
        with pytest.raises(DevError, match="forbidden"):
            as_person(roles, person, *change)
    as_person(roles, "editor", *change)
    assert roles.objects.get("clientcredentials", "watched")["spec"]["permissions"] == ["more"]


def test_signing_keys_are_the_admin_s_alone(roles: World) -> None:
    path = roles.installation.state / "key-of-an-admin.json"
    path.write_text(yaml.safe_dump(manifest("SigningKey", "of-an-admin", {})), encoding="utf-8")
    for person in ("viewer", "editor"):
        with pytest.raises(DevError, match="forbidden"):
            as_person(roles, person, "create", "-f", str(path))
    as_person(roles, "admin", "create", "-f", str(path))
    as_person(roles, "admin", "delete", "signingkey", "of-an-admin")


def test_nobody_but_the_operator_writes_a_status(roles: World) -> None:
    change = ("patch", "clientcredential", "watched", "--subresource=status", "--type=merge", "-p", '{"status":{}}')
    for person in ("viewer", "editor", "admin"):
        with pytest.raises(DevError, match="forbidden"):
            as_person(roles, person, *change)
