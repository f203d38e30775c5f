"""Open Policy Agent with the same decision to make: the same tokens, routes and permissions, written as its own policy."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keyturn_dev.bench.kept import Program, kept
from keyturn_dev.bench.world import ISSUER, ROUTES
from keyturn_dev.errors import DevError
from keyturn_dev.go_programs import ensure_programs, single_program
from keyturn_dev.loopback import LOOPBACK, accepts, free_ports
from keyturn_dev.paths import PROJECT
from keyturn_dev.process import log_tail
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from keyturn_dev.bench.world import World
    from keyturn_dev.progress import Progress

MODULE = PROJECT / "dev" / "peers" / "opa"
PACKAGE = "github.com/open-policy-agent/opa"
POLICY = MODULE / "policy.rego"
# By whether it remembers tokens, which is off as it is shipped.
NAMES = {True: "OPA with its token cache", False: "OPA as shipped"}
_START_SECONDS = 30.0
_CACHE = "caching.inter_query_builtin_value_cache.named.io_jwt.max_num_entries=10000"


class Opa(Program):
    """A running OPA."""

    name = "OPA"

    def decide(self, query: bytes) -> object:
        """Return its answer to a prepared query."""
        _, _, body = query.partition(b"\r\n\r\n")
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            connection.request("POST", "/v1/data/authz/allow", body, {"content-type": "application/json"})
            return json.loads(connection.getresponse().read()).get("result")
        finally:
            connection.close()


def ensure_opa(environ: Mapping[str, str], progress: Progress) -> Path:
    """Return the program, building it if the cache lacks it."""
    return ensure_programs(single_program(MODULE, "opa", PACKAGE, PACKAGE), ["opa"], environ, progress) / "opa"


def data(world: World) -> dict[str, object]:
    """Return what the policy looks up: the key that tokens are signed with, and the permissions of each route."""
    key = world.ring.signing_key()
    if key is None:
        raise DevError("the key ring that was made has no Active key")
    public = load_pem_private_key(key.to_pem(), None).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    anyone = ["items:admin", "items:read"]
    routes = {f"api/resource-{number}/items": {"GET": anyone} for number in range(ROUTES)}
    return {"bench": {"key": pem.decode("ascii"), "issuer": ISSUER, "routes": routes}}


@contextlib.contextmanager
def running_opa(world: World, *, cached: bool, folder: Path, progress: Progress, probe: bytes) -> Iterator[Opa]:
    """Start it, yield it once it allows the request of `probe`, and end it."""
    program = ensure_opa(os.environ, progress)
    (port,) = free_ports(1)
    known = folder / "opa-data.json"
    known.write_text(json.dumps(data(world)), encoding="utf-8")
    command = [str(program), "run", "--server", f"--addr={LOOPBACK}:{port}", "--log-level=error"]
    command += ["--skip-version-check", "--disable-telemetry", *(["--set", _CACHE] if cached else [])]
    log = folder / "opa.log"
    with kept([*command, str(POLICY), str(known)], log=log, folder=folder, environ=os.environ) as pid:
        peer = Opa(pid, port, log)
        wait_until(lambda: accepts(port), "OPA to listen", seconds=_START_SECONDS, interval=0.1)
        if peer.decide(probe) is not True:
            raise DevError(f"OPA does not allow what it should:\n{log_tail(log)}")
        yield peer
