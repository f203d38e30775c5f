"""The command as kubectl's plugin and in a shell that completes it: with the real kubectl and the real bash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.clients import World
from tests.people.command_line import kubeconfig

SCRIPTS = Path(sys.executable).parent


def called(*words: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """With the installed scripts on the PATH, and a home without anything in it."""
    return subprocess.run(
        words,
        env={
            "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "dumb",
            "COLUMNS": "400",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=folder,
    )


@pytest.fixture(scope="module")
def kubectl(world: World) -> str:
    return str(world.installation.target.kubectl)


def test_kubectl_runs_the_command_with_its_own_kubeconfig(world: World, kubectl: str, tmp_path: Path) -> None:
    client = world.client("plugin").apply(permissions=["a"])
    client.wait()
    config = str(kubeconfig(world))
    shown = called(kubectl, "keyturn", "clients", "list", "-o", "name", folder=tmp_path, KUBECONFIG=config)
    assert shown.returncode == 0, shown.stderr
    assert f"clientcredential.keyturn.dev/{client.name}" in shown.stdout.split()
    absent = called(kubectl, "keyturn", "clients", "show", "no-such-client", folder=tmp_path, KUBECONFIG=config)
    assert absent.returncode == 1
    assert "no-such-client is not there" in absent.stderr
    listed = called(kubectl, "plugin", "list", "--name-only", folder=tmp_path).stdout.split()
    assert "kubectl-keyturn" in listed


def test_its_examples_with_kubectl_do_what_they_say(kubectl: str, tmp_path: Path) -> None:
    shown = called(kubectl, "keyturn", "version", "--help", folder=tmp_path).stdout
    assert "Usage: kubectl keyturn version" in shown
    assert "$ kubectl keyturn version" in shown
    said = [called(*command, folder=tmp_path) for command in (("keyturn", "version"), (kubectl, "keyturn", "version"))]
    assert [one.returncode for one in said] == [0, 0]
    assert said[0].stdout == said[1].stdout != ""


@pytest.mark.parametrize(
    ("words", "offered"),
    [(["clients", "s"], {"show", "suspend"}), (["rot"], {"rotate"}), (["clients", "list", "--exp"], {"--expiring"})],
    ids=["a command of a group", "a command", "an option"],
)
def test_kubectl_completes_it(kubectl: str, tmp_path: Path, words: list[str], offered: set[str]) -> None:
    done = called(kubectl, "__complete", "keyturn", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert offered <= set(done.stdout.split())


def test_bash_completes_it_once_that_is_installed(tmp_path: Path) -> None:
    """As docs/cli.md has it typed."""
    installed = called("bash", "-c", "keyturn --install-completion; exit $?", folder=tmp_path)
    assert installed.returncode == 0, installed.stderr
    script = (
        "shopt -s expand_aliases; . ~/.bashrc; complete -p keyturn; "
        'COMP_WORDS=(keyturn clients s); COMP_CWORD=2; _keyturn_completion keyturn; echo "${COMPREPLY[@]}"'
    )
    done = called("bash", "--norc", "-c", script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"show", "suspend"} <= set(done.stdout.split())
