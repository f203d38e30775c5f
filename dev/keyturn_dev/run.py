"""`make run`, `make up`, `make down`: an installation on this machine, and what it does, shown."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from keyturn_dev import process
from keyturn_dev.errors import DevError
from keyturn_dev.installation import Installation
from keyturn_dev.locking import exclusive
from keyturn_dev.paths import PROJECT
from keyturn_dev.progress import Progress
from keyturn_dev.rights import SIGNING_KEY, cluster_scoped
from keyturn_dev.target import CurrentContext, choose_cluster
from keyturn_dev.walkthrough import Walkthrough

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn_dev.target import Target

NAMESPACE = "keyturn-demo"
RUN = PROJECT / ".run"
STATE = RUN / "installation"
DEMO = RUN / "demo"
ENV = RUN / "env"
SHELL = RUN / "shell"
_SIGNING_KEY_MANIFEST = PROJECT / "examples" / "signing-key.yaml"


def installation_on(target: Target) -> Installation:
    """The one installation of this checkout."""
    return Installation(target, NAMESPACE, STATE, settings={"KEYTURN_GATEWAY_PROFILE": "original-request"})


def env_file(installation: Installation) -> str:
    """What any tool needs to talk to the installation, for a shell to read."""
    python = shlex.quote(sys.executable)
    kubeconfig = str(installation.target.kubeconfig)
    values = {
        "KUBECONFIG": kubeconfig,
        "KEYTURN_URL": installation.url,
        "KEYTURN_NAMESPACE": installation.namespace,
        "KEYTURN_REGISTRATION_TOKEN": installation.registration_token,
        "KEYTURN_CLI": shlex.quote(str(Path(sys.executable).with_name("keyturn"))),
        "KEYTURN_OPERATOR_RESTART": f"{python} -m keyturn_dev.run restart-operator",
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def shell_file(installation: Installation) -> str:
    """What makes the walk-through's commands work in a person's shell: the variables, and programs that are not on the PATH."""
    programs = {"keyturn": Path(sys.executable).with_name("keyturn"), "kubectl": installation.target.kubectl}
    functions = "".join(
        f'{name}() {{ {shlex.quote(str(path))} "$@"; }}\n' for name, path in programs.items() if not shutil.which(name)
    )
    return f". {shlex.quote(str(ENV))}\n{functions}"


def running() -> list[process.ProcessRecord]:
    """The processes of this checkout's installation that live."""
    return [record for record in process.read_records(STATE / "processes") if process.is_alive(record)]


def start(target: Target) -> Installation:
    """Start cluster, operator and API and wait until they serve; undo what was begun if that fails."""
    progress = Progress()
    # Two that start at the same moment must not take each other's state for the remains of a crash.
    with exclusive(RUN / "lock", "starting an installation", seconds=300, on_wait=progress.say):
        return _start(target, progress)


def _start(target: Target, progress: Progress) -> Installation:
    began = time.monotonic()
    if records := running():
        names = ", ".join(f"{record.name} (process {record.pid})" for record in records)
        raise DevError(f"one runs already: {names}. `make down` ends it; `.run/env` says how to reach it.")
    shutil.rmtree(STATE, ignore_errors=True)
    if not target.is_up():
        target.up()
    progress.say(f"The Kubernetes API server is up ({time.monotonic() - began:.0f} s).")
    installation = installation_on(target)
    try:
        installation.start()
        installation.kubectl("apply", "--validate=strict", "-f", str(_SIGNING_KEY_MANIFEST))
        installation.wait_ready()
        installation.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "signingkey", SIGNING_KEY)
    except BaseException as error:
        _ignore_signals()
        if not isinstance(error, KeyboardInterrupt):
            _show_logs(installation)
        stop(target)
        raise
    ENV.write_text(env_file(installation), encoding="utf-8")
    SHELL.write_text(shell_file(installation), encoding="utf-8")
    progress.say(f"Operator and API are up, the signing key is ready ({time.monotonic() - began:.0f} s).")
    return installation


def stop(target: Target) -> bool:
    """End what was started here, whatever is left of it."""
    installation = installation_on(target)
    if isinstance(target, CurrentContext) and target.is_up():
        installation.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s", seconds=90)
        installation.kubectl("delete", "--ignore-not-found", *cluster_scoped(NAMESPACE))
    stopped = installation.stop()
    stopped = target.down() or stopped
    shutil.rmtree(DEMO, ignore_errors=True)
    for path in (ENV, SHELL):
        path.unlink(missing_ok=True)
    return stopped


def walk(installation: Installation) -> None:
    """Show the way from a manifest to a decision."""
    DEMO.mkdir(mode=0o700, parents=True, exist_ok=True)
    Walkthrough(installation, DEMO).show()


def run(target: Target, *, once: bool) -> None:
    """Start, show, stay until Ctrl-C (unless `once`), and take everything down."""
    installation = start(target)
    try:
        try:
            walk(installation)
        except DevError:
            _show_logs(installation)
            raise
        if not once:
            print(f"\n{_where(installation)}\nCtrl-C ends it.", flush=True)
            while True:
                time.sleep(1)
                installation.check_alive()
    except KeyboardInterrupt:
        print("\nTaking it down.", flush=True)
    finally:
        _ignore_signals()
        stop(target)


def _where(installation: Installation) -> str:
    return (
        f"The API: {installation.url}  (its description: {installation.url}/docs)\n"
        f"The cluster: export KUBECONFIG={shlex.quote(str(installation.target.kubeconfig))}\n"
        f"To repeat the commands in another shell: . {shlex.quote(str(SHELL))}\n"
        f"Logs: {installation.state / 'logs'}"
    )


def _show_logs(installation: Installation) -> None:
    for record in installation.records():
        print(f"--- {record.name}:\n{process.log_tail(installation.log(record.name))}", file=sys.stderr)


def _ignore_signals() -> None:
    """From here on everything is taken down: a second Ctrl-C must not leave half of it running."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _on_signal(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m keyturn_dev.run", description=__doc__)
    parser.add_argument("command", choices=("run", "up", "down", "restart-operator"))
    command = parser.parse_args(arguments).command
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    RUN.mkdir(exist_ok=True)
    try:
        if command == "down":
            target = choose_cluster({**os.environ, "YES": "1"})
            print("it is down" if stop(target) else "nothing was running", file=sys.stderr)
            return 0
        target = choose_cluster()
        if command == "restart-operator":
            installation_on(target).restart_operator()
        elif command == "up":
            print(_where(start(target)))
        else:
            run(target, once=os.environ.get("ONCE") == "1")
    except DevError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; nothing is left running", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
