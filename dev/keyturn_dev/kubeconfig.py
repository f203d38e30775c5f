"""Kubeconfig files: the local admin's, and one for a ServiceAccount's token on any cluster."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import yaml

from keyturn_dev.certificates import write_private
from keyturn_dev.errors import DevError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from keyturn_dev.certificates import Certificate

CONTEXT = "keyturn-local"


def kubeconfig_document(
    cluster: Mapping[str, Any],
    user: Mapping[str, Any],
    *,
    user_name: str,
    context: str = CONTEXT,
    namespace: str = "default",
) -> dict[str, Any]:
    """Return a kubeconfig of one cluster, one user and one context, which is the current one."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": dict(cluster)}],
        "users": [{"name": user_name, "user": dict(user)}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user_name, "namespace": namespace}}],
        "current-context": context,
        "preferences": {},
    }


def kubeconfig_cluster(server: str, authority: bytes) -> dict[str, Any]:
    """Return the cluster entry of a kubeconfig, with the authority's certificate in it."""
    return {"server": server, "certificate-authority-data": base64.b64encode(authority).decode("ascii")}


def certificate_user(certificate: Certificate) -> dict[str, str]:
    """Return the user entry of a client that shows a certificate."""
    return {
        "client-certificate-data": certificate.certificate_data(),
        "client-key-data": certificate.key_data(),
    }


def write_kubeconfig(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a kubeconfig that only its owner can read, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, yaml.safe_dump(dict(document), sort_keys=False).encode())
    return path


def service_account_kubeconfig(
    kubectl: Path,
    kubeconfig: Path,
    namespace: str,
    name: str,
    out: Path,
    *,
    duration: str = "1h",
    audiences: Sequence[str] = (),
) -> Path:
    """Write to `out` a kubeconfig that acts as a ServiceAccount, with a token from the TokenRequest API; return `out`.

    `duration` as kubectl takes it (`10m` at least); `audiences` default to the API server's own. The ServiceAccount
    must exist. Raise `DevError` with kubectl's words.
    """
    wanted = [f"--audience={audience}" for audience in audiences]
    token = run_kubectl(
        kubectl, kubeconfig, "create", "token", name, f"--namespace={namespace}", f"--duration={duration}", *wanted
    ).strip()
    view = json.loads(
        run_kubectl(kubectl, kubeconfig, "config", "view", "--raw", "--minify", "--flatten", "-o", "json")
    )
    document = kubeconfig_document(
        view["clusters"][0]["cluster"],
        {"token": token},
        user_name=f"system:serviceaccount:{namespace}:{name}",
        context=view["current-context"],
        namespace=namespace,
    )
    return write_kubeconfig(out, document)


def run_kubectl(
    kubectl: Path,
    kubeconfig: Path | None,
    *arguments: str,
    seconds: float = 60,
    environ: Mapping[str, str] | None = None,
) -> str:
    """Run kubectl and return its standard output; raise `DevError` with its standard error if it fails.

    Without a `kubeconfig` it uses the one that the environment (default: this process's) names.
    """
    chosen = [f"--kubeconfig={kubeconfig}"] if kubeconfig is not None else []
    try:
        done = subprocess.run(
            [str(kubectl), *chosen, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=dict(os.environ if environ is None else environ),
        )
    except subprocess.TimeoutExpired:
        raise DevError(f"kubectl {' '.join(arguments[:2])} gave no answer within {seconds:g} s") from None
    if done.returncode != 0:
        raise DevError(f"kubectl {' '.join(arguments[:2])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
