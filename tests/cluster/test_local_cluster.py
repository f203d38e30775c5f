"""The local cluster: started fast, once, on loopback only, found broken when it is, and gone without a trace."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyturn_dev import process
from keyturn_dev.cluster import AlreadyRunning, Cluster
from keyturn_dev.waiting import wait_until

START_SECONDS = 10.0
PARTS = {"etcd", "kube-apiserver", "kube-controller-manager"}


@pytest.fixture
def own(cluster_build: subprocess.Popen[bytes] | None, tmp_path: Path) -> Iterator[Cluster]:
    assert cluster_build is not None
    assert cluster_build.wait(timeout=1500) == 0, "the cluster's programs could not be built"
    # A path with a space, as people have them.
    one = Cluster(tmp_path / "a state")
    yield one
    one.down()


def command(own: Cluster, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "keyturn_dev.cluster", name, "--state", str(own.state)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def gone(records: tuple[process.ProcessRecord, ...]) -> bool:
    return not any(process.is_alive(one) for one in records)


def listening(records: tuple[process.ProcessRecord, ...]) -> set[str]:
    """The addresses on which these processes listen, as /proc/net has them (in hexadecimal, the machine's byte order)."""
    inodes = set()
    for record in records:
        for link in Path(f"/proc/{record.pid}/fd").iterdir():
            try:
                found = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
            except OSError:
                continue
            if found:
                inodes.add(found.group(1))
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            # State 0A is LISTEN.
            if fields[3] == "0A" and fields[9] in inodes:
                addresses.add(fields[1].partition(":")[0])
    return addresses


def test_it_starts_fast_listens_on_loopback_only_and_a_second_start_is_refused(own: Cluster) -> None:
    began = time.monotonic()
    first = command(own, "up")
    took = time.monotonic() - began
    assert first.returncode == 0, first.stderr
    # What a person sees once it is built; the machine may be doing other things as well.
    assert took < 2 * START_SECONDS
    status = own.status()
    assert status.up
    assert {one.name for one in status.alive} == PARTS
    assert listening(status.alive) == {"0100007F"}

    second = command(own, "up")
    assert "runs already" in second.stderr
    assert own.status().alive == status.alive
    with pytest.raises(AlreadyRunning):
        own.up()

    done = command(own, "down")
    assert done.returncode == 0
    assert gone(status.alive)
    assert not own.kubeconfig.exists()
    assert not (own.state / "etcd").exists()
    again = command(own, "down")
    assert again.returncode == 0
    assert "no cluster was running" in again.stderr


def test_a_part_that_was_killed_is_named_and_what_remains_is_taken_down(own: Cluster) -> None:
    own.up()
    before = own.status().alive
    (etcd,) = [one for one in before if one.name == "etcd"]
    os.kill(etcd.pid, signal.SIGKILL)
    wait_until(lambda: not process.is_alive(etcd), "etcd to end", seconds=10)
    assert not own.is_up()
    said = command(own, "status")
    assert said.returncode == 3
    assert "etcd" in said.stdout
    with pytest.raises(AlreadyRunning, match="etcd"):
        own.up()
    assert own.down()
    assert gone(before)
    own.up()
    after = own.status()
    assert after.up
    assert not {one.pid for one in after.alive} & {one.pid for one in before}
