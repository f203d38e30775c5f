"""What a figure belongs to: the machine and the programs."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend


def cpu_model(cpuinfo: str) -> str:
    """Return the processor's name from /proc/cpuinfo; on architectures that name none, `unknown processor`."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return " ".join(value.split())
    return "unknown processor"


def total_memory(meminfo: str) -> int:
    """Return the machine's memory in GiB, rounded, from /proc/meminfo; 0 if it does not say."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) / 1024 / 1024)
    return 0


def describe() -> str:
    """Return one line about this machine."""
    cores = len(os.sched_getaffinity(0))
    model = cpu_model(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    memory = total_memory(Path("/proc/meminfo").read_text(encoding="ascii"))
    return (
        f"{cores} cores of {model}, {memory} GiB; Linux {platform.release()};"
        f" {platform.python_implementation()} {platform.python_version()}; {backend.openssl_version_text()}"
    )
