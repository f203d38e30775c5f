"""The API under measurement: `keyturn-api` as a process that ends with this one, whatever happens to it."""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.bench.kept import Program, kept
from keyturn_dev.bench.world import ISSUER
from keyturn_dev.loopback import LOOPBACK, free_ports
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_START_SECONDS = 30.0


class Api(Program):
    """A running API."""

    name = "keyturn-api"

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
    command = [str(Path(sys.executable).with_name("keyturn-api"))]
    with kept(command, log=log, folder=folder, environ=environ) as pid:
        api = Api(pid, port, log)
        wait_until(api.is_ready, "keyturn-api to be ready (/readyz)", seconds=_START_SECONDS, interval=0.1)
        yield api
