"""The cluster's programs: what their cache is keyed by, which kubectl is taken, and a build that is whole or not there."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest

from keyturn_dev import binaries
from keyturn_dev.binaries import cache_key, ensure_binaries, ensure_kubectl, kubectl_on_path, parse_kubectl_version
from keyturn_dev.errors import DevError
from keyturn_dev.go_programs import module_version
from keyturn_dev.paths import CONTROL_PLANE, cache_folder
from keyturn_dev.progress import Progress
from tests.unit.dev.programs import write_program

if TYPE_CHECKING:
    from pathlib import Path

GO_MOD = "module m\n\ngo 1.24.0\n\nrequire (\n\tk8s.io/kubernetes v1.34.4 // indirect\n\tgo.etcd.io/etcd/server/v3 v3.6.4\n)\n"
# Stands in for `go`: writes what it was asked to build, the package's name as content.
COMPILER = """
[ "$1" = version ] && { echo go version go1.99.0 linux/amd64; exit; }
echo "$@" >>"$0.calls"
while [ "$1" != -o ]; do shift; done
echo "some/package" >&2
printf %s "$3" >"$2"
"""


def quiet() -> Progress:
    return Progress(io.StringIO())


def test_the_key_names_both_versions() -> None:
    assert re.fullmatch(r"kubernetes-v1\.34\.4-etcd-v3\.6\.4-[0-9a-f]{16}", cache_key(GO_MOD, "sums"))


def test_the_key_is_the_same_for_the_same_content() -> None:
    assert cache_key(GO_MOD, "sums") == cache_key(GO_MOD, "sums")


@pytest.mark.parametrize(
    ("go_mod", "go_sum"),
    [
        (GO_MOD.replace("v1.34.4", "v1.34.5"), "sums"),
        (GO_MOD.replace("v3.6.4", "v3.6.5"), "sums"),
        (GO_MOD.replace("go 1.24.0", "go 1.25.0"), "sums"),
        (GO_MOD + "\nreplace a => b v1\n", "sums"),
        (GO_MOD, "other sums"),
    ],
    ids=["another Kubernetes", "another etcd", "another toolchain", "another replacement", "other sums"],
)
def test_the_key_changes_with_whatever_decides_the_result(go_mod: str, go_sum: str) -> None:
    assert cache_key(go_mod, go_sum) != cache_key(GO_MOD, "sums")


def test_a_go_mod_that_pins_no_kubernetes_is_refused() -> None:
    with pytest.raises(DevError, match=r"does not pin k8s\.io/kubernetes"):
        cache_key("module m\n\ngo 1.24.0\n", "")


def test_the_version_is_linked_in_so_that_clients_can_parse_it() -> None:
    flags = binaries.link_flags("v1.34.4")
    for value in ("gitVersion=v1.34.4", "gitMajor=1", "gitMinor=34"):
        assert f"-X k8s.io/component-base/version.{value}" in flags


def test_our_go_mod_pins_one_version_of_all_of_kubernetes() -> None:
    text = (CONTROL_PLANE / "go.mod").read_text()
    minor_and_patch = module_version(text, "k8s.io/kubernetes").removeprefix("v1.")
    replaced = re.findall(r"^\tk8s\.io/\S+ => k8s\.io/\S+ v0\.(\S+)$", text, re.MULTILINE)
    assert len(replaced) > 25
    assert set(replaced) == {minor_and_patch}


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ('{"clientVersion": {"major": "1", "minor": "34", "gitVersion": "v1.34.4"}}', (1, 34)),
        ('{"clientVersion": {"major": "1", "minor": "32+", "gitVersion": "v1.32.4-dispatcher"}}', (1, 32)),
        ('{"clientVersion": {"gitVersion": "v0.0.0-master"}}', (0, 0)),
        ('{"clientVersion": {"gitVersion": "unknown"}}', None),
        ('{"clientVersion": {"gitVersion": null}}', None),
        ('{"clientVersion": null}', None),
        ("[]", None),
        ("Client Version: v1.20.0", None),
        ("", None),
    ],
)
def test_a_kubectls_version_is_read_where_it_says_one(output: str, version: tuple[int, int] | None) -> None:
    assert parse_kubectl_version(output) == version


@pytest.mark.parametrize(
    ("version", "taken"), [("v1.31.9", False), ("v1.32.0", True), ("v1.40.1", True), ("v2.0.0", True), ("", False)]
)
def test_the_persons_kubectl_is_taken_from_1_32_on(version: str, taken: bool, tmp_path: Path) -> None:
    script = f"""echo '{{"clientVersion": {{"gitVersion": "{version}"}}}}'"""
    kubectl = write_program(tmp_path, "kubectl", script)
    assert kubectl_on_path({"PATH": str(tmp_path)}) == (kubectl if taken else None)


def test_a_kubectl_that_does_not_run_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "kubectl").write_text("#!/nonexistent/interpreter\n")
    (tmp_path / "kubectl").chmod(0o755)
    assert kubectl_on_path({"PATH": str(tmp_path)}) is None
    assert kubectl_on_path({"PATH": str(tmp_path / "elsewhere")}) is None


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    write_program(tmp_path / "a path", "go", COMPILER)
    return {"PATH": f"{tmp_path / 'a path'}:/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "a cache")}


@pytest.fixture(autouse=True)
def no_kubectl_on_the_path(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "environ" in request.fixturenames:
        monkeypatch.setattr(binaries, "kubectl_on_path", lambda _: None)


def test_all_programs_are_built_once_and_then_found(environ: dict[str, str], tmp_path: Path) -> None:
    built = ensure_binaries(environ, quiet())
    assert built.apiserver.read_text() == "k8s.io/kubernetes/cmd/kube-apiserver"
    assert built.kubectl.parent == built.etcd.parent
    assert built.etcd.is_relative_to(tmp_path / "a cache" / "keyturn" / "bin")
    calls = tmp_path / "a path" / "go.calls"
    assert len(calls.read_text().splitlines()) == 4
    assert "-trimpath -buildvcs=false" in calls.read_text()
    assert ensure_binaries(environ, quiet()) == built
    assert len(calls.read_text().splitlines()) == 4


def test_only_what_is_missing_is_built(environ: dict[str, str], tmp_path: Path) -> None:
    ensure_kubectl(environ, quiet())
    calls = tmp_path / "a path" / "go.calls"
    assert len(calls.read_text().splitlines()) == 1
    ensure_binaries(environ, quiet())
    assert len(calls.read_text().splitlines()) == 4


def test_a_persons_own_kubectl_is_not_built(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "kubectl"
    monkeypatch.setattr(binaries, "kubectl_on_path", lambda _: own)
    assert ensure_binaries(environ, quiet()).kubectl == own
    assert "cmd/kubectl" not in (tmp_path / "a path" / "go.calls").read_text()


def test_a_build_that_fails_leaves_nothing_and_shows_the_compilers_words(
    environ: dict[str, str], tmp_path: Path
) -> None:
    write_program(tmp_path / "a path", "go", COMPILER + "echo 'undefined: x' >&2; exit 1")
    with pytest.raises(DevError, match=r"building etcd failed:\n(.*\n)*undefined: x"):
        ensure_binaries(environ, quiet())
    (folder,) = [path for path in (cache_folder(environ) / "bin").iterdir() if path.is_dir()]
    assert list(folder.iterdir()) == []


def test_what_a_killed_build_left_is_removed_by_the_next(environ: dict[str, str]) -> None:
    folder = ensure_kubectl(environ, quiet()).parent
    (folder / "etcd.partial").write_text("half")
    ensure_binaries(environ, quiet())
    assert not (folder / "etcd.partial").exists()
    assert (folder / "etcd").read_text() != "half"


@pytest.mark.parametrize(
    ("environ_of", "folder"),
    [
        ({"HOME": "/home/a b"}, "/home/a b/.cache/keyturn"),
        ({"HOME": "/home/x", "XDG_CACHE_HOME": "/var/c"}, "/var/c/keyturn"),
        ({"HOME": "/home/x", "XDG_CACHE_HOME": ""}, "/home/x/.cache/keyturn"),
        ({"HOME": "/home/x", "XDG_CACHE_HOME": "relative"}, "/home/x/.cache/keyturn"),
    ],
    ids=["by the home", "by the variable", "an empty variable is none", "a relative one is ignored"],
)
def test_the_cache_is_where_the_base_directory_specification_puts_it(environ_of: dict[str, str], folder: str) -> None:
    assert str(cache_folder(environ_of)) == folder
