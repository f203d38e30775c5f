"""A cluster's state folder: what is in it decides, and nothing that is not ours is touched."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keyturn_dev import process
from keyturn_dev.binaries import Binaries
from keyturn_dev.cluster import AlreadyRunning, Cluster, PortTaken, main
from keyturn_dev.errors import DevError, UsageError
from keyturn_dev.locking import exclusive
from keyturn_dev.progress import Progress
from tests.unit.dev.programs import write_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn_dev.process import ProcessRecord


class FakeCluster(Cluster):
    """Its programs are scripts: etcd counts its starts and ends at once."""

    last_words = "no space left"

    @property
    def starts(self) -> int:
        return len((self.state.parent / "starts").read_text().splitlines())

    def build(self) -> Binaries:
        folder = self.state.parent / "bin"
        script = f"echo start >>'{self.state.parent / 'starts'}'; echo '{self.last_words}'; exit 1"
        etcd = write_program(folder, "etcd", script)
        other = write_program(folder, "other", "exec sleep 60")
        return Binaries(etcd, other, other, other)


class NobodyAnswers:
    def __init__(self, certs: Path, port: int, host: str) -> None: ...

    def get(self, path: str) -> int | None:
        return None


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setattr("keyturn_dev.cluster.free_ports", lambda count: list(range(1, count + 1)))
    monkeypatch.setattr("keyturn_dev.cluster.ApiServerProbe", NobodyAnswers)
    return FakeCluster(tmp_path / "the state", environ={}, progress=Progress(io.StringIO()))


@pytest.fixture
def running(cluster: FakeCluster) -> Iterator[ProcessRecord]:
    """A process that is recorded as the cluster's etcd."""
    records = cluster.state / "processes"
    records.mkdir(parents=True)
    with exclusive(cluster.state / "lock", "the test", seconds=1, on_wait=print) as lock:
        record = process.spawn(
            "etcd", ["/bin/sleep", "60"], records=records, log=cluster.state / "log", environ={}, lock=lock
        )
    (cluster.state / "log").unlink()
    yield record
    process.stop(record)


def mark_ready(cluster: Cluster) -> None:
    (cluster.state / "ready.json").write_text(json.dumps({"server": "https://127.0.0.1:1"}))


def record_from_before_a_reboot(cluster: FakeCluster) -> None:
    """Record this very test process's id, as if a cluster had had it in an earlier boot."""
    folder = cluster.state / "processes"
    folder.mkdir(parents=True)
    stat = Path("/proc/self/stat").read_text(encoding="ascii")
    (folder / "etcd.process").write_text("an-earlier-boot\n" + stat, encoding="ascii")


def test_without_a_state_folder_nothing_runs_and_down_makes_none(cluster: FakeCluster) -> None:
    assert not cluster.is_up()
    assert not cluster.down()
    assert not cluster.state.exists()


def test_a_cluster_is_up_when_it_was_ready_and_all_of_it_lives(cluster: Cluster, running: ProcessRecord) -> None:
    assert not cluster.is_up(), "not ready yet"
    mark_ready(cluster)
    assert cluster.is_up()
    process.stop(running)
    assert not cluster.is_up()
    assert cluster.status().ended == (running,)


def test_a_second_start_says_that_one_runs_and_leaves_it_alone(cluster: Cluster, running: ProcessRecord) -> None:
    mark_ready(cluster)
    with pytest.raises(AlreadyRunning, match=rf"runs already: etcd \(process {running.pid}\)"):
        cluster.up()
    assert cluster.is_up()


def test_down_ends_what_runs_and_removes_the_state(cluster: Cluster, running: ProcessRecord) -> None:
    mark_ready(cluster)
    assert cluster.down()
    assert not process.is_alive(running)
    assert [path.name for path in cluster.state.iterdir()] == ["lock"]
    assert not cluster.down()


def test_down_after_a_reboot_clears_up_and_signals_nobody(cluster: FakeCluster) -> None:
    record_from_before_a_reboot(cluster)
    mark_ready(cluster)
    assert not cluster.is_up()
    assert not cluster.down()
    assert [path.name for path in cluster.state.iterdir()] == ["lock"]


def test_a_part_that_dies_at_the_start_is_named_with_its_log_and_nothing_stays(cluster: FakeCluster) -> None:
    record_from_before_a_reboot(cluster)
    with pytest.raises(DevError, match=r"etcd ended while the cluster started(.*\n)*no space left"):
        cluster.up()
    assert cluster.starts == 1
    assert cluster.status().alive == ()
    assert [path.name for path in cluster.state.iterdir()] == ["lock"]


def test_a_port_that_another_program_took_is_chosen_anew_but_not_forever(cluster: FakeCluster) -> None:
    cluster.last_words = "listen tcp 127.0.0.1:1: bind: address already in use"
    with pytest.raises(PortTaken, match="address already in use"):
        cluster.up()
    assert cluster.starts == 3
    assert [path.name for path in cluster.state.iterdir()] == ["lock"]


def test_the_remains_of_a_start_that_was_killed_are_taken_down_by_the_next(
    cluster: Cluster, running: ProcessRecord
) -> None:
    with pytest.raises(DevError, match="no space left"):
        cluster.up()
    assert not process.is_alive(running)


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_folder_with_something_else_in_it_is_not_touched(command: str, cluster: Cluster) -> None:
    cluster.state.mkdir()
    (cluster.state / "thesis.txt").write_text("ten years")
    with pytest.raises(UsageError, match=r"holds thesis\.txt"):
        getattr(cluster, command)()
    assert [path.name for path in cluster.state.iterdir()] == ["thesis.txt"]


def test_status_tells_a_script_that_no_cluster_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--state", str(tmp_path / "none")]) == 3
    assert "no cluster runs" in capsys.readouterr().out
