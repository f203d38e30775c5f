"""What a node leaves on its machine when it ends, or is ended: containers, network namespaces, mounts. Nobody else takes these away."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keyturn_dev.node_components import CONTAINERD_SOCKET, DATA
from keyturn_dev.node_network import POD_RANGE, ROOT_PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

RUN: Final = str(Path(CONTAINERD_SOCKET).parent)
_NETWORK_NAMESPACE: Final = re.compile(r"/(?:var/)?run/netns/(cni-[0-9a-f-]+)")


def quietly(command: Sequence[str], seconds: float = 30) -> str | None:
    """What a command printed; None if it failed, took longer than `seconds`, or is not there."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds, env={"PATH": ROOT_PATH, "HOME": DATA}
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def end_containers() -> None:
    """Ends what the node's containerd still runs, and takes away the network namespaces that it had made. containerd must answer."""
    ctr = ["ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io"]
    namespaces = set()
    for container in (quietly([*ctr, "containers", "ls", "--quiet"]) or "").split():
        namespaces |= network_namespaces(quietly([*ctr, "containers", "info", container]) or "{}")
        quietly([*ctr, "tasks", "kill", "--signal", "SIGKILL", container])
        quietly([*ctr, "tasks", "rm", "--force", container])
        quietly([*ctr, "containers", "rm", container])
    for name in namespaces:
        quietly(["ip", "netns", "delete", name])


def network_namespaces(info: str) -> set[str]:
    """The names of the network namespaces in what `ctr containers info` prints."""
    try:
        wanted = json.loads(info)["Spec"]["linux"]["namespaces"]
    except (ValueError, KeyError, TypeError):
        return set()
    found = (_NETWORK_NAMESPACE.fullmatch(str(one.get("path"))) for one in wanted if one.get("type") == "network")
    return {one[1] for one in found if one}


def end_orphans() -> None:
    """Ends shims whose containerd is gone, and the first process of each container, with which its others end."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if Path(arguments[0].decode(errors="replace")).name.startswith("containerd-shim") and (
                CONTAINERD_SOCKET.encode() in arguments
            ):
                children = [pid for task in folder.glob("task/*/children") for pid in task.read_text().split()]
                quietly(["kill", "-KILL", *children, folder.name])


def clear_network_namespaces() -> None:
    """Takes away what was made for pods by a containerd that is gone: network namespaces with an address of the pods' range."""
    pods = ipaddress.ip_network(POD_RANGE)
    for path in Path("/run/netns").glob("cni-*"):
        shown = quietly(["ip", "-netns", path.name, "-json", "-4", "address", "show"])
        if shown is not None and any(address in pods for address in addresses(shown)):
            quietly(["ip", "netns", "delete", path.name])


def addresses(shown: str) -> list[ipaddress.IPv4Address]:
    """The addresses in what `ip -json -4 address show` prints."""
    try:
        return [ipaddress.IPv4Address(one["local"]) for link in json.loads(shown) for one in link.get("addr_info", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def mounts_below(table: str, *folders: str) -> list[str]:
    """The mount points of /proc/mounts at or below these folders, the innermost first."""
    # proc(5): blanks and backslashes are written in octal.
    points = [
        re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[1]) for line in table.splitlines()
    ]
    ours = [point for point in points if any(point == folder or point.startswith(f"{folder}/") for folder in folders)]
    return sorted(ours, key=lambda point: (point.count("/"), len(point)), reverse=True)


def clear_mounts() -> None:
    """Unmounts whatever is mounted below the node's folders, and removes the pods' files. Volumes and images stay."""
    for point in mounts_below(Path("/proc/mounts").read_text(encoding="utf-8"), DATA, RUN):
        quietly(["umount", "--lazy", point])
    if mounts_below(Path("/proc/mounts").read_text(encoding="utf-8"), f"{DATA}/kubelet"):
        return  # nothing is removed through a mount
    shutil.rmtree(f"{DATA}/kubelet", ignore_errors=True)
