"""Both charts on a real node: from nothing to a token."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.node.helm import Helm
from tests.node.kubectl import Kubectl

SHOP = "shop"


@pytest.fixture(scope="module")
def shop(make_project: Callable[..., AbstractContextManager[Kubectl]]) -> Iterator[Kubectl]:
    with make_project(SHOP) as kubectl:
        yield kubectl


def test_helm_test_gets_a_real_token(shop: Kubectl, helm: Helm) -> None:
    assert "/tokeninfo confirms it" in helm.test("keyturn", SHOP)
    shop.wait_gone("clientcredential/keyturn-test")
    shop.wait_gone("secret/keyturn-test")


def test_every_pod_runs_under_restricted_pod_security_and_stays(shop: Kubectl) -> None:
    pods = shop.get("pods")["items"]
    assert {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods} >= {
        "api",
        "operator",
        "postgresql",
    }
    for pod in pods:
        for status in pod["status"].get("containerStatuses", []):
            assert status["restartCount"] == 0, pod["metadata"]["name"]
