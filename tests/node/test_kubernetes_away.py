"""The Kubernetes API out of the operators' reach, without a connection being closed: packets just vanish."""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

from keyturn_dev.node_network import NODE_ADDRESS, ROOT_PATH
from keyturn_dev.waiting import wait_until
from tests.node.kubectl import Kubectl
from tests.node.load import Caller, Load
from tests.node.test_under_load import all_available, leader, pods, rule

TAKEOVER_SECONDS = 20.0


def iptables(*arguments: str) -> None:
    subprocess.run(["iptables", "--wait", "10", *arguments], check=True, timeout=30, env={"PATH": ROOT_PATH})


@contextlib.contextmanager
def cut_off(cut: Sequence[dict[str, Any]]) -> Iterator[None]:
    """Nothing from these pods reaches the API server; their probes are answered as ever."""
    rules = [
        [
            "INPUT",
            "--source",
            pod["status"]["podIP"],
            "--destination",
            NODE_ADDRESS,
            "--protocol",
            "tcp",
            "--jump",
            "DROP",
        ]
        for pod in cut
    ]
    # The answers to the kubelet's probes come from the pods' own ports.
    rules = [[*rule[:1], *rule[1:], "--match", "tcp", "!", "--source-port", "8081"] for rule in rules]
    with contextlib.ExitStack() as stack:
        for one in rules:
            iptables("--insert", *one)
            stack.callback(iptables, "--delete", *one)
        yield


def ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def test_a_leader_whose_packets_vanish_is_followed_in_time(shop: Kubectl, caller: Caller) -> None:
    all_available(shop)
    token = caller.token()
    first = leader(shop)
    with Load(caller) as load, load.nothing_lost(), cut_off([first]):
        began = time.monotonic()
        shop.apply(rule("vanished", "/vanished"))
        wait_until(lambda: caller.ask(token, "/vanished") == 200, "the change to be handled", seconds=40)
        took = time.monotonic() - began
        assert leader(shop)["metadata"]["name"] != first["metadata"]["name"]
    assert took < TAKEOVER_SECONDS + 5, took  # the Lease ends 15 s after its last renewal, and is looked at every 2 s
    shop("delete", "accessrule", "vanished")
    all_available(shop)


def test_with_all_operators_cut_off_the_api_serves_on_and_they_recover_by_themselves(
    shop: Kubectl, caller: Caller
) -> None:
    all_available(shop)
    token = caller.token()
    with Load(caller) as load, load.nothing_lost():
        with cut_off(pods(shop, "operator")):
            time.sleep(3)
            shop.apply(rule("meanwhile", "/meanwhile"))
            # Whoever led gives its Lease up within ten seconds, ends, and starts anew: not ready, as it should say.
            wait_until(lambda: not all(map(ready, pods(shop, "operator"))), "an operator not to be ready", seconds=60)
            assert caller.ask(token, "/meanwhile") == 403
        wait_until(lambda: caller.ask(token, "/meanwhile") == 200, "the change to be handled", seconds=90)
        wait_until(lambda: all(map(ready, pods(shop, "operator"))), "all operators to be ready", seconds=90)
    shop("delete", "accessrule", "meanwhile")
