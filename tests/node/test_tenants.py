"""Two projects with the same names on one cluster: nothing crosses, and one goes without the other."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from keyturn_dev.waiting import wait_until
from tests.node.conftest import make_caller
from tests.node.kubectl import Kubectl
from tests.node.load import Caller
from tests.node.page import Shell
from tests.node.test_under_load import rule

# What `helm uninstall` leaves of our own, by the chart's README.
KEPT = {
    "accessrule.keyturn.dev/orders",
    "clientcredential.keyturn.dev/caller",
    "clientcredential.keyturn.dev/made",
    "persistentvolumeclaim/data-keyturn-postgresql-0",
    "secret/keyturn",
    "secret/keyturn-postgresql",
    "secret/made-key",
    "signingkey.keyturn.dev/keyturn",
}
KINDS = "all,secret,configmap,pvc,serviceaccount,role,rolebinding,networkpolicy,pdb,ingress,clientcredential,signingkey,accessrule"
CLUSTER_WIDE = "clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding"


def left(kubectl: Kubectl) -> set[str]:
    """Everything in the namespace but what Kubernetes itself puts into each."""
    names = set(kubectl("get", KINDS, "--output=name").split())
    return names - {"configmap/kube-root-ca.crt", "serviceaccount/default"}


@pytest.fixture(scope="module")
def payments(make_project: Callable[..., AbstractContextManager[Kubectl]], caller: Caller) -> Iterator[Kubectl]:
    with make_project("payments", {"api": {"gatewayProfile": "nginx"}}) as kubectl:
        yield kubectl


@pytest.fixture(scope="module")
def other(payments: Kubectl) -> Caller:
    """The same client, by name, of the other project."""
    payments.apply(rule("orders", "/orders"))
    payments.wait_ready("accessrule/orders")
    return make_caller(payments, "caller", "https://tokens.payments.example")


def test_the_same_names_are_two_clients_and_nothing_crosses(shop: Kubectl, caller: Caller, other: Caller) -> None:
    assert (caller.client_id, other.client_id) == ("shop.caller", "payments.caller")
    ours, theirs = caller.token(), other.token()
    assert (caller.ask(ours), other.ask(theirs)) == (200, 200)
    assert (caller.ask(theirs), other.ask(ours)) == (401, 401)
    assert (caller.token_info(theirs), other.token_info(ours)) == (401, 401)
    shop("patch", "cc", "caller", "--type=merge", "-p", '{"spec":{"permissions":[]}}')
    wait_until(lambda: caller.ask(ours) == 403, "the change to count", seconds=15)
    assert other.ask(theirs) == 200
    shop("patch", "cc", "caller", "--type=merge", "-p", '{"spec":{"permissions":["orders:read"]}}')
    wait_until(lambda: caller.ask(ours) == 200, "the change to count", seconds=15)


def test_neither_project_s_accounts_may_touch_the_other(payments: Kubectl, shop: Kubectl, other: Caller) -> None:
    for part in ("api", "operator"):
        account = f"system:serviceaccount:payments:keyturn-{part}"
        for resource in ("secrets", "clientcredentials.keyturn.dev", "leases.coordination.k8s.io"):
            for verb in ("get", "list", "create", "patch", "delete"):
                review = {
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SubjectAccessReview",
                    "spec": {
                        "user": account,
                        "resourceAttributes": {
                            "namespace": shop.namespace,
                            "verb": verb,
                            "resource": resource.partition(".")[0],
                            "group": resource.partition(".")[2],
                        },
                    },
                }
                assert payments.create(review)["status"]["allowed"] is False, (part, verb, resource)


def test_removing_one_leaves_what_the_page_says_and_the_other_alone(
    payments: Kubectl, shop: Kubectl, caller: Caller, other: Caller, make_shell: Callable[..., Shell]
) -> None:
    shell = make_shell("payments")
    made = {"generateKey": {"secretName": "made-key"}}
    payments.apply(
        {
            "apiVersion": "keyturn.dev/v1alpha1",
            "kind": "ClientCredential",
            "metadata": {"name": "made"},
            "spec": made,
        }
    )
    payments.wait_ready("clientcredential/made")
    from_helm, the_rest = shell.scripts("Removal")[:2]
    restarts = [one["metadata"]["uid"] for one in shop.get("pods")["items"]]
    token = caller.token()

    shell(from_helm, seconds=90)
    payments.wait_gone("pods", 60)
    # What belongs to pods and Services goes with them, in its own time.
    wait_until(lambda: left(payments) <= KEPT, f"the rest to go: {left(payments) - KEPT}", seconds=30)
    assert left(payments) == KEPT
    assert "keyturn.payments." not in payments("get", CLUSTER_WIDE, "--output=name")

    shell(the_rest, seconds=90)
    wait_until(lambda: not left(payments), f"everything to go: {left(payments)}", seconds=60)
    payments("delete", "namespace", "payments", "--timeout=60s", seconds=70)

    assert caller.ask(token) == 200
    assert caller.ask(caller.token()) == 200
    assert [one["metadata"]["uid"] for one in shop.get("pods")["items"]] == restarts
