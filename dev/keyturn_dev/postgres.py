"""A real PostgreSQL on loopback for tests: one that is named, else one started from the machine's own programs.

with postgres() as url: ...                     # postgresql://user:password@127.0.0.1:port/postgres
python -m keyturn_dev.postgres [COMMAND…]       # runs COMMAND with KEYTURN_TEST_POSTGRES_URL, or until Ctrl-C
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from keyturn_dev.certificates import write_private
from keyturn_dev.errors import DevError
from keyturn_dev.keeper import end_keeper
from keyturn_dev.loopback import LOOPBACK, free_ports
from keyturn_dev.postgres_programs import URL_VARIABLE, ensure_programs, reachable_by_others
from keyturn_dev.process import log_tail, read_stat
from keyturn_dev.progress import Progress
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from keyturn_dev.certificates import Certificate
    from keyturn_dev.postgres_programs import Programs

_USER = "keyturn"
_ATTEMPTS = 3
_START_SECONDS = 30.0
# The server's data is thrown away at the end, so nothing needs to reach the disk.
_VOLATILE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# Starts the server and waits on its standard input, whose other end this process holds: when that end closes, because
# the tests are over or because they were killed, the server is stopped and its data removed. Nothing stays behind.
_KEEPER = """
data=$1 log=$2; shift 2
"$@" </dev/null >"$log" 2>&1 &
server=$!
echo "$server"
read -r end
kill -QUIT "$server" 2>/dev/null
wait "$server"
rm -rf "$data"
"""


@contextlib.contextmanager
def postgres(
    environ: Mapping[str, str] | None = None,
    *,
    progress: Progress | None = None,
    settings: Mapping[str, str] | None = None,
    durable: bool = False,
    certificate: Certificate | None = None,
) -> Iterator[str]:
    """Yield the URL of a PostgreSQL server whose user may create databases; stop it in the end if it was started here.

    `KEYTURN_TEST_POSTGRES_URL`, if set, is yielded as it is. `settings` are further server settings; a `durable` server
    writes to the disk as it would in production (for measurements). One with a `certificate` takes TLS as well, and is always started
    here. Raise `DevError` if there is none to be had, or if it does not start, with the end of its log.
    """
    environ = os.environ if environ is None else environ
    if certificate is None and (named := environ.get(URL_VARIABLE)):
        yield named
        return
    programs = ensure_programs(environ, progress or Progress())
    chosen = {**({} if durable else _VOLATILE), "max_connections": "100", **(settings or {})}
    with contextlib.ExitStack() as stack:
        yield _start(programs, chosen, certificate, stack)


def _start(
    programs: Programs, settings: Mapping[str, str], certificate: Certificate | None, stack: contextlib.ExitStack
) -> str:
    for _ in range(_ATTEMPTS - 1):
        with contextlib.ExitStack() as attempt:
            try:
                url = attempt.enter_context(_server(programs, settings, certificate))
            except _PortTakenError:
                continue
            stack.push(attempt.pop_all())
            return url
    return stack.enter_context(_server(programs, settings, certificate))


class _PortTakenError(DevError):
    """Another program took the port between our choice and the server's use of it."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """The user as whom the server runs: ourselves, or, as PostgreSQL refuses root, an ordinary user of the system."""

    user: int | None
    group: int | None
    name: str

    @classmethod
    def choose(cls) -> Identity:
        if os.geteuid() != 0:
            return cls(None, None, "")
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid, name)
        raise DevError("PostgreSQL does not run as root, and there is neither a user `postgres` nor a user `nobody`")

    def own(self, path: Path) -> None:
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)

    def groups(self) -> list[int] | None:
        return None if self.user is None else []


@contextlib.contextmanager
def _server(programs: Programs, settings: Mapping[str, str], certificate: Certificate | None) -> Iterator[str]:
    identity = Identity.choose()
    data = private_folder(identity)
    keeper: subprocess.Popen[str] | None = None
    try:
        password = secrets.token_urlsafe(24)
        _initialize(programs, data, password, identity)
        if certificate is not None:
            settings = {**settings, **_tls(certificate, data, identity)}
        (port,) = free_ports(1)
        keeper = _launch(programs, data, port, settings, identity)
        yield f"postgresql://{_USER}:{password}@{LOOPBACK}:{port}/postgres"
    finally:
        if keeper is not None:
            end_keeper(keeper)
        shutil.rmtree(data, ignore_errors=True)


