"""A Kubernetes API server on this machine: etcd, kube-apiserver and kube-controller-manager on loopback, without nodes.

`python -m keyturn_dev.cluster build|up|down|status` for people, `Cluster` for programs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from keyturn_dev import components, process
from keyturn_dev.binaries import ensure_binaries
from keyturn_dev.certificates import make_certificates, write_certificates, write_private
from keyturn_dev.errors import DevError, UsageError
from keyturn_dev.kubeconfig import (
    certificate_user,
    kubeconfig_cluster,
    kubeconfig_document,
    service_account_kubeconfig,
    write_kubeconfig,
)
from keyturn_dev.locking import exclusive
from keyturn_dev.loopback import ApiServerProbe, free_ports
from keyturn_dev.paths import CLUSTER_STATE
from keyturn_dev.progress import Progress
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from keyturn_dev.binaries import Binaries
    from keyturn_dev.certificates import ClusterCertificates
    from keyturn_dev.process import ProcessRecord

_ATTEMPTS = 3
_START_SECONDS = 60.0
_LOCK_SECONDS = 120.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PORT_TAKEN = "address already in use"
# What a state folder may hold, and so what is removed from it. A folder with anything else in it is not ours.
_LOCK = "lock"
CONTENTS = ("certs", "controller-manager.kubeconfig", "etcd", "kubeconfig", "logs", "processes", "ready.json")


class AlreadyRunning(DevError):
    """A second start of a cluster that runs."""


class PortTaken(DevError):
    """Another program took a port between our choice and our use of it."""


@dataclasses.dataclass(frozen=True)
class ClusterStatus:
    """What is known of a cluster: `ready` after a complete start; which of its processes live, which have ended."""

    ready: bool
    server: str | None
    alive: tuple[ProcessRecord, ...]
    ended: tuple[ProcessRecord, ...]

    @property
    def up(self) -> bool:
        """Tell whether the cluster was started completely and all of it still runs."""
        return self.ready and bool(self.alive) and not self.ended


class Cluster:
    """One local cluster, named by the folder that holds its state. Clusters with different folders run side by side.

    Objects of this class hold nothing but the folder's path: any of them, in any process, can take the cluster down.
    """

    contents: tuple[str, ...] = CONTENTS
    network = components.WITHOUT_NODES
    controllers: tuple[str, ...] = components.CONTROLLERS

    def __init__(
        self,
        state: Path = CLUSTER_STATE,
        *,
        environ: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.state = state.absolute()
        self._environ = dict(os.environ if environ is None else environ)
        self._progress = progress or Progress()
        self._binaries: Binaries | None = None

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it exists while the cluster is up."""
        return self.state / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        """A kubectl that fits the cluster (built at first use if the PATH has none)."""
        return self.build().kubectl

    def build(self) -> Binaries:
        """Return the cluster's programs, built first if need be."""
        if self._binaries is None:
            self._binaries = ensure_binaries(self._environ, self._progress)
        return self._binaries

    def status(self) -> ClusterStatus:
        """Look at the state folder and the process table; raise `DevError` if the folder is another user's."""
        try:
            records = process.read_records(self.state / "processes")
        except PermissionError as error:
            raise DevError(f"the state folder {self.state} cannot be read: {error.strerror}") from error
        alive = tuple(record for record in records if process.is_alive(record))
        server = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            server = str(json.loads((self.state / "ready.json").read_text(encoding="utf-8"))["server"])
        ended = tuple(record for record in records if record not in alive)
        return ClusterStatus(ready=server is not None, server=server, alive=alive, ended=ended)

    def is_up(self) -> bool:
        """Tell whether the cluster was started completely and all of it still runs."""
        return self.status().up

    def up(self) -> Path:
        """Start the cluster and return the administrator's kubeconfig.

        Raise `AlreadyRunning` if it runs, and `DevError` naming the part that failed, with the end of its log. What an
        interrupted start left behind is taken down first; after a failure nothing is left running.
        """
        binaries = self.build()
        with self._locked("starting or stopping the cluster") as lock:
            self._make_room()
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    self._start(binaries, lock)
                except PortTaken:
                    self._clear()
                    if attempt == _ATTEMPTS:
                        raise
                except BaseException:
                    self._clear()
                    raise
                else:
                    break
        return self.kubeconfig

    def down(self) -> bool:
        """Stop whatever runs of the cluster, remove its state, and tell whether anything ran.

        Safe at any time: after a crash, after a reboot, twice, or during another process's start (waits for its end).
        """
        if not self.state.is_dir():
            return False
        with self._locked("starting or stopping the cluster"):
            return self._clear()

    def service_account_kubeconfig(
        self, namespace: str, name: str, out: Path, duration: str = "1h", audiences: Sequence[str] = ()
    ) -> Path:
        """Write a kubeconfig that acts as a ServiceAccount (see `keyturn_dev.kubeconfig`) and return its path."""
        return service_account_kubeconfig(
            self.kubectl, self.kubeconfig, namespace, name, out, duration=duration, audiences=audiences
        )

    @contextlib.contextmanager
    def _locked(self, what: str) -> Iterator[int]:
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            strangers = {path.name for path in self.state.iterdir()} - {_LOCK, *self.contents}
            if strangers:
                found = ", ".join(sorted(strangers)[:3])
                raise UsageError(f"{self.state} is no cluster's state folder: it holds {found}")
            self.state.chmod(0o700)
        except OSError as error:
            raise DevError(f"the state folder {self.state} cannot be used: {error.strerror}") from error
        with exclusive(self.state / _LOCK, what, seconds=_LOCK_SECONDS, on_wait=self._progress.say) as lock:
            yield lock

    def _make_room(self) -> None:
        status = self.status()
        if status.ready and status.alive:
            running = ", ".join(f"{record.name} (process {record.pid})" for record in status.alive)
            if status.ended:
                lost = ", ".join(record.name for record in status.ended)
                raise AlreadyRunning(
                    f"a cluster runs, but {lost} ended: take it down first. Running: {running}; state in {self.state}"
                )
            raise AlreadyRunning(f"a cluster runs already: {running}; state in {self.state}")
        # A start that was killed halfway (the lock is free, so nobody is at it), or the remains from before a reboot.
        self._clear()

    def _clear(self) -> bool:
        """Stop what runs, clients before the servers that they call, and remove the state."""
        records = process.read_records(self.state / "processes")
        stopped = [record for record in reversed(records) if process.stop(record)]
        process.settle(stopped)
        for name in self.contents:
            path = self.state / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return bool(stopped)

    def _start(self, binaries: Binaries, lock: int) -> None:
        for name in ("logs", "processes"):
            (self.state / name).mkdir(mode=0o700)
        certificates = self._make_certificates()
        write_certificates(certificates, self.state / "certs")
        ports = components.Ports(*free_ports(3))
        server = f"https://{self.network.bind}:{ports.api_server}"
        cluster = kubeconfig_cluster(server, certificates.authority)
        write_kubeconfig(
            self.state / "controller-manager.kubeconfig",
            kubeconfig_document(
                cluster, certificate_user(certificates.controller_manager), user_name="system:kube-controller-manager"
            ),
        )

        self._spawn("etcd", components.etcd_command(binaries, self.state, ports), lock)
        self._spawn("kube-apiserver", components.api_server_command(binaries, self.state, ports, self.network), lock)
        client = ApiServerProbe(self.state / "certs", ports.api_server, self.network.bind)
        self._wait(lambda: client.get("/readyz") == 200, "the API server to be ready (/readyz)")
        self._spawn(
            "kube-controller-manager",
            components.controller_manager_command(binaries, self.state, self.controllers),
            lock,
        )
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait(lambda: client.get(account) == 200, "the controller manager to make the default ServiceAccount")

        admin = kubeconfig_document(cluster, certificate_user(certificates.admin), user_name="admin")
        write_kubeconfig(self.kubeconfig, admin)
        self._start_more(cluster, certificates, lock)
        write_private(self.state / "ready.json", json.dumps({"server": server}).encode())

    def _make_certificates(self) -> ClusterCertificates:
        return make_certificates(datetime.datetime.now(datetime.UTC))

    def _start_more(self, cluster: dict[str, str], certificates: ClusterCertificates, lock: int) -> None:
        """What a cluster with nodes starts besides; `cluster` is the kubeconfigs' entry of it."""

    def _spawn(self, name: str, command: Sequence[str], lock: int, *, path: str = os.defpath) -> None:
        # Nothing of the person's environment: etcd, for one, reads its options from variables too.
        environ = {"PATH": path, "HOME": str(self.state), "LANG": "C.UTF-8"}
        process.spawn(
            name,
            command,
            records=self.state / "processes",
            log=self.state / "logs" / f"{name}.log",
            environ=environ,
            lock=lock,
        )

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            for record in self.status().ended:
                tail = process.log_tail(self.state / "logs" / f"{record.name}.log")
                failure = PortTaken if _PORT_TAKEN in tail else DevError
                raise failure(f"{record.name} ended while the cluster started. The end of its log:\n{tail}")
            return condition()

        wait_until(holds, what, seconds=_START_SECONDS)


