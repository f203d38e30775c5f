"""`keyturn rotate signing-key`: which annotations it sets, and when it says that it is done."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from keyturn.timestamps import format_rfc3339
from keyturn_cli import editing
from keyturn_cli.commands import rotate
from keyturn_cli.kube import Kube
from keyturn_cli.main import app

from .cluster import FakeCluster
from .command import keyturn

ROTATE, COMPROMISED = "keyturn.dev/rotate", "keyturn.dev/compromised"
Obj = dict[str, Any]


def signing_key(*, active: str = "k1", following: str = "k2", ready: str = "True", **more: Any) -> Obj:
    keys = [{"kid": active, "state": "Active"}, {"kid": following, "state": "Next"}, *more.pop("keys", [])]
    conditions = [{"type": "Ready", "status": ready, "reason": "Accepted", "message": "In force."}]
    return {
        "metadata": {"name": "keyturn", "resourceVersion": "7", "annotations": more.pop("annotations", {})},
        "status": {"keys": keys, "conditions": [*conditions, *more.pop("conditions", [])]},
    }


@dataclass
class Cluster:
    """Answers a GET with the next object of its list (the last one stays) and takes notes of patches."""

    objects: list[Obj] = field(default_factory=lambda: [signing_key()])
    patch_status: list[int] = field(default_factory=list)
    patches: list[Obj] = field(default_factory=list)
    opened: dict[str, Any] = field(default_factory=dict)

    def open(self, **options: Any) -> Kube:
        self.opened = options
        client = httpx2.Client(transport=httpx2.MockTransport(self.handle), base_url="https://api.example")
        return Kube(client, namespace=options.get("namespace") or "shop")

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.path.endswith("/signingkeys/keyturn")
        if request.method == "PATCH":
            self.patches.append(json.loads(request.content))
            return httpx2.Response(self.patch_status.pop(0) if self.patch_status else 200, json={})
        return httpx2.Response(200, json=self.objects.pop(0) if len(self.objects) > 1 else self.objects[0])

    @property
    def annotations(self) -> dict[str, str]:
        found: dict[str, str] = self.patches[-1]["metadata"]["annotations"]
        return found


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(rotate, "open_kube", made.open)
    monkeypatch.setattr(rotate, "POLL_SECONDS", 0.001)
    return made


def test_a_planned_rotation_sets_a_new_value_each_time(cluster: Cluster) -> None:
    values = []
    for _ in range(2):
        result = keyturn("rotate", "signing-key", "keyturn", "-n", "shop", "--context", "prod")
        assert (result.exit_code, result.stdout) == (0, "")
        assert set(cluster.annotations) == {ROTATE}
        values.append(cluster.annotations[ROTATE])
    assert values[0] != values[1]
    assert cluster.opened == {"kubeconfig": None, "context": "prod", "namespace": "shop"}


def test_compromised_names_all_keys_that_lay_in_the_secret(cluster: Cluster) -> None:
    cluster.objects = [signing_key(keys=[{"kid": "k0", "state": "Retired"}])]
    result = keyturn("rotate", "signing-key", "keyturn", "--compromised")
    assert result.exit_code == 0
    assert cluster.annotations == {COMPROMISED: "k1,k2"}
    assert "k1" in result.stderr


def test_only_active_names_that_one(cluster: Cluster) -> None:
    assert keyturn("rotate", "signing-key", "keyturn", "--compromised", "--only-active").exit_code == 0
    assert cluster.annotations == {COMPROMISED: "k1"}


@pytest.mark.parametrize(
    ("present", "kid", "written"),
    [
        pytest.param("k0, k9", "k1", "k0,k9,k1", id="those named before stay"),
        pytest.param("", "a,b", '["a,b"]', id="a kid with a comma"),
        pytest.param('["x y"]', "k1", '["x y", "k1"]', id="one with a space before"),
        pytest.param("[broken", "k1", "k1", id="what cannot be read is left out"),
    ],
)
def test_the_annotation_holds_any_kid(cluster: Cluster, present: str, kid: str, written: str) -> None:
    cluster.objects = [signing_key(active=kid, annotations={COMPROMISED: present})]
    keyturn("rotate", "signing-key", "keyturn", "--compromised", "--only-active")
    assert cluster.annotations == {COMPROMISED: written}


def test_a_change_in_between_is_read_and_decided_again(cluster: Cluster) -> None:
    cluster.objects = [signing_key(), signing_key(active="k2", following="k3")]
    cluster.patch_status = [409, 200]
    assert keyturn("rotate", "signing-key", "keyturn", "--compromised").exit_code == 0
    assert [one["metadata"]["annotations"][COMPROMISED] for one in cluster.patches] == ["k1,k2", "k2,k3"]
    assert [one["metadata"]["resourceVersion"] for one in cluster.patches] == ["7", "7"]


@pytest.mark.parametrize(
    ("published", "lead", "said"),
    [
        pytest.param(None, "10m", True, id="not published yet"),
        pytest.param(60, "10m", True, id="younger than publishBefore"),
        pytest.param(700, None, False, id="older than the default"),
        pytest.param(60, "30s", False, id="old enough"),
    ],
)
def test_only_active_says_when_the_next_key_is_too_new_to_be_mounted_everywhere(
    cluster: Cluster, published: int | None, lead: str | None, said: bool
) -> None:
    obj = signing_key()
    obj["spec"] = {} if lead is None else {"publishBefore": lead}
    if published is not None:
        obj["status"]["keys"][1]["publishedAt"] = format_rfc3339(time.time() - published)
    cluster.objects = [obj]
    result = keyturn("rotate", "signing-key", "keyturn", "--compromised", "--only-active")
    assert result.exit_code == 0
    assert ("503" in result.stderr) is said


def stopped(reason: str, *kids: str) -> Obj:
    conditions = [{"type": "Ready", "status": "False", "reason": reason, "observedGeneration": 1}]
    status = {"keys": [{"kid": kid} for kid in kids], "conditions": conditions}
    return {"metadata": {"name": "a", "generation": 1}, "status": status}


@pytest.mark.parametrize("reason", ["Suspended", "Expired"])
def test_a_client_that_is_stopped_is_rotated_when_its_status_shows_the_new_credential(reason: str) -> None:
    before = stopped(reason, "k1")
    assert rotate.credential_progress(before, before).done is None
    assert rotate.credential_progress(stopped(reason, "k1", "k2"), before).done == "k2"
    assert rotate.credential_progress(stopped("SecretConflict", "k1", "k2"), before).done is None


def test_changes_without_end_are_given_up(cluster: Cluster) -> None:
    cluster.patch_status = [409] * 10
    assert keyturn("rotate", "signing-key", "keyturn").exit_code == 1
    assert len(cluster.patches) == rotate.ATTEMPTS


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "is_interactive", lambda: True)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--compromised"], ["k1, k2 for ever", "no token is given until"], id="all keys"),
        pytest.param(["--compromised", "--only-active"], ["k1 for ever", "signs at once"], id="the active one"),
        pytest.param([], ["Let the next key of SigningKey keyturn take over?"], id="a planned rotation"),
    ],
)
@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", 1), (b"no\n", 1), (b"", 1)])
def test_a_person_is_asked_before_a_rotation(
    cluster: Cluster, arguments: list[str], said: list[str], answer: bytes, code: int
) -> None:
    result = keyturn("rotate", "signing-key", "keyturn", *arguments, stdin=answer)
    assert (result.exit_code, result.stdout) == (code, "")
    for part in said:
        assert part in result.stderr
    assert len(cluster.patches) == (code == 0)


@pytest.mark.usefixtures("terminal")
def test_nobody_is_asked_who_has_agreed(cluster: Cluster) -> None:
    result = keyturn("rotate", "signing-key", "keyturn", "--compromised", "--yes")
    assert (result.exit_code, len(cluster.patches)) == (0, 1)
    assert "[y/N]" not in result.stderr


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("later", "questions"),
    [
        pytest.param(signing_key(), 1, id="the same keys"),
        pytest.param(signing_key(active="k2", following="k3"), 2, id="other keys"),
    ],
)
def test_other_keys_than_those_agreed_to_are_asked_about_again(cluster: Cluster, later: Obj, questions: int) -> None:
    cluster.objects = [signing_key(), later]
    cluster.patch_status = [409, 200]
    result = keyturn("rotate", "signing-key", "keyturn", "--compromised", stdin=b"y\ny\n")
    assert (result.exit_code, result.stderr.count("[y/N]")) == (0, questions)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1)], ids=["yes", "no"])
def test_a_person_is_asked_before_a_client_gets_a_new_key(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, code: int
) -> None:
    api = FakeCluster()
    api.add("clientcredentials", "billing", generateKey={"secretName": "billing"})
    monkeypatch.setattr(rotate, "open_kube", api.open)
    result = keyturn("rotate", "client", "billing", stdin=answer)
    assert result.exit_code == code
    assert "shop.billing" in result.stderr
    assert len(api.writes) == (code == 0)


def waiting(message: str) -> Obj:
    condition = {"type": "RotationPending", "status": "True", "reason": "NextKeyTooYoung", "message": message}
    return signing_key(conditions=[condition])


def test_wait_says_what_it_waits_for_and_prints_the_new_kid(cluster: Cluster) -> None:
    after = signing_key(active="k2", following="k3")
    behind = signing_key(active="k2", following="k3", ready="Unknown")
    cluster.objects = [signing_key(), waiting("too young"), waiting("too young"), behind, after]
    result = keyturn("rotate", "signing-key", "keyturn", "--wait")
    assert (result.exit_code, result.stdout) == (0, "k2\n")
    assert result.stderr.count("too young") == 1


def test_wait_for_a_withdrawal_ends_when_another_key_signs_everywhere(cluster: Cluster) -> None:
    gone = [{"kid": "k1", "state": "Compromised"}, {"kid": "k2", "state": "Compromised"}]
    none_yet = signing_key()
    none_yet["status"]["keys"] = gone
    after = signing_key(active="k3", following="k4", keys=gone)
    cluster.objects = [signing_key(), signing_key(), none_yet, after]
    result = keyturn("rotate", "signing-key", "keyturn", "--compromised", "--wait")
    assert (result.exit_code, result.stdout) == (0, "k3\n")


def test_wait_has_an_end(cluster: Cluster) -> None:
    result = keyturn("rotate", "signing-key", "keyturn", "--wait", "--timeout", "0s")
    assert result.exit_code == 3
    assert "goes on" in result.stderr


def not_used() -> Obj:
    obj = signing_key()
    obj["status"] = {
        "conditions": [{"type": "Ready", "status": "False", "reason": "NotUsed", "message": "Another signs."}]
    }
    return obj


@pytest.mark.parametrize(
    ("arguments", "obj", "code"),
    [
        pytest.param(["--only-active"], signing_key(), 2, id="only-active without compromised"),
        pytest.param(["--timeout", "soon"], signing_key(), 2, id="a timeout that is none"),
        pytest.param(["--compromised"], not_used(), 1, id="a SigningKey without keys"),
        pytest.param(["--wait"], not_used(), 1, id="a SigningKey that does not count"),
    ],
)
def test_what_cannot_be_done_is_said(cluster: Cluster, arguments: list[str], obj: Obj, code: int) -> None:
    cluster.objects = [obj]
    assert keyturn("rotate", "signing-key", "keyturn", *arguments).exit_code == code


def lines_of_help() -> list[str]:
    text = CliRunner().invoke(app, ["rotate", "signing-key", "--help"], env={"COLUMNS": "400", "TERM": "dumb"}).stdout
    return [line.strip().removeprefix("$ ") for line in text.splitlines() if line.strip().startswith("$ ")]


def test_every_example_in_the_help_is_one(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    done: Callable[..., str] = lambda *_, **__: "k2"  # noqa: E731
    monkeypatch.setattr(rotate, "await_progress", done)
    examples = lines_of_help()
    assert examples
    for example in examples:
        assert keyturn(*shlex.split(example)[1:]).exit_code == 0, example
