"""Kubeconfig files and in-cluster credentials: which API server to ask, and as whom.

Files are merged as kubectl merges them: of two entries of one name, and of two current contexts, the first counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from keyturn.timestamps import InvalidTimestamp, parse_rfc3339

from .errors import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

IN_CLUSTER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
# Whoever renews a token or a certificate writes it into the same file; kubectl reads it again as often.
FILE_SECONDS: Final = 60.0
PLUGIN_SECONDS: Final = 120.0
MAX_PLUGIN_BYTES: Final = 1024 * 1024
EXEC_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach one API server. PEM texts are whole; none of what proves an identity shows in a repr.

    `context`: the kubeconfig's, by name. `expires`: until when, in epoch seconds, the proof is worth using; None: nobody knows.
    """

    server: str
    namespace: str = "default"
    authority: str | None = None
    verify: bool = True
    tls_name: str | None = None
    proxy: str | None = None
    token: str | None = field(default=None, repr=False)
    certificate: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    context: str | None = None
    expires: float | None = None


def unusable(problem: str) -> CommandError:
    """The kubeconfig can't be used: `problem` is a sentence that names members, never values."""
    return CommandError(problem, "Check --kubeconfig and --context, or KUBECONFIG.", Exit.USAGE)


def find_access(
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    environ: Mapping[str, str] | None = None,
    in_cluster: Path = IN_CLUSTER,
) -> Access:
    """By `kubeconfig`, else the files of KUBECONFIG, else `~/.kube/config`, else the pod's own ServiceAccount.

    Raises:
        CommandError: nothing of it is there, or what is there can't be used.
    """
    environ = os.environ if environ is None else environ
    if kubeconfig is not None:
        return _of_files([Path(kubeconfig)], context, environ)
    if listed := [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]:
        # kubectl passes over files of the list that are absent.
        there = [path for path in listed if path.exists()]
        return _of_files(there or listed[:1], context, environ)
    home = Path(environ.get("HOME") or Path.home()) / ".kube" / "config"
    if home.exists():
        return _of_files([home], context, environ)
    host = environ.get("KUBERNETES_SERVICE_HOST")
    if host and context is None and (in_cluster / "token").exists():
        return _of_pod(host, environ.get("KUBERNETES_SERVICE_PORT", "443"), in_cluster)
    raise CommandError(
        "There is no kubeconfig, so no cluster is known.", "Name one with --kubeconfig, or in KUBECONFIG.", Exit.USAGE
    )


def _of_pod(host: str, port: str, folder: Path) -> Access:
    bracketed = f"[{host}]" if ":" in host else host
    namespace = folder / "namespace"
    return Access(
        server=f"https://{bracketed}:{port}",
        namespace=_read(namespace).strip() if namespace.exists() else "default",
        authority=_read(folder / "ca.crt"),
        token=_read(folder / "token").strip(),
        expires=time.time() + FILE_SECONDS,
    )


def _of_files(paths: list[Path], context: str | None, environ: Mapping[str, str]) -> Access:
    entries: dict[str, dict[str, tuple[Any, Path]]] = {"contexts": {}, "clusters": {}, "users": {}}
    current: str | None = context
    for path in paths:
        document = _document(path)
        current = current or (document.get("current-context") or None)
        for kind, known in entries.items():
            listed = document.get(kind)
            for one in listed if isinstance(listed, list) else ():
                if isinstance(one, dict) and isinstance(one.get("name"), str):
                    known.setdefault(one["name"], (one.get(kind.removesuffix("s")), path.parent))
    if not isinstance(current, str) or not current:
        raise unusable("The kubeconfig names no current context.")
    chosen, _ = _entry(entries, "contexts", current)
    cluster, cluster_folder = _entry(entries, "clusters", chosen.get("cluster"))
    access = replace(_of_cluster(cluster, cluster_folder), context=current)
    namespace = chosen.get("namespace")
    if isinstance(namespace, str) and namespace:
        access = replace(access, namespace=namespace)
    if chosen.get("user"):
        user, user_folder = _entry(entries, "users", chosen.get("user"))
        access = _as_user(access, user, user_folder, cluster, environ)
    return access


def _entry(entries: dict[str, dict[str, tuple[Any, Path]]], kind: str, name: object) -> tuple[dict[str, Any], Path]:
    found = entries[kind].get(name) if isinstance(name, str) else None
    if found is None or not isinstance(found[0], dict):
        raise unusable(f"The kubeconfig has no {kind.removesuffix('s')} of the name that it is asked for.")
    return found


def _of_cluster(cluster: dict[str, Any], folder: Path) -> Access:
    server = cluster.get("server")
    if not isinstance(server, str) or not server.startswith(("https://", "http://")):
        raise unusable("The kubeconfig's cluster has no server's URL.")
    tls_name, proxy = cluster.get("tls-server-name"), cluster.get("proxy-url")
    return Access(
        server=server.rstrip("/"),
        authority=_pem(cluster, "certificate-authority", folder),
        verify=cluster.get("insecure-skip-tls-verify") is not True,
        tls_name=tls_name if isinstance(tls_name, str) and tls_name else None,
        proxy=proxy if isinstance(proxy, str) and proxy else None,
    )


