"""The API under measurement: `keyturn-api` as a process that ends with this one, whatever happens to it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.bench.world import ISSUER
from keyturn_dev.errors import DevError
from keyturn_dev.loopback import LOOPBACK, free_ports
from keyturn_dev.process import log_tail, read_stat
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
# Waits on its standard input, whose other end this process holds: when that closes, even by a kill, the API is ended.
_KEEPER = """
log=$1; shift
"$@" </dev/null >"$log" 2>&1 &
api=$!
echo "$api"
read -r end
kill -TERM "$api" 2>/dev/null
wait "$api"
"""


class Api:
    """A running API. `pid` is the root of its process tree."""

    def __init__(self, pid: int, port: int, log: Path) -> None:
        self.pid = pid
        self.port = port
        self.log = log

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def check_alive(self) -> None:
        """Raise `DevError` with the end of its log when it has ended."""
        stat = read_stat(self.pid)
        if stat is None or stat.state in ("Z", "X"):
            raise DevError(f"keyturn-api has ended. The end of its log:\n{log_tail(self.log)}")

    def is_ready(self) -> bool:
        """Tell whether /readyz says so now."""
        self.check_alive()
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def settings(*, store_url: str, keys: Path, port: int, workers: int, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the API's settings; what is not named here keeps its default, as an installation would have it."""
    return {
        "KEYTURN_ISSUER": ISSUER,
        "KEYTURN_STORE_URL": store_url,
        "KEYTURN_SIGNING_KEY_DIRECTORY": str(keys),
        "KEYTURN_HTTP_HOST": LOOPBACK,
        "KEYTURN_HTTP_PORT": str(port),
        "KEYTURN_METRICS_HOST": LOOPBACK,
        "KEYTURN_METRICS_PORT": "0",
        "KEYTURN_WORKERS": str(workers),
        "KEYTURN_SHUTDOWN_DELAY": "0",
        **extra,
    }


@contextlib.contextmanager
def running_api(
    *, store_url: str, keys: Path, workers: int, folder: Path, extra: Mapping[str, str] | None = None
) -> Iterator[Api]:
    """Start the API, yield it when it is ready, and end it; raise `DevError` with the end of its log if it does not come."""
    (port,) = free_ports(1)
    log = folder / "api.log"
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    environ |= settings(store_url=store_url, keys=keys, port=port, workers=workers, extra=extra or {})
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "keeper", str(log), str(Path(sys.executable).with_name("keyturn-api"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=environ,
        # Ctrl-C at the terminal reaches this process alone, which then ends the others in order.
        start_new_session=True,
    )
    try:
        assert keeper.stdout is not None
        api = Api(int(keeper.stdout.readline()), port, log)
        wait_until(api.is_ready, "keyturn-api to be ready (/readyz)", seconds=_START_SECONDS, interval=0.1)
        yield api
    finally:
        _end(keeper)


def _end(keeper: subprocess.Popen[str]) -> None:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        keeper.stdin.close()
    try:
        keeper.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # The keeper leads a session of its own, in which the API and its workers started.
        os.killpg(keeper.pid, signal.SIGKILL)
        keeper.wait()
    finally:
        keeper.stdout.close()
