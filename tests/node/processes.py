"""The pods' processes, as the node's own process table shows them."""

import os
import re
import signal
from pathlib import Path
from typing import Any


def processes_of(pod: dict[str, Any]) -> list[int]:
    """The process ids of a pod's containers, without its sandbox."""
    wanted = f"pod{pod['metadata']['uid']}"
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "cgroup").read_text() and (folder / "comm").read_text().strip() != "pause":
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def resident_mib(pod: dict[str, Any]) -> float:
    """What a pod's processes hold in memory, in MiB; pages that two of them share count twice."""
    total = 0
    for pid in processes_of(pod):
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        total += int(found[1]) if found else 0
    assert total, f"{pod['metadata']['name']} has no process"
    return total / 1024


def kill(pod: dict[str, Any]) -> None:
    """Ends a pod's processes as a power cut would: nothing is released, no Kubernetes is told."""
    found = processes_of(pod)
    assert found, f"{pod['metadata']['name']} has no process"
    for pid in found:
        os.kill(pid, signal.SIGKILL)
