"""The node's addresses: all of them from ranges that are set aside for documentation and tests, so that they meet no one's network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keyturn_dev.components import Network
from keyturn_dev.errors import DevError

if TYPE_CHECKING:
    from collections.abc import Sequence

NODE_ADDRESS: Final = "192.0.2.10"
# The kernel of a container has no dummy device everywhere, but a bridge.
NODE_BRIDGE: Final = "keyturn0"
POD_BRIDGE: Final = "keyturn1"
POD_RANGE: Final = "198.18.0.0/24"
SERVICE_RANGE: Final = "198.19.0.0/24"
KUBERNETES_SERVICE: Final = "198.19.0.1"
DNS_SERVICE: Final = "198.19.0.10"
NETWORK: Final = Network(bind=NODE_ADDRESS, advertise=NODE_ADDRESS, services=SERVICE_RANGE, pods=True)
CNI_PROGRAMS: Final = Path("/usr/lib/cni")
# Where programs lie that only root uses.
ROOT_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def cni_configuration(state: Path) -> dict[str, object]:
    """The pods' network: one bridge, addresses handed out by the host. `state`: where the addresses in use are noted."""
    ranges = [[{"subnet": POD_RANGE}]]
    ipam = {"type": "host-local", "dataDir": str(state), "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": POD_BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": "keyturn", "plugins": [bridge]}


def make_bridge() -> None:
    """Gives the node its address and lets packets pass between pods and Services. Raises `DevError` without the right to."""
    if not _ip("link", "show", NODE_BRIDGE):
        for arguments in (
            ("link", "add", NODE_BRIDGE, "type", "bridge"),
            ("addr", "add", f"{NODE_ADDRESS}/24", "dev", NODE_BRIDGE),
            ("link", "set", NODE_BRIDGE, "up"),
        ):
            if not _ip(*arguments):
                raise DevError(f"ip {' '.join(arguments)} failed: a node needs root and a kernel with bridges")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
    for rule in _FORWARDING:
        if not _iptables("--check", *rule) and not _iptables("--insert", *rule):
            raise DevError("iptables failed: a node needs root and a kernel with netfilter")


def remove_bridges() -> None:
    """Takes both bridges away, if they are there, and what let packets pass."""
    for bridge in (POD_BRIDGE, NODE_BRIDGE):
        _ip("link", "del", bridge)
    for rule in _FORWARDING:
        _iptables("--delete", *rule)


# Docker sets the policy of this chain to DROP for everybody on the machine.
_FORWARDING: Final = (
    ("FORWARD", "--in-interface", POD_BRIDGE, "--jump", "ACCEPT"),
    ("FORWARD", "--out-interface", POD_BRIDGE, "--jump", "ACCEPT"),
)


def _ip(*arguments: str) -> bool:
    return _run("ip", "iproute2", arguments)


def _iptables(*arguments: str) -> bool:
    return _run("iptables", "iptables", ("--wait", "10", *arguments))


def _run(name: str, package: str, arguments: Sequence[str]) -> bool:
    program = shutil.which(name, path=ROOT_PATH)
    if program is None:
        raise DevError(f"{name} is needed for a node; on Debian: apt-get install {package}")
    return subprocess.run([program, *arguments], capture_output=True, check=False, timeout=30).returncode == 0