def private_folder(identity: Identity) -> Path:
    """Make the server's folder, where its user can reach it: not below a home or a TMPDIR that is closed to others."""
    parent = Path(tempfile.gettempdir())
    if identity.user is not None and not reachable_by_others(parent):
        parent = Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix="keyturn-postgres-", dir=parent))
    identity.own(folder)
    return folder


def _tls(certificate: Certificate, folder: Path, identity: Identity) -> dict[str, str]:
    """Write what the server shows to clients, and return the settings that name it."""
    files = {"ssl_cert_file": certificate.certificate, "ssl_key_file": certificate.key}
    settings = {"ssl": "on"}
    for name, content in files.items():
        path = folder / f"{name}.pem"
        write_private(path, content)
        identity.own(path)
        settings[name] = str(path)
    return settings


def _initialize(programs: Programs, folder: Path, password: str, identity: Identity) -> None:
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password, encoding="ascii")
    identity.own(secret)
    command = [str(programs.folder / "initdb"), "--pgdata", str(folder / "data"), "--username", _USER]
    command += ["--auth", "scram-sha-256", "--pwfile", str(secret), "--encoding", "UTF8", "--locale", "C", "--no-sync"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
            cwd=folder,
            env=_environment(folder),
            user=identity.user,
            group=identity.group,
            extra_groups=identity.groups(),
        )
    except subprocess.TimeoutExpired:
        raise DevError("initdb took longer than 2 minutes") from None
    finally:
        secret.unlink(missing_ok=True)
    if done.returncode != 0:
        raise DevError(
            f"initdb failed{f' as {identity.name}' if identity.name else ''}:\n{done.stdout[-2000:].strip()}"
        )


def _launch(
    programs: Programs, folder: Path, port: int, settings: Mapping[str, str], identity: Identity
) -> subprocess.Popen[str]:
    log = folder / "log"
    fixed = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": ""}
    options = [part for name, value in {**settings, **fixed}.items() for part in ("-c", f"{name}={value}")]
    server = [str(programs.folder / "postgres"), "-D", str(folder / "data"), *options]
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "keeper", str(folder), str(log), *server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=os.sep,
        env=_environment(folder),
        start_new_session=True,
        user=identity.user,
        group=identity.group,
        extra_groups=identity.groups(),
    )
    try:
        assert keeper.stdout is not None
        pid = int(keeper.stdout.readline())

        def ready() -> bool:
            stat = read_stat(pid)
            if stat is None or stat.state in ("Z", "X"):
                tail = log_tail(log)
                raise (_PortTakenError if "Address already in use" in tail else DevError)(
                    f"PostgreSQL ended while it started. The end of its log:\n{tail}"
                )
            return _accepts(folder, port)

        wait_until(ready, "PostgreSQL to accept connections", seconds=_START_SECONDS)
    except BaseException:
        end_keeper(keeper)
        raise
    return keeper


def _accepts(folder: Path, port: int) -> bool:
    """Tell whether the server says in its lock file that it is ready, and the port answers."""
    try:
        lines = (folder / "data" / "postmaster.pid").read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return False
    if len(lines) < 8 or lines[7].strip() != "ready":
        return False
    try:
        socket.create_connection((LOOPBACK, port), timeout=2).close()
    except OSError:
        return False
    return True


def _environment(folder: Path) -> dict[str, str]:
    # Nothing of the person's: PGPORT, PGDATA and the like would change what is started.
    return {"PATH": os.defpath, "HOME": str(folder), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _on_signal(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: the command's own, 0 after Ctrl-C, 1 if no server starts."""
    parser = argparse.ArgumentParser(prog="python -m keyturn_dev.postgres", description=__doc__)
    parser.add_argument("command", nargs=argparse.REMAINDER, help=f"run with {URL_VARIABLE} set (default: wait)")
    command = [part for part in parser.parse_args(arguments).command if part != "--"]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    try:
        with postgres() as url:
            if command:
                return subprocess.run(command, env={**os.environ, URL_VARIABLE: url}, check=False).returncode
            print(f"export {URL_VARIABLE}='{url}'", flush=True)
            signal.pause()
    except DevError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
