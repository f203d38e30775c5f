"""Whose objects count, and what their namespaces may use."""

from pathlib import Path
from typing import Any

import pytest

from keyturn import reasons
from keyturn.grants import Grants, InvalidGrants
from keyturn.records import Kind
from keyturn.store.memory import MemoryStore
from keyturn_operator.clients import ClientReconciler
from keyturn_operator.kube.client import collection
from keyturn_operator.references import SecretReferences
from keyturn_operator.rules import Conflicts, RuleReconciler
from keyturn_operator.scope import OtherInstallations, Scope, read_grants
from tests.sample_keys import sample_key
from tests.unit.operator.fakes import NAMESPACE, FakeKube, Stage, key

LEASE = "keyturn-operator"


def test_named_namespaces_count_and_no_other() -> None:
    scope = Scope(("shop", "payments"), "shop")
    assert scope.places == ("payments", "shop")
    assert "payments" in scope
    assert "other" not in scope


def test_in_the_whole_cluster_every_namespace_counts_but_those_of_other_installations() -> None:
    scope = Scope(("*",), "shop")
    assert scope.places == ("",)
    assert "anything" in scope
    scope.foreign = frozenset({"theirs"})
    assert "theirs" not in scope


def lease(kube: FakeKube, namespace: str, holder: str | None) -> None:
    path = f"{collection('coordination.k8s.io/v1', 'leases', namespace)}/{LEASE}"
    kube.objects[path] = {"metadata": {"name": LEASE, "namespace": namespace}, "spec": {"holderIdentity": holder}}


class Leases(FakeKube):
    """Lists the Leases of all namespaces."""

    async def list_metadata(self, path: str, *, field_selector: str = "") -> tuple[list[dict[str, Any]], str]:
        assert (path, field_selector) == ("/apis/coordination.k8s.io/v1/leases", f"metadata.name={LEASE}")
        return list(self.objects.values()), "1"


async def test_a_namespace_whose_lease_is_held_belongs_to_another_installation() -> None:
    kube, scope, changes = Leases(), Scope(("*",), "shop"), []
    others = OtherInstallations(kube, scope, LEASE, lambda: changes.append(scope.foreign))
    lease(kube, "shop", "ourselves")
    lease(kube, "theirs", "somebody")
    lease(kube, "left", "")
    await others.look()
    await others.look()
    assert changes == [frozenset({"theirs"})]
    lease(kube, "theirs", None)
    await others.look()
    assert scope.foreign == frozenset()


FILES: dict[str, tuple[str, str]] = {
    "no JSON": ("grants: []", "the grants are not JSON"),
    "no list": ("{}", "grants must be a list"),
    "nested beyond reason": ("[" * 100_000, "the grants are not JSON"),
}


@pytest.mark.parametrize(("text", "words"), FILES.values(), ids=FILES)
def test_grants_that_cannot_be_read_end_the_start(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "grants.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidGrants, match=words):
        read_grants(path, "shop")


def test_grants_that_are_not_there_are_named_without_their_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidGrants, match="the grants cannot be read: No such file or directory"):
        read_grants(tmp_path / "none.json", "shop")


@pytest.fixture
async def bound() -> Stage:
    """A world whose namespace is not the release's, and may use what begins with `pay.`."""
    store = MemoryStore()
    epoch = await store.next_epoch("test")
    entry = {
        "namespace": NAMESPACE,
        "permissions": ["pay.*"],
        "audiences": ["payments"],
        "hosts": ["pay.example"],
        "paths": ["/pay"],
    }
    return Stage(store, epoch, grants=Grants.read("home", [entry]), release_namespace="home")


async def test_a_client_gets_what_is_granted_and_is_told_of_the_rest(bound: Stage) -> None:
    spec = {
        "publicKeys": [{"jwk": sample_key().public.jwk}],
        "permissions": ["pay.read", "shop.read"],
        "audiences": ["payments"],
    }
    obj = bound.kube.put(Kind.CLIENT, "billing", spec)
    reconciler = ClientReconciler(bound.context, SecretReferences(), SecretReferences())
    await reconciler.reconcile(key(Kind.CLIENT, "billing"), obj)
    (row,) = await bound.store.live(Kind.CLIENT)
    assert row.record.body["permissions"] == ["pay.read"]
    (ready,) = [one for one in obj["status"]["conditions"] if one["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("False", reasons.NOT_GRANTED)
    assert "shop.read" in ready["message"]


async def test_a_rule_decides_only_the_hosts_and_paths_that_are_granted(bound: Stage) -> None:
    routes = [{"path": "/pay", "public": True}, {"path": "/orders", "public": True}]
    obj = bound.kube.put(Kind.ACCESS_RULE, "pay", {"hosts": ["pay.example", "shop.example"], "routes": routes})
    reconciler = RuleReconciler(bound.context, Conflicts(bound.context.enqueue))
    await reconciler.reconcile(key(Kind.ACCESS_RULE, "pay"), obj)
    (row,) = await bound.store.live(Kind.ACCESS_RULE)
    assert row.record.body["hosts"] == ["pay.example"]
    assert [route["path"] for route in row.record.body["routes"]] == ["/pay"]
