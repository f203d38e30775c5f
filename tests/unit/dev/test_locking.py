"""One at a time, and a lock that never outlives its holders."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from keyturn_dev.errors import DevError
from keyturn_dev.locking import exclusive

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_holder_is_told_who_is_first_and_gives_up_in_time(tmp_path: Path) -> None:
    said: list[str] = []
    lock = tmp_path / "lock"
    with exclusive(lock, "building", seconds=1, on_wait=said.append):
        assert said == []
        with (
            pytest.raises(DevError, match=rf"0\.2 s in vain for process {os.getpid()} to finish with building"),
            exclusive(lock, "building", seconds=0.2, on_wait=said.append),
        ):
            pytest.fail("two hold the lock")
    assert said == [f"process {os.getpid()} is busy with building; waiting for it to finish"]


def test_the_lock_is_free_again_after_its_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with exclusive(tmp_path / "lock", "building", seconds=0, on_wait=pytest.fail):
            pass


def test_a_child_that_got_the_lock_keeps_it_until_it_ends(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with exclusive(lock, "building", seconds=0, on_wait=pytest.fail) as descriptor:
        child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    with pytest.raises(DevError), exclusive(lock, "building", seconds=0, on_wait=lambda _: None):
        pytest.fail("two hold the lock")
    child.communicate()
    with exclusive(lock, "building", seconds=0, on_wait=pytest.fail):
        pass


def test_a_lock_in_a_place_that_is_no_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DevError, match="file/lock cannot be used for building"),
        exclusive(tmp_path / "file" / "lock", "building", seconds=0, on_wait=pytest.fail),
    ):
        pytest.fail("locked")
