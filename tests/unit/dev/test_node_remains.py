"""What is found of an ended node: only its own mounts and network namespaces."""

import json

import pytest

from keyturn_dev.node_remains import addresses, mounts_below, network_namespaces


def test_the_innermost_mounts_come_first_and_others_mounts_not_at_all() -> None:
    table = (
        "/dev/vda / ext4 rw 0 0\n"
        "/dev/vda /var/lib/keyturn-node/kubelet ext4 rw 0 0\n"
        "tmpfs /var/lib/keyturn-node/kubelet/pods/1/volumes/a\\040b tmpfs rw 0 0\n"
        "tmpfs /var/lib/keyturn-node-of-others tmpfs rw 0 0\n"
    )
    assert mounts_below(table, "/var/lib/keyturn-node") == [
        "/var/lib/keyturn-node/kubelet/pods/1/volumes/a b",
        "/var/lib/keyturn-node/kubelet",
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        pytest.param("/var/run/netns/cni-0a1b-2c", {"cni-0a1b-2c"}, id="one that containerd made"),
        pytest.param("/var/run/netns/theirs", set(), id="somebody else's"),
        pytest.param("/var/run/netns/cni-0a/../x", set(), id="a path out of the folder"),
        pytest.param("/proc/1/ns/net", set(), id="the machine's own"),
    ],
)
def test_a_container_s_network_namespace_is_found(path: str, found: set[str]) -> None:
    info = {"Spec": {"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": path}]}}}
    assert network_namespaces(json.dumps(info)) == found


@pytest.mark.parametrize("info", ["", "{}", '{"Spec": null}', "[]"], ids=["nothing", "no spec", "null", "a list"])
def test_an_answer_that_tells_nothing_names_no_namespace(info: str) -> None:
    assert network_namespaces(info) == set()


def test_the_addresses_of_a_namespace_are_read() -> None:
    shown = '[{"ifname": "lo", "addr_info": [{"local": "127.0.0.1"}]}, {}, {"addr_info": [{"local": "198.18.0.63"}]}]'
    assert [str(one) for one in addresses(shown)] == ["127.0.0.1", "198.18.0.63"]


@pytest.mark.parametrize(
    "shown", ["", "[7]", '[{"addr_info": [{"local": "x"}]}]'], ids=["nothing", "a number", "a word"]
)
def test_an_answer_without_addresses_has_none(shown: str) -> None:
    assert addresses(shown) == []