def _as_user(
    access: Access, user: dict[str, Any], folder: Path, cluster: dict[str, Any], environ: Mapping[str, str]
) -> Access:
    certificate, key = _pem(user, "client-certificate", folder), _pem(user, "client-key", folder)
    if (certificate is None) != (key is None):
        raise unusable(
            "The kubeconfig's user has a client certificate without its key, or a key without its certificate."
        )
    token, expires = user.get("token"), None
    if any(user.get(f"client-{one}") and not user.get(f"client-{one}-data") for one in ("certificate", "key")):
        expires = time.time() + FILE_SECONDS
    # kubectl prefers the file: whoever renews the token writes it there.
    if isinstance(named := user.get("tokenFile"), str) and named:
        token, expires = _read(folder / named).strip(), time.time() + FILE_SECONDS
    if "exec" in user:
        given = _run_plugin(user["exec"], folder, cluster, environ)
        token = given.get("token", token)
        certificate = given.get("clientCertificateData", certificate)
        key = given.get("clientKeyData", key)
        expires = _expiration(given.get("expirationTimestamp"), expires)
    elif "auth-provider" in user and token is None:
        raise unusable("The kubeconfig's user has an auth-provider, which Kubernetes has given up: use an exec plugin.")
    if token is not None and not (isinstance(token, str) and token.isascii() and token.isprintable()):
        raise unusable("The kubeconfig's user has a token that is no text.")
    return replace(access, token=token or None, certificate=certificate, key=key, expires=expires)


def _run_plugin(wanted: object, folder: Path, cluster: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The status of the ExecCredential that a credential plugin prints."""
    if not isinstance(wanted, dict) or not isinstance(command := wanted.get("command"), str) or not command:
        raise unusable("The kubeconfig's user has an exec plugin without a command.")
    version = wanted.get("apiVersion")
    if version not in EXEC_VERSIONS:
        raise unusable(f"The kubeconfig's exec plugin speaks no version that this command knows ({EXEC_VERSIONS[0]}).")
    # A name with a slash is relative to the kubeconfig; one without is looked up in PATH.
    found = str(folder / command) if "/" in command else shutil.which(command, path=environ.get("PATH"))
    if found is None:
        hint = wanted.get("installHint")
        raise CommandError(
            f"The kubeconfig's exec plugin {Path(command).name[:100]!r} is not installed.",
            hint[:500] if isinstance(hint, str) else "Install it, or use another context.",
            Exit.USAGE,
        )
    interactive = wanted.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()
    spec: dict[str, Any] = {"interactive": interactive}
    if wanted.get("provideClusterInfo") is True:
        spec["cluster"] = {
            name: cluster[name]
            for name in (
                "server",
                "tls-server-name",
                "insecure-skip-tls-verify",
                "certificate-authority-data",
                "proxy-url",
            )
            if name in cluster
        }
    added = {
        str(one["name"]): str(one.get("value", ""))
        for one in wanted.get("env") or ()
        if isinstance(one, dict) and "name" in one
    }
    info = json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": spec})
    try:
        # The person's own kubeconfig names the program, as for kubectl.
        done = subprocess.run(  # noqa: S603
            [found, *map(str, wanted.get("args") or ())],
            env={**environ, **added, "KUBERNETES_EXEC_INFO": info},
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=PLUGIN_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise _plugin_failed(command, type(error).__name__) from None
    if done.returncode != 0:
        raise _plugin_failed(command, f"exit status {done.returncode}")
    try:
        if len(done.stdout) > MAX_PLUGIN_BYTES:
            raise ValueError("too long")
        status = json.loads(done.stdout)["status"]
        return {
            name: status[name]
            for name in ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
            if isinstance(status.get(name), str)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _plugin_failed(command, "its answer is no ExecCredential") from None


def _expiration(text: str | None, other: float | None) -> float | None:
    """The sooner of a plugin's RFC 3339 time and `other`. A time that is none is as good as none: HTTP 401 tells the end, too."""
    try:
        found = None if text is None else parse_rfc3339(text)
    except InvalidTimestamp:
        found = None
    return min((one for one in (found, other) if one is not None), default=None)


def _plugin_failed(command: str, cause: str) -> CommandError:
    return CommandError(
        f"The kubeconfig's exec plugin {Path(command).name[:100]!r} failed ({cause}).",
        "Log in with it, then try again.",
        Exit.UNREACHABLE,
    )


def _pem(owner: dict[str, Any], member: str, folder: Path) -> str | None:
    """The PEM of `member`, which holds it as base64 (`…-data`) or names a file relative to the kubeconfig."""
    data, named = owner.get(f"{member}-data"), owner.get(member)
    if isinstance(data, str) and data:
        try:
            return base64.b64decode(data, validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            raise unusable(f"The kubeconfig's {member}-data is no PEM in base64.") from None
    return _read(folder / named) if isinstance(named, str) and named else None


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(_read(path))
    except yaml.YAMLError:
        raise unusable(f"{path} is no YAML.") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise unusable(f"{path} is no kubeconfig.")
    return document


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise unusable(f"{path} is too long.")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unusable(f"{path} can't be read ({type(error).__name__}).") from None
