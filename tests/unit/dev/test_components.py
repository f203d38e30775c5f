"""How the servers are called: on loopback only, and nothing is open to another user of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn_dev import components
from keyturn_dev.binaries import Binaries

STATE = Path("/a path/with blanks")
PORTS = components.Ports(etcd=1, etcd_peer=2, api_server=3)
BIN = Binaries(Path("/b/etcd"), Path("/b/kube-apiserver"), Path("/b/kube-controller-manager"), Path("/b/kubectl"))
COMMANDS = {
    "etcd": components.etcd_command(BIN, STATE, PORTS),
    "api server": components.api_server_command(BIN, STATE, PORTS),
    "controller manager": components.controller_manager_command(BIN, STATE),
}


def options(command: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (argument.partition("=") for argument in command[1:])}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_option_is_one_argument_also_with_blanks_in_the_path(command: list[str]) -> None:
    assert all(argument.startswith("--") for argument in command[1:])
    assert len(options(command)) == len(command) - 1


def test_etcd_listens_on_loopback_and_wants_certificates() -> None:
    given = options(COMMANDS["etcd"])
    for name in ("--listen-client-urls", "--listen-peer-urls"):
        assert given[name].startswith("https://127.0.0.1:")
    assert {"--client-cert-auth", "--peer-client-cert-auth"} <= given.keys()


def test_the_api_server_listens_on_loopback_authorizes_by_rbac_and_knows_no_anonymous() -> None:
    given = options(COMMANDS["api server"])
    assert given["--bind-address"] == "127.0.0.1"
    assert given["--secure-port"] == "3"
    assert given["--authorization-mode"] == "RBAC"
    assert given["--anonymous-auth"] == "false"
    assert given["--service-account-issuer"] == "https://kubernetes.default.svc"
    assert "--api-audiences" not in given
    assert not any("admission" in name for name in given)


def test_the_controller_manager_serves_nothing_and_collects_garbage() -> None:
    given = options(COMMANDS["controller manager"])
    assert given["--secure-port"] == "0"
    assert {"garbage-collector-controller", "namespace-controller"} <= set(given["--controllers"].split(","))
