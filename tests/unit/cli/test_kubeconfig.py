"""Which API server the command asks and as whom, as kubectl would."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyturn_cli.errors import CommandError, Exit
from keyturn_cli.kubeconfig import FILE_SECONDS, Access, find_access

AUTHORITY = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"
SECRET = "do-not-show"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def document(name: str = "one", *, user: Any = None, current: str | None = "one", **cluster: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example:6443", **cluster}}],
        "users": [{"name": name, "user": user or {"token": f"token-{name}"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}}],
    }


def write(path: Path, content: Any) -> str:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def access(path: str | None = None, *, context: str | None = None, **environ: str) -> Access:
    return find_access(kubeconfig=path, context=context, environ={"HOME": "/nowhere", **environ})


def plugin(folder: Path, answer: str, *, status: int = 0) -> dict[str, Any]:
    """A credential plugin that prints `answer` and writes down what it was told."""
    program = folder / "plugin.sh"
    program.write_text(
        f"#!/bin/sh\nprintf '%s' \"$KUBERNETES_EXEC_INFO\" >'{folder}/told'\nprintf '%s' \"$1$ADDED\" >>'{folder}/told'\n"
        f"cat <<'END'\n{answer}\nEND\nexit {status}\n",
        encoding="utf-8",
    )
    program.chmod(0o700)
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./plugin.sh",
        "args": ["argument"],
        "env": [{"name": "ADDED", "value": "+variable"}],
        "provideClusterInfo": True,
        "interactiveMode": "Never",
    }


def test_the_file_that_is_named_counts_before_any_other(tmp_path: Path) -> None:
    named, listed = write(tmp_path / "named", document()), write(tmp_path / "listed", document("two", current="two"))
    found = access(named, KUBECONFIG=listed)
    assert (found.server, found.token, found.namespace) == ("https://one.example:6443", "token-one", "ns-one")


def test_of_several_files_the_first_entry_and_the_first_current_context_count(tmp_path: Path) -> None:
    first = write(tmp_path / "first", document(current=None))
    second = document("two", current="two")
    second["clusters"].append({"name": "one", "cluster": {"server": "https://later.example"}})
    listed = f"{first}:{tmp_path / 'absent'}:{write(tmp_path / 'second', second)}"
    assert access(KUBECONFIG=listed).server == "https://two.example:6443"
    assert access(KUBECONFIG=listed, context="one").server == "https://one.example:6443"


def test_without_a_name_the_home_directory_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", document())
    assert find_access(environ={"HOME": str(tmp_path)}).token == "token-one"


def test_in_a_pod_its_own_service_account_is_used(tmp_path: Path) -> None:
    for name, content in {"token": "pod-token\n", "ca.crt": AUTHORITY, "namespace": "shop"}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    environ = {"HOME": "/nowhere", "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = find_access(environ=environ, in_cluster=tmp_path)
    assert (found.server, found.namespace, found.token) == ("https://[fd00::1]:443", "shop", "pod-token")
    assert found.authority == AUTHORITY
    # The kubelet renews it in its file.
    assert found.expires is not None


def test_files_that_it_names_lie_beside_it_and_the_token_s_file_goes_before_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n", encoding="utf-8")
    (tmp_path / "ca.pem").write_text(AUTHORITY, encoding="utf-8")
    user = {"token": "old", "tokenFile": "token"}
    path = write(tmp_path / "config", document(user=user, **{"certificate-authority": "ca.pem"}))
    found = access(path)
    assert (found.token, found.authority) == ("from-file", AUTHORITY)


def test_a_client_certificate_and_the_rest_of_a_cluster_are_read(tmp_path: Path) -> None:
    user = {"client-certificate-data": encoded("cert"), "client-key-data": encoded("key")}
    cluster: dict[str, Any] = {
        "insecure-skip-tls-verify": True,
        "tls-server-name": "api.example",
        "proxy-url": "http://proxy:3128",
    }
    found = access(write(tmp_path / "config", document(user=user, **cluster)))
    assert (found.certificate, found.key, found.token) == ("cert", "key", None)
    assert (found.verify, found.tls_name, found.proxy) == (False, "api.example", "http://proxy:3128")


def test_what_proves_an_identity_shows_in_no_repr(tmp_path: Path) -> None:
    user = {"token": SECRET, "client-certificate-data": encoded(SECRET), "client-key-data": encoded(SECRET)}
    assert SECRET not in repr(access(write(tmp_path / "config", document(user=user))))


def test_a_credential_plugin_gives_the_token_and_is_told_of_the_cluster(tmp_path: Path) -> None:
    answer = {"kind": "ExecCredential", "status": {"token": "from-plugin"}}
    path = write(tmp_path / "config", document(user={"exec": plugin(tmp_path, json.dumps(answer))}))
    assert access(path, PATH="/usr/bin:/bin").token == "from-plugin"
    told = (tmp_path / "told").read_text(encoding="utf-8")
    assert told.endswith("argument+variable")
    info = json.loads(told.removesuffix("argument+variable"))
    assert info["spec"] == {"interactive": False, "cluster": {"server": "https://one.example:6443"}}


PEMS = {"client-certificate": "c.pem", "client-key": "k.pem"}
DATA = {"client-certificate-data": encoded("c"), "client-key-data": encoded("k")}
PLUGIN_END = "2100-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("user", "expires"),
    [
        pytest.param({"token": "t"}, None, id="a token in the kubeconfig"),
        pytest.param({"tokenFile": "c.pem"}, "soon", id="a token's file"),
        pytest.param(PEMS, "soon", id="a certificate's files"),
        pytest.param({**PEMS, **DATA}, None, id="a certificate in the kubeconfig, which goes before its files"),
        pytest.param({"exec": {"token": "t"}}, None, id="a plugin that says nothing"),
        pytest.param(
            {"exec": {"token": "t", "expirationTimestamp": PLUGIN_END}}, 4102444800.0, id="a plugin's own end"
        ),
        pytest.param({"exec": {"token": "t", "expirationTimestamp": "soon"}}, None, id="a plugin's end that is none"),
    ],
)
def test_when_to_read_the_proof_anew_is_known(tmp_path: Path, user: dict[str, Any], expires: Any) -> None:
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    if status := user.get("exec"):
        user = {"exec": plugin(tmp_path, json.dumps({"kind": "ExecCredential", "status": status}))}
    before = time.time()
    found = access(write(tmp_path / "config", document(user=user)), PATH="/usr/bin:/bin")
    assert found.context == "one"
    if expires == "soon":
        assert found.expires is not None
        assert before + FILE_SECONDS <= found.expires <= time.time() + FILE_SECONDS
    else:
        assert found.expires == expires


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param("{}", 0, id="without a status"),
        pytest.param(SECRET, 0, id="no JSON"),
        pytest.param('{"status": {"token": "x"}}', 1, id="a failure"),
    ],
)
def test_a_plugin_s_failure_is_said_without_what_it_printed(tmp_path: Path, answer: str, status: int) -> None:
    path = write(tmp_path / "config", document(user={"exec": plugin(tmp_path, answer, status=status)}))
    with pytest.raises(CommandError) as caught:
        access(path, PATH="/usr/bin:/bin")
    assert "plugin.sh" in caught.value.problem
    assert SECRET not in caught.value.problem


def without(member: str) -> dict[str, Any]:
    return {name: value for name, value in document().items() if name != member}


PLUGIN = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": "no-such-program",
    "installHint": "Install it so.",
}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(document(current=None), id="no current context"),
        pytest.param(document(current="other"), id="a context that is not there"),
        pytest.param(without("clusters"), id="no clusters"),
        pytest.param(without("users"), id="no users"),
        pytest.param([1], id="a list"),
        pytest.param({**document(), "contexts": [{"name": "one", "context": 7}]}, id="a context that is a number"),
        pytest.param(document(server="ftp://one"), id="a server that is no HTTP URL"),
        pytest.param(document(user={"client-key-data": encoded("key")}), id="a key without its certificate"),
        pytest.param(document(user={"client-certificate-data": "%"}), id="data that is no base64"),
        pytest.param(document(user={"tokenFile": "absent"}), id="a token's file that is absent"),
        pytest.param(document(user={"token": "two\nlines"}), id="a token with a line break"),
        pytest.param(document(user={"auth-provider": {"name": "gcp"}}), id="an auth-provider"),
        pytest.param(document(user={"exec": {"command": "x", "apiVersion": "v9"}}), id="a plugin of another version"),
        pytest.param(document(user={"exec": {"apiVersion": PLUGIN["apiVersion"]}}), id="a plugin without a command"),
        pytest.param(document(user={"exec": PLUGIN}), id="a plugin that is not installed"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_a_usage_error(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CommandError) as caught:
        access(write(tmp_path / "config", content))
    assert caught.value.code is Exit.USAGE


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"x" * 5_000_000], ids=["no text", "no YAML", "too long"])
def test_a_file_that_is_none_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config").write_bytes(content)
    with pytest.raises(CommandError) as caught:
        access(str(tmp_path / "config"))
    assert caught.value.code is Exit.USAGE


def test_no_kubeconfig_at_all_is_said() -> None:
    with pytest.raises(CommandError, match="no kubeconfig"):
        access()
    with pytest.raises(CommandError, match="can't be read"):
        access(KUBECONFIG="/nowhere/config")
