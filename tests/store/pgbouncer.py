"""A real PgBouncer in transaction mode before the database; it can be ended and started again."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from keyturn_dev.loopback import LOOPBACK, free_ports
from keyturn_dev.postgres import Identity, private_folder
from keyturn_dev.waiting import wait_until

POOL_SIZE = 3
"""Fewer server connections than the store's own pool has: they are certainly shared."""
_CONFIGURATION = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = {loopback}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
server_idle_timeout = 5
"""


class PgBouncer:
    """`url_of(url)` is the same database through the pooler."""

    def __init__(self, server: str, folder: Path, identity: Identity) -> None:
        self._folder = folder
        self._identity = identity
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        parts = urlsplit(server)
        users = folder / "users.txt"
        configuration = _CONFIGURATION.format(
            host=parts.hostname,
            server_port=parts.port,
            loopback=LOOPBACK,
            port=self.port,
            users=users,
            pool_size=POOL_SIZE,
        )
        for path, text in (
            (users, f'"{unquote(parts.username or "")}" "{unquote(parts.password or "")}"\n'),
            (folder / "pgbouncer.ini", configuration),
        ):
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
            identity.own(path)

    def url_of(self, url: str) -> str:
        parts = urlsplit(url)
        credentials = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{credentials}@{LOOPBACK}:{self.port}"))

    def start(self) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        assert program is not None, "PgBouncer is not installed (Debian: apt-get install pgbouncer)"
        log = self._folder / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [program, str(self._folder / "pgbouncer.ini")],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._folder,
                env={"PATH": os.defpath},
                user=self._identity.user,
                group=self._identity.group,
                extra_groups=self._identity.groups(),
            )

        def listens() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, log.read_text(errors="replace")[-2000:]
            return "process up" in log.read_text(errors="replace").rpartition("kernel file")[2]

        wait_until(listens, "PgBouncer to listen", seconds=15)

    def stop(self) -> None:
        """At once, as when its pod is killed: every client loses its connection."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def restart(self, *, away: float = 0.0) -> None:
        self.stop()
        (self._folder / "log").write_bytes(b"")
        time.sleep(away)
        self.start()


@contextmanager
def pgbouncer(server: str) -> Iterator[PgBouncer]:
    identity = Identity.choose()
    folder = private_folder(identity)
    pooler = PgBouncer(server, folder, identity)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.stop()
        shutil.rmtree(folder, ignore_errors=True)
