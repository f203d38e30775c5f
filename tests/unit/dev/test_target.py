"""Which cluster is used, and that nobody's own cluster is changed unasked."""

from __future__ import annotations

import io
import json
import stat
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from keyturn_dev.cluster import Cluster
from keyturn_dev.errors import DevError, UsageError
from keyturn_dev.progress import Progress
from keyturn_dev.target import CurrentContext, choose_cluster
from tests.unit.dev.programs import write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DOCUMENT = {
    "current-context": "kind-dev",
    "clusters": [{"name": "kind", "cluster": {"server": "https://192.0.2.9:6443"}}],
    "users": [{"name": "me", "user": {"token": "mine"}}],
    "contexts": [{"name": "kind-dev", "context": {"cluster": "kind", "user": "me"}}],
}
KUBECTL = f"""
echo "$@" >>"$0.calls"
case "$*" in
  *"version --client"*) echo '{{"clientVersion": {{"gitVersion": "v1.34.0"}}}}' ;;
  *"config view"*) echo '{json.dumps(DOCUMENT)}' ;;
  *"/version"*) exit ${{DOWN:-0}} ;;
esac
"""


@pytest.fixture
def kubectl(tmp_path: Path) -> Path:
    return write_program(tmp_path / "bin", "kubectl", KUBECTL)


@pytest.fixture
def environ(kubectl: Path) -> dict[str, str]:
    return {"PATH": str(kubectl.parent), "KEYTURN_CLUSTER": "current"}


def answers(text: str) -> Callable[[str], str]:
    return lambda _: text


@pytest.mark.parametrize("value", [None, "", "local"], ids=["unset", "empty", "local"])
def test_a_cluster_of_our_own_is_the_default(value: str | None, tmp_path: Path) -> None:
    environ = {} if value is None else {"KEYTURN_CLUSTER": value}
    chosen = choose_cluster(environ, state=tmp_path / "state", progress=Progress(io.StringIO()))
    assert isinstance(chosen, Cluster)
    assert chosen.state == tmp_path / "state"


def test_another_value_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'kind': it may be 'local' .* or 'current'"):
        choose_cluster({"KEYTURN_CLUSTER": "kind"}, state=tmp_path)


@pytest.mark.parametrize("answer", ["y\n", "yes\n", " Y "])
def test_the_persons_own_cluster_is_used_after_a_yes_to_its_name(
    answer: str, environ: dict[str, str], tmp_path: Path
) -> None:
    said = io.StringIO()
    chosen = choose_cluster(environ, state=tmp_path / "run" / "cluster", progress=Progress(said), ask=answers(answer))
    assert isinstance(chosen, CurrentContext)
    assert "'kind-dev' at https://192.0.2.9:6443" in said.getvalue()


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n", "yellow\n"], ids=["end", "return", "n", "no", "other"])
def test_anything_but_yes_means_no(answer: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing was changed") as refused:
        choose_cluster(environ, state=tmp_path, progress=Progress(io.StringIO()), ask=answers(answer))
    assert refused.value.exit_code == 2


def test_yes_1_answers_and_the_cluster_is_named_all_the_same(environ: dict[str, str], tmp_path: Path) -> None:
    said = io.StringIO()
    choose_cluster(environ | {"YES": "1"}, state=tmp_path / "cluster", progress=Progress(said), ask=pytest.fail)
    assert "kind-dev" in said.getvalue()


@pytest.mark.parametrize("yes", ["", "0", "true"])
def test_without_a_terminal_and_without_yes_1_it_is_refused(
    yes: str, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="set YES=1") as refused:
        choose_cluster(environ | {"YES": yes}, state=tmp_path, progress=Progress(io.StringIO()))
    assert refused.value.exit_code == 2


def test_the_context_is_copied_so_that_a_later_change_of_context_redirects_nothing(
    kubectl: Path, tmp_path: Path
) -> None:
    current = CurrentContext(tmp_path / "current", kubectl, {})
    path = current.up()
    assert yaml.safe_load(path.read_text()) == DOCUMENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert current.is_up()
    assert f"--kubeconfig={path}" in (kubectl.parent / "kubectl.calls").read_text().splitlines()[-1]


def test_down_removes_the_copy_and_no_more(kubectl: Path, tmp_path: Path) -> None:
    current = CurrentContext(tmp_path / "current", kubectl, {})
    current.up()
    asked = (kubectl.parent / "kubectl.calls").read_text()
    assert current.down()
    assert not current.down()
    assert not current.is_up()
    assert (kubectl.parent / "kubectl.calls").read_text() == asked


def test_a_cluster_that_does_not_answer_is_an_error_and_leaves_no_copy(tmp_path: Path) -> None:
    kubectl = write_program(tmp_path / "bin", "kubectl", KUBECTL.replace("exit ${DOWN:-0}", "echo refused >&2; exit 1"))
    current = CurrentContext(tmp_path / "current", kubectl, {})
    with pytest.raises(DevError, match="refused"):
        current.up()
    assert not current.is_up()


@pytest.mark.parametrize(
    "script",
    ["echo '{}'", """echo '{"current-context": "a", "clusters": null}'""", "echo nonsense"],
    ids=["an empty kubeconfig", "no clusters", "no JSON"],
)
def test_a_kubeconfig_without_a_cluster_is_an_error(script: str, tmp_path: Path) -> None:
    with pytest.raises(DevError, match="names no cluster"):
        CurrentContext(tmp_path / "current", write_program(tmp_path, "kubectl", script), {})
