"""kubectl's plugin, completion, progress and colours: each only where it belongs."""

from __future__ import annotations

import importlib
import io
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from keyturn_cli import completion, listing, progress
from keyturn_cli.commands import rotate
from keyturn_cli.main import app, main
from keyturn_cli.signing_key import Progress
from tests.documents import PROJECT

from .command import keyturn


def test_kubectl_finds_the_plugin_and_its_completion() -> None:
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts["kubectl-keyturn"] == scripts["keyturn"] == "keyturn_cli.main:main"
    assert scripts["kubectl_complete-keyturn"] == "keyturn_cli.completion:main"


@pytest.mark.parametrize(
    ("program", "called"), [("/usr/bin/kubectl-keyturn", "kubectl keyturn"), ("/usr/bin/keyturn", "keyturn")]
)
def test_help_names_the_command_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str, called: str
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "clients", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert f"Usage: {called} clients" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "found", "absent"),
    [
        pytest.param(["cli"], ["clients"], "token", id="a command"),
        pytest.param(["clients", "s"], ["show", "suspend"], "list", id="a command of a group"),
        pytest.param(["clients", "list", "--exp"], ["--expiring"], "--suspended", id="an option"),
        pytest.param([], ["doctor", "bundle"], "--port", id="nothing yet"),
    ],
)
def test_kubectl_is_told_the_words_that_may_follow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], found: list[str], absent: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-keyturn", *words])
    for name in ("_KEYTURN_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
        monkeypatch.setenv(name, "")
    completion.main()
    *offered, directive = capsys.readouterr().out.splitlines()
    assert set(found) <= set(offered)
    assert absent not in offered
    assert directive == ":4"


def test_shells_get_their_own_completion() -> None:
    assert "--install-completion" in keyturn("--help").stdout
    assert app.info.name == "keyturn"


@pytest.mark.parametrize(
    ("terminal", "after", "seconds", "shown"),
    # On a busy machine even nothing takes a while.
    [(True, 0.02, 0.3, True), (True, 60.0, 0.0, False), (False, 0.02, 0.1, False)],
    ids=["long, on a terminal", "short", "no terminal"],
)
def test_progress_shows_only_what_takes_long_and_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, after: float, seconds: float, shown: bool
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(progress, "AFTER_SECONDS", after)
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=written, force_terminal=terminal, width=80))
    with progress.working("Reading"), progress.working("Within"):
        time.sleep(seconds)
    assert ("Reading" in written.getvalue()) is shown
    assert "Within" not in written.getvalue()


@pytest.mark.parametrize(
    ("module", "slow", "arguments", "said"),
    [
        pytest.param("keygen", "generate", ["keygen", "x"], "Making the key", id="a key is made"),
        pytest.param(
            "convert", "convert_configuration", ["convert", "rules.json"], "Reading", id="rules are converted"
        ),
        pytest.param(
            "import_clients", "import_clients", ["import", "clients.json"], "Reading", id="clients are imported"
        ),
        pytest.param("test", "load_rules", ["test", "."], "Trying", id="rules are tried"),
    ],
)
def test_whatever_may_take_long_says_that_it_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, slow: str, arguments: list[str], said: str
) -> None:
    written = io.StringIO()
    command = importlib.import_module(f"keyturn_cli.commands.{module}")
    original = getattr(command, slow)

    def takes_long(*given: Any, **named: Any) -> Any:
        time.sleep(0.3)
        return original(*given, **named)

    monkeypatch.setattr(command, slow, takes_long)
    monkeypatch.setattr(progress, "AFTER_SECONDS", 0.02)
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=written, force_terminal=True, width=80))
    monkeypatch.chdir(tmp_path)
    for name in ("rules.json", "clients.json"):
        (tmp_path / name).write_text("{}", "utf-8")
    keyturn(*arguments, env={"TERM": "xterm-256color"})
    assert said in written.getvalue()


def test_waiting_for_a_rotation_shows_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(progress, "AFTER_SECONDS", 0.02)
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=written, force_terminal=True, width=80))
    monkeypatch.setattr(rotate, "POLL_SECONDS", 0.1)
    reached = iter([Progress(), Progress(), Progress(), Progress(done="k2")])
    assert rotate.await_progress(lambda: next(reached), seconds=60) == "k2"
    assert "Waiting for the operator" in written.getvalue()


@pytest.mark.parametrize(
    ("options", "coloured"),
    [({"force_terminal": True}, True), ({"force_terminal": True, "no_color": True}, False), ({}, False)],
    ids=["a terminal", "NO_COLOR", "a pipe"],
)
def test_colours_are_for_terminals_alone(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], coloured: bool
) -> None:
    written = io.StringIO()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(listing, "Console", lambda **_: Console(file=written, **options))
    listing.print_table(("NAME", "STATE"), [("billing", "Ready")])
    assert ("\x1b[32m" in written.getvalue()) is coloured
