"""The command as people type it, from its help to Ctrl-C."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys

import httpx2
import pytest
import yaml

from keyturn_dev.loopback import free_ports
from tests.cluster.clients import World


def examples() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "keyturn_cli.main", "console", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1"},
    )
    return re.findall(r"\$ keyturn (console.*)", done.stdout)


@pytest.mark.parametrize("number", range(3))
def test_each_example_of_the_help_shows_the_page_until_ctrl_c(world: World, number: int) -> None:
    found = examples()
    assert len(found) == 3
    access = str(world.installation.target.kubeconfig)
    with open(access, encoding="utf-8") as file:  # noqa: PTH123
        context = yaml.safe_load(file)["current-context"]
    here = {"shop": world.namespace, "production": context, "8123": str(free_ports(1)[0])}
    words = [here.get(word, word) for word in shlex.split(found[number])]
    # Nobody's browser is to open here.
    quiet = [] if "--no-browser" in words else ["--no-browser"]
    process = subprocess.Popen(
        [sys.executable, "-m", "keyturn_cli.main", *words, *quiet, "--kubeconfig", access],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        answer = httpx2.get(f"{url}clients", trust_env=False, timeout=30)
        assert answer.status_code == 200
        # A page that listens for changes does not hold the end up.
        with httpx2.stream("GET", f"{url}events/clients", trust_env=False, timeout=30) as listening:
            assert next(listening.iter_text()).startswith("retry")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    # The address is a secret: it stands on stdout alone.
    assert url.rstrip("/").rpartition("/")[2] not in said
    assert "Traceback" not in said
