"""One installation of Keyturn outside pods: the real operator, the real API and a mirror of its signing keys, as processes.

What the chart does on a cluster with nodes is done here by hand: a namespace, ServiceAccounts with the same RBAC rules, and each
program started with the token of its own ServiceAccount. `make run` and the tests use it alike.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from keyturn_dev import process
from keyturn_dev.certificates import write_private
from keyturn_dev.errors import DevError
from keyturn_dev.kubeconfig import run_kubectl
from keyturn_dev.locking import exclusive
from keyturn_dev.loopback import free_ports
from keyturn_dev.paths import PROJECT
from keyturn_dev.rights import ACCOUNTS, EVERY, SIGNING_KEY, policy_objects, rbac_objects
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn_dev.target import Target

CRDS = PROJECT / "crds"
_SCRIPTS = Path(sys.executable).parent
_TOKEN_DURATION = "24h"


@dataclasses.dataclass(frozen=True)
class Ports:
    """Where one API process listens."""

    http: int
    metrics: int


class Installation:
    """An installation in one namespace. Its folder says what runs, so that any process can take it down.

    `watched`: what it watches besides its own namespace, or `*`; `grants`: what others may use of it, as the chart's `watch.grants`.
    """

    def __init__(
        self,
        target: Target,
        namespace: str,
        state: Path,
        *,
        store_url: str | None = None,
        replicas: int = 1,
        settings: Mapping[str, str] | None = None,
        watched: Sequence[str] = (),
        grants: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.target = target
        self.namespace = namespace
        self.state = state.absolute()
        self.store_url = store_url or f"sqlite:///{self.state / 'store.sqlite'}"
        self._replicas = replicas
        self._settings = dict(settings or {})
        self._watched = tuple(watched)
        self._grants = list(grants)

    @property
    def apis(self) -> list[Ports]:
        """Where the API processes listen, in the order of their numbers."""
        return [Ports(*pair) for pair in json.loads((self.state / "ports.json").read_text(encoding="utf-8"))["apis"]]

    @property
    def operator_port(self) -> int:
        """Where the operator answers probes and shows its metrics."""
        return int(json.loads((self.state / "ports.json").read_text(encoding="utf-8"))["operator"])

    @property
    def url(self) -> str:
        """The first API process's URL; it is the issuer too."""
        return self.url_of(0)

    def url_of(self, replica: int) -> str:
        """The URL of one API process."""
        return f"http://127.0.0.1:{self.apis[replica].http}"

    @property
    def keys(self) -> Path:
        """The directory in which the mirror keeps the signing keys."""
        return self.state / "signing-keys"

    def kubectl(self, *arguments: str, seconds: float = 60) -> str:
        """Run kubectl as the administrator in this namespace and return what it prints."""
        return run_kubectl(
            self.target.kubectl, self.target.kubeconfig, f"--namespace={self.namespace}", *arguments, seconds=seconds
        )

    def prepare(self) -> None:
        """Make the namespace, the CRDs, the accounts and their rights; idempotent."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in ("logs", "processes"):
            (self.state / folder).mkdir(mode=0o700, exist_ok=True)
        apply_crds(self.target)
        named = (self.namespace, *(one for one in self._watched if one != EVERY))
        self.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in named])
        self.apply([*rbac_objects(self.namespace, self._watched), *policy_objects(self.namespace)])
        self._grants_file.write_text(json.dumps(self._grants), encoding="utf-8")
        for part, account in ACCOUNTS.items():
            self.target.service_account_kubeconfig(
                self.namespace, account, self._kubeconfig(part), duration=_TOKEN_DURATION
            )
        self._write_api_access()
        self._write_registration_token()
        numbers = free_ports(1 + 2 * self._replicas)
        apis = [numbers[1 + 2 * n : 3 + 2 * n] for n in range(self._replicas)]
        (self.state / "ports.json").write_text(json.dumps({"operator": numbers[0], "apis": apis}), encoding="utf-8")

    def _write_api_access(self) -> None:
        """Give the API what a pod would find mounted: its ServiceAccount's token and the cluster's authority."""
        document = yaml.safe_load(self._kubeconfig("api").read_text(encoding="utf-8"))
        cluster = document["clusters"][0]["cluster"]
        write_private(self.state / "api.token", document["users"][0]["user"]["token"].encode())
        if data := cluster.get("certificate-authority-data"):
            write_private(self.state / "api-server.crt", base64.b64decode(data))
        (self.state / "api-server.url").write_text(cluster["server"], encoding="utf-8")

    @property
    def registration_tokens(self) -> Path:
        """The directory with the initial access tokens: what a pod would have mounted from a Secret."""
        return self.state / "registration-tokens"

    @property
    def registration_token(self) -> str:
        """The initial access token that was made with the installation."""
        return (self.registration_tokens / "dev").read_text(encoding="ascii").strip()

    def _write_registration_token(self) -> None:
        self.registration_tokens.mkdir(mode=0o700, exist_ok=True)
        write_private(self.registration_tokens / "dev", f"{secrets.token_urlsafe(32)}\n".encode())

    def _api_access(self) -> dict[str, str]:
        authority = self.state / "api-server.crt"
        return {
            "KEYTURN_KUBERNETES_URL": (self.state / "api-server.url").read_text(encoding="utf-8"),
            "KEYTURN_KUBERNETES_TOKEN_FILE": str(self.state / "api.token"),
            "KEYTURN_NAMESPACE": self.namespace,
            "KEYTURN_REGISTRATION_TOKENS_DIRECTORY": str(self.registration_tokens),
            **({"KEYTURN_KUBERNETES_CA_FILE": str(authority)} if authority.exists() else {}),
        }

    def apply(self, objects: list[dict[str, Any]], *, namespace: str | None = None) -> None:
        """Apply manifests as the administrator, strictly: an unknown field is an error. `namespace`: of those that name none."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for one in objects:
            groups.setdefault(one["metadata"].get("namespace") or namespace or self.namespace, []).append(one)
        # JSON, because PyYAML leaves the member `y` of an elliptic key without quotes, and kubectl reads it as true.
        path = self.state / "apply.json"
        # kubectl takes objects of one namespace at a time, if it is told one.
        for place, items in groups.items():
            path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), encoding="utf-8")
            self.kubectl(f"--namespace={place}", "apply", "--validate=strict", "-f", str(path))

    def start(self) -> None:
        """Start all processes; raise `DevError` with the end of a log when one ends at once."""
        self.prepare()
        self.start_operator()
        self.start_mirror()
        for number in range(self._replicas):
            self.start_api(number)

    def start_operator(self, number: int = 0, *, port: int | None = None) -> process.ProcessRecord:
        """Start an operator process; a second one (`number`) stands by for the Lease."""
        environ = {
            "KUBECONFIG": str(self._kubeconfig("operator")),
            "KEYTURN_NAMESPACES": self._namespaces,
            "KEYTURN_RELEASE_NAMESPACE": self.namespace,
            "KEYTURN_GRANTS_FILE": str(self._grants_file),
            "KEYTURN_OPERATOR_PROBE_PORT": str(port or self.operator_port),
            "KEYTURN_OPERATOR_PROBE_HOST": "127.0.0.1",
        }
        return self._spawn(f"operator-{number}", [str(_SCRIPTS / "keyturn-operator")], environ)

    def start_mirror(self) -> None:
        """Start the process that mirrors the signing keys' Secret."""
        arguments = ["--kubeconfig", str(self._kubeconfig("mirror")), "--namespace", self.namespace]
        arguments += ["--secret", SIGNING_KEY, "--directory", str(self.keys)]
        self._spawn("mirror", [sys.executable, "-m", "keyturn_dev.mirror", *arguments], {})

    def start_api(self, number: int) -> process.ProcessRecord:
        """Start one API process."""
        ports = self.apis[number]
        environ = {
            "KEYTURN_SIGNING_KEY_DIRECTORY": str(self.keys),
            "KEYTURN_HTTP_HOST": "127.0.0.1",
            "KEYTURN_HTTP_PORT": str(ports.http),
            "KEYTURN_METRICS_HOST": "127.0.0.1",
            "KEYTURN_METRICS_PORT": str(ports.metrics),
            **self._api_access(),
        }
        return self._spawn(f"api-{number}", [str(_SCRIPTS / "keyturn-api")], environ)

    def stop(self) -> bool:
        """End all processes and remove the folder; tell whether anything ran."""
        stopped = False
        for record in reversed(process.read_records(self.state / "processes")):
            stopped = process.stop(record, grace=10.0) or stopped
        shutil.rmtree(self.state, ignore_errors=True)
        return stopped

    def stop_process(self, name: str, *, grace: float = 10.0) -> bool:
        """End one process by its name (`operator-0`, `api-1`, `mirror`)."""
        return any(process.stop(record, grace=grace) for record in self.records() if record.name == name)

    def restart_operator(self) -> None:
        """Stop the operator and start it again."""
        self.stop_process("operator-0")
        self.start_operator()

    def records(self) -> list[process.ProcessRecord]:
        """The processes that were started here."""
        return process.read_records(self.state / "processes")

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Return when every API process is ready; raise `DevError` naming what ended or what did not come."""

        def ready() -> bool:
            self.check_alive()
            return all(status_of(f"{self.url_of(number)}/readyz") == 200 for number in range(self._replicas))

        wait_until(ready, "the API to be ready (/readyz)", seconds=seconds)

    def check_alive(self) -> None:
        """Raise `DevError` with the end of its log when a process has ended."""
        for record in self.records():
            if not process.is_alive(record):
                tail = process.log_tail(self.log(record.name))
                raise DevError(f"{record.name} has ended. The end of its log:\n{tail}")

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.state / "logs" / f"{name}.log"

    @property
    def _namespaces(self) -> str:
        return EVERY if EVERY in self._watched else ",".join((self.namespace, *self._watched))

    @property
    def _grants_file(self) -> Path:
        return self.state / "grants.json"

    def _kubeconfig(self, part: str) -> Path:
        return self.state / f"{part}.kubeconfig"

    def _spawn(self, name: str, command: list[str], environ: Mapping[str, str]) -> process.ProcessRecord:
        common = {
            **_inherited(),
            "KEYTURN_ISSUER": self.url,
            "KEYTURN_STORE_URL": self.store_url,
            "KEYTURN_LOG_LEVEL": "DEBUG",
            "KEYTURN_SHUTDOWN_DELAY": "0",
            # Whoever tries something here comes from loopback, and may try a wrong secret as often as they like.
            "KEYTURN_RATE_LIMIT_EXEMPT": "127.0.0.0/8",
            **self._settings,
            **environ,
        }
        with exclusive(self.state / "lock", f"starting {name}", seconds=30, on_wait=lambda _: None) as lock:
            return process.spawn(
                name,
                command,
                records=self.state / "processes",
                log=self.log(name),
                environ=common,
                lock=lock,
            )


def _inherited() -> dict[str, str]:
    """What a program needs of this process's environment, and nothing that would configure it by accident."""
    wanted = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
    return {name: os.environ[name] for name in wanted if name in os.environ}


def apply_crds(target: Target) -> None:
    """Apply the CRDs and wait until the API server serves them."""
    run_kubectl(target.kubectl, target.kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    run_kubectl(
        target.kubectl, target.kubeconfig, "wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS)
    )


def status_of(url: str) -> int | None:
    """Return the status of a GET, or None while nobody answers."""
    with contextlib.suppress(OSError):
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
    return None