def _report(cluster: Cluster) -> int:
    status = cluster.status()
    if not status.alive:
        print(f"no cluster runs (state folder {cluster.state})")
        return 3
    print(f"{'up' if status.up else 'incomplete'}: {status.server or 'not ready'}, state in {cluster.state}")
    for record in status.alive:
        print(f"  {record.name}: process {record.pid}, for {process.uptime_of(record):.0f} s")
    for record in status.ended:
        print(f"  {record.name}: ended (log: {cluster.state / 'logs' / record.name}.log)")
    if status.ready:
        print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    return 0 if status.up else 3


def _run(command: str, cluster: Cluster) -> int:
    if command == "build":
        binaries = cluster.build()
        for path in dataclasses.astuple(binaries):
            print(path)
    elif command == "up":
        try:
            cluster.up()
        except AlreadyRunning as running:
            print(running, file=sys.stderr)
            return 0 if cluster.is_up() else 1
        finally:
            if cluster.is_up():
                print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    elif command == "down":
        print("the cluster is down" if cluster.down() else "no cluster was running", file=sys.stderr)
    else:
        return _report(cluster)
    return 0


def _on_signal(number: int, _frame: object) -> NoReturn:
    # An exception, so that a start that is interrupted takes back what it has done; undisturbed by a second Ctrl-C.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 2 wrongly called, 3 (status) not up."""
    parser = argparse.ArgumentParser(prog="python -m keyturn_dev.cluster", description=__doc__)
    parser.add_argument("command", choices=("build", "up", "down", "status"))
    parser.add_argument("--state", type=Path, default=CLUSTER_STATE, help="state folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    for number in _SIGNALS:
        signal.signal(number, _on_signal)
    if not sys.platform.startswith("linux"):
        print("the local cluster runs on Linux only; KEYTURN_CLUSTER=current uses a cluster of yours", file=sys.stderr)
        return 1
    try:
        return _run(options.command, Cluster(options.state))
    except DevError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
