"""A recorded process is found again, and no other process is ever taken for it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from keyturn_dev import process
from keyturn_dev.errors import DevError
from keyturn_dev.locking import exclusive
from keyturn_dev.process import ProcessRecord, ProcessStat, parse_record, parse_stat, same_process
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORD = ProcessRecord(name="etcd", pid=42, started=1000, boot="boot-1")
REST = "S 1 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 9 0 7654 1000 2000"


@pytest.mark.parametrize(
    "name",
    ["etcd", "kube apiserver", "a) S 1 (b", "((("],
    ids=["a plain name", "a name with a blank", "a name that looks like the fields after it", "a name of parentheses"],
)
def test_a_stat_line_is_read_whatever_the_program_is_called(name: str) -> None:
    assert parse_stat(f"42 ({name}) {REST}\n") == ProcessStat(pid=42, state="S", started=7654)


@pytest.mark.parametrize(
    "line", ["", "42", "42 (etcd) S 1 2", "x (etcd) " + REST], ids=["empty", "cut", "short", "no pid"]
)
def test_a_line_that_is_no_stat_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        parse_stat(line)


def test_a_record_holds_the_boot_and_the_start() -> None:
    assert parse_record("etcd", f"boot-1\n42 (sh) {REST}\n") == dataclasses.replace(RECORD, started=7654)


@pytest.mark.parametrize("text", ["", f"\n42 (sh) {REST}", "boot-1\n", "boot-1\n42 (sh"])
def test_half_a_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_record("etcd", text)


@pytest.mark.parametrize(
    ("boot", "stat", "same"),
    [
        ("boot-1", ProcessStat(42, "S", 1000), True),
        ("boot-1", ProcessStat(42, "R", 1000), True),
        ("boot-1", ProcessStat(42, "S", 1001), False),
        ("boot-2", ProcessStat(42, "S", 1000), False),
        ("boot-1", ProcessStat(43, "S", 1000), False),
        ("boot-1", ProcessStat(42, "Z", 1000), False),
        ("boot-1", None, False),
    ],
    ids=[
        "the same, asleep",
        "the same, running",
        "another one that got the id later",
        "one of the same id and time in another boot",
        "another id",
        "a zombie",
        "none of that id",
    ],
)
def test_only_the_recorded_process_counts_as_it(boot: str, stat: ProcessStat | None, same: bool) -> None:
    assert same_process(RECORD, boot, stat) is same


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ProcessRecord]:
    with exclusive(tmp_path / "lock", "the test", seconds=1, on_wait=print) as lock:
        record = process.spawn(
            "sleeper", ["/bin/sleep", "60"], records=tmp_path, log=tmp_path / "log", environ={}, lock=lock
        )
    yield record
    process.stop(record)


def test_a_started_process_is_found_by_its_record_and_ended(sleeper: ProcessRecord, tmp_path: Path) -> None:
    assert process.read_records(tmp_path) == [sleeper]
    assert process.is_alive(sleeper)
    assert process.stop(sleeper)
    assert not process.is_alive(sleeper)
    assert process.read_stat(sleeper.pid) is None, "a zombie stays behind"


def test_a_started_process_leads_a_session_of_its_own_so_that_ctrl_c_does_not_reach_it(sleeper: ProcessRecord) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid


def test_a_started_process_does_not_keep_the_lock(sleeper: ProcessRecord, tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", "the test", seconds=1, on_wait=pytest.fail):
        assert process.is_alive(sleeper)


@pytest.mark.parametrize(
    "change", [{"started": 1}, {"boot": "another-boot"}], ids=["started at another time", "recorded before a reboot"]
)
def test_a_stranger_that_has_the_recorded_id_is_left_alone(sleeper: ProcessRecord, change: dict[str, object]) -> None:
    stale = dataclasses.replace(sleeper, **change)  # type: ignore[arg-type]
    assert not process.stop(stale)
    assert process.is_alive(sleeper)


def test_a_process_that_ignores_the_request_is_ended_by_force(tmp_path: Path) -> None:
    deaf = ["/bin/sh", "-c", 'trap "" TERM; echo deaf; while :; do sleep 0.05; done']
    with exclusive(tmp_path / "lock", "the test", seconds=1, on_wait=print) as lock:
        record = process.spawn("deaf", deaf, records=tmp_path, log=tmp_path / "log", environ={}, lock=lock)
    wait_until(lambda: (tmp_path / "log").read_bytes() == b"deaf\n", "the trap", seconds=5)
    assert process.stop(record, grace=0.1)
    assert not process.is_alive(record)


def test_stopping_what_ended_by_itself_does_nothing(sleeper: ProcessRecord) -> None:
    assert process.stop(sleeper)
    assert not process.stop(sleeper)


def test_a_process_that_cannot_be_recorded_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "etcd.process.new").mkdir()
    with (
        exclusive(tmp_path / "lock", "the test", seconds=1, on_wait=print) as lock,
        pytest.raises(DevError, match="etcd could not be started"),
    ):
        process.spawn("etcd", ["/bin/true"], records=tmp_path, log=tmp_path / "log", environ={}, lock=lock)


def test_a_record_that_a_killed_launcher_left_half_written_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "half.process").write_text("boot-1\n42 (sh")
    (tmp_path / "etcd.process").write_text(f"boot-1\n42 (sh) {REST}\n")
    assert [record.name for record in process.read_records(tmp_path)] == ["etcd"]


def test_the_end_of_a_log_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert process.log_tail(log, lines=2) == "line 9998\nline 9999"
    assert len(process.log_tail(log, lines=10_000)) <= 16_384


def test_a_missing_and_an_empty_log_are_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert process.log_tail(tmp_path / "none") == "(no log)"
    assert process.log_tail(tmp_path / "empty") == "(its log is empty)"


def test_the_uptime_is_counted_from_the_start(sleeper: ProcessRecord) -> None:
    assert 0 <= process.uptime_of(sleeper) < 30
    first = subprocess.run(["cat", "/proc/1/stat"], capture_output=True, text=True, check=True).stdout
    stat = parse_stat(first)
    init = ProcessRecord("init", 1, stat.started, process.boot_id())
    assert process.uptime_of(init) > process.uptime_of(sleeper)
