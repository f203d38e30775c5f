"""Another operator made with kopf in the same cluster: neither its peering nor what it does to our objects changes their effect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from keyturn_dev.process import log_tail
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.clients import World
    from tests.cluster.conftest import StartWorld

# It keeps its state on our objects, as kopf does by default, and never lets go of those that are deleted.
FOREIGN = """
import kopf

@kopf.on.startup()
def configure(settings, **_):
    settings.peering.mandatory = True
    settings.peering.priority = 1000

@kopf.on.create("keyturn.dev", "v1alpha1", "clientcredentials")
@kopf.on.update("keyturn.dev", "v1alpha1", "clientcredentials")
@kopf.on.resume("keyturn.dev", "v1alpha1", "clientcredentials")
def seen(patch, **_):
    patch.metadata.annotations["foreign.example.com/seen"] = "true"

@kopf.on.delete("keyturn.dev", "v1alpha1", "clientcredentials")
def never(**_):
    raise kopf.TemporaryError("not yet", delay=1)
"""
_SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def peering(kind: str, scope: str) -> dict[str, Any]:
    """The CRD of kopf's peering, by which its operators tell one another who pauses."""
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.kopf.dev"},
        "spec": {
            "group": "kopf.dev",
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": _SCHEMA}},
            ],
        },
    }


PEERINGS = [peering("ClusterKopfPeering", "Cluster"), peering("KopfPeering", "Namespaced")]


@pytest.fixture
def beside(start_world: StartWorld) -> Iterator[World]:
    """An installation, and the other operator at work in its namespace."""
    world = start_world()
    world.apply(*PEERINGS)
    names = [f"crd/{one['metadata']['name']}" for one in PEERINGS]
    world.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    default = {"apiVersion": "kopf.dev/v1", "kind": "KopfPeering", "metadata": {"name": "default"}}
    world.apply(default)
    folder = world.installation.state
    code, log = folder / "foreign.py", folder / "foreign.log"
    code.write_text(FOREIGN, encoding="utf-8")
    with log.open("wb") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", str(code), f"--namespace={world.namespace}", "--verbose"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "KUBECONFIG": str(world.installation.target.kubeconfig),
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:

        def at_work() -> bool:
            assert running.poll() is None, log_tail(log)
            peers = world.kubectl("get", "kopfpeering.kopf.dev", "default", "-o", "jsonpath={.status}")
            return "1000" in peers

        wait_until(at_work, "the other operator to say that it has the highest priority", seconds=40, interval=0.3)
        yield world
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait(timeout=10)
        for one in world.objects.all("clientcredentials"):
            world.kubectl(
                *("patch", "clientcredential", one["metadata"]["name"], "--type=merge"),
                *("-p", '{"metadata":{"finalizers":null}}'),
            )
        world.kubectl("delete", *names)


@pytest.mark.timeout(180)
def test_a_foreign_operator_with_a_peering_of_its_own_has_no_effect(beside: World) -> None:
    client = beside.client("shared").apply(permissions=["p"])
    token = client.token()
    wait_until(
        lambda: (
            "foreign.example.com/seen"
            in beside.objects.get("clientcredentials", "shared")["metadata"].get("annotations", {})
        ),
        "the other operator to write on the object",
        seconds=20,
    )
    client.wait()
    told = beside.objects.get("clientcredentials", "shared")
    assert "kopf.zalando.org/KopfFinalizerMarker" in told["metadata"]["finalizers"]

    # A change counts, and the status is ours alone.
    client.patch(permissions=["q"])
    client.wait()
    assert beside.replicas[0].token_info(client.token()).json()["permissions"] == ["q"]
    # When a token was issued is told some time after it.
    ours = {*told["status"], "lastTokenIssuedAt"}
    assert set(beside.objects.get("clientcredentials", "shared")["status"]) | {"lastTokenIssuedAt"} == ours

    # Whom the other one never lets go is deleted for us.
    beside.kubectl("delete", "clientcredential", "shared", "--wait=false")
    wait_until(lambda: beside.replicas[0].token_info(token).status_code == 401, "the deletion to count", seconds=5)
    assert client.request().status_code == 401
    assert beside.objects.get("clientcredentials", "shared")["metadata"]["deletionTimestamp"]
    assert [one for one in beside.objects.events("shared") if one["reason"] == "Deleted"]
