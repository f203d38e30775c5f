"""What the README tells a newcomer to type, typed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from keyturn_dev import run
from tests.documents import PROJECT, RUN_BY, blocks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.conftest import StartInstallation


# A machine that has only what the README asks for has no curl. This one knows the options that the README uses.
CURL = """
import sys, urllib.error, urllib.request
arguments = iter(sys.argv[1:])
show, headers, url = False, {}, ""
for one in arguments:
    if one == "-i":
        show = True
    elif one == "-H":
        name, _, value = next(arguments).partition(": ")
        headers[name] = value
    elif one != "-s":
        url = one
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10)
except urllib.error.HTTPError as error:
    answer = error
if show:
    print(f"HTTP/1.1 {answer.status}")
    print(answer.headers)
print(answer.read().decode())
"""


def test_the_commands_for_doing_it_by_hand_end_in_an_allowed_request(
    start_installation: StartInstallation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = [block.text for block in blocks(PROJECT / "README.md") if RUN_BY.fullmatch(block.mark)]
    installation = start_installation()
    checkout = tmp_path / "a checkout"
    (checkout / ".run").mkdir(parents=True)
    (checkout / "examples").symlink_to(PROJECT / "examples")
    monkeypatch.setattr(run, "ENV", checkout / ".run" / "env")
    (checkout / ".run" / "env").write_text(run.env_file(installation), encoding="utf-8")
    (checkout / ".run" / "shell").write_text(run.shell_file(installation), encoding="utf-8")

    (tmp_path / "curl.py").write_text(CURL, encoding="utf-8")
    curl = f'curl() {{ {shlex.quote(sys.executable)} {shlex.quote(str(tmp_path / "curl.py"))} "$@"; }}\n'

    environ = {name: value for name, value in os.environ.items() if not name.startswith(("KEYTURN_", "KUBE"))}
    done = subprocess.run(
        ["/bin/sh", "-eu"],
        input=curl + script,
        cwd=checkout,
        env=environ,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    _, information, decision = done.stdout.rpartition('{"iss"')
    assert f'"client_id":"{installation.namespace}.demo"' in decision, information
    assert "HTTP/1.1 200" in decision
    assert "mia-allowed: 1" in decision
