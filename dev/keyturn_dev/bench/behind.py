"""What the check adds to a request behind a gateway: the shipped configuration against the same one without the check."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import statistics
from typing import TYPE_CHECKING

import yaml

from keyturn_dev.bench import wire, world
from keyturn_dev.bench.api import running_api
from keyturn_dev.bench.generator import send
from keyturn_dev.bench.kept import kept
from keyturn_dev.bench.measure import FORGETFUL, NEVER_SEEN
from keyturn_dev.certificates import Authority
from keyturn_dev.errors import DevError
from keyturn_dev.gateway_files import BY_NAME, Ports, write_files
from keyturn_dev.gateway_programs import ensure_gateway
from keyturn_dev.loopback import LOOPBACK, accepts, free_ports
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyturn_dev.bench.generator import Load
    from keyturn_dev.bench.measure import Bench
    from keyturn_dev.gateway_files import Kind

GATEWAYS = ("envoy", "envoy-grpc", "nginx")
# The tokens of the requests, as they are to a replica.
SEEN, NEW = "seen before", "never seen"
# Of which capacity of the gateway half is sent: without the check, or with it and tokens never seen, the least of its capacities.
ALONE, CHECKED = "alone", "with the check"
_CONNECTIONS = 32
_START_SECONDS = 30.0
_WARM_SECONDS = 0.5
# There are many runs: none is longer, whatever length is asked for.
_MOST_SECONDS = 3.0
# An API that costs next to nothing.
_API = """
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 10000000;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok"; }} }}
}}
"""


@dataclasses.dataclass(frozen=True)
class Added:
    """One gateway with one kind of tokens, at half `of` one of its capacities.

    Requests a second: its capacity `alone` and with the check of such tokens, and the `rate` at which both were compared.
    """

    gateway: str
    tokens: str
    of: str
    alone: float
    capacity: float
    rate: float
    without: tuple[Load, ...]
    checked: tuple[Load, ...]

    @property
    def p50(self) -> float:
        """Return the ms that the check adds to the median."""
        return _median([run.p50 for run in self.checked]) - _median([run.p50 for run in self.without])

    @property
    def p99(self) -> float:
        """Return the ms that it adds to the 99th percentile."""
        return _median([run.p99 for run in self.checked]) - _median([run.p99 for run in self.without])


def _median(values: list[float]) -> float:
    return statistics.median(values)


def without_check(kind: Kind, text: str) -> str:
    """Return a shipped configuration with the check taken out, and all else left as it is."""
    if kind.program == "nginx":
        gone = ("auth_request", "$keyturn_", "error_page 500")
        return "\n".join(line for line in text.splitlines() if not any(part in line for part in gone)) + "\n"
    if kind.program == "envoy":
        document = yaml.safe_load(text)
        for listener in document["static_resources"]["listeners"]:
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            # Both listeners share it: the second time nothing is left to take out.
            manager["http_filters"] = [
                each for each in manager["http_filters"] if each["name"] != "envoy.filters.http.ext_authz"
            ]
        return yaml.safe_dump(document)
    raise DevError(f"no benchmark knows the configuration of {kind.name}")


def measure_added(bench: Bench, store: tuple[str, Path]) -> Iterator[Added]:
    """Measure one gateway after the other, each with one worker of its own."""
    with _running_upstream(bench) as upstream:
        for name in GATEWAYS:
            yield from _Behind(bench, BY_NAME[name], store, upstream).measure()


class _Behind:
    """One gateway in front of one API. Without the check its tokens do not matter: that is measured once at each rate."""

    def __init__(self, bench: Bench, kind: Kind, store: tuple[str, Path], upstream: int) -> None:
        self._bench = bench
        self._kind = kind
        self._store = store
        self._upstream = upstream
        self._http, self._https = free_ports(2)
        self._seconds = min(bench.options.seconds, _MOST_SECONDS)
        self._requests: dict[str, Path] = {}
        for tokens, count in ((SEEN, world.TOKENS), (NEW, NEVER_SEEN)):
            path = bench.folder / f"caller-{tokens}.requests"
            signed = bench.sign_tokens(count)
            pairs = zip(signed, world.targets(count), strict=True)
            wire.write_requests(path, [wire.plain_get(token, uri=target) for token, target in pairs])
            self._requests[tokens] = path

    def measure(self) -> Iterator[Added]:
        name = f"behind {self._kind.name}"
        self._bench.progress.begin(name)
        with self._api({}) as seen, self._api(FORGETFUL) as new:
            keyturn = {SEEN: seen, NEW: new}
            capacities = {tokens: self._capacity(port, tokens) for tokens, port in keyturn.items()}
            alone = self._capacity(None, SEEN)
            rates = {ALONE: alone / 2, CHECKED: capacities[NEW] / 2}
            runs: dict[tuple[str, str | None], list[Load]] = {}
            # In turn, so that a slow spell of the machine meets all.
            for number in range(self._bench.options.runs):
                self._bench.progress.update(f"{name}: run {number + 1}")
                for of, rate in rates.items():
                    for tokens, port in ((None, None), *keyturn.items()):
                        loads = runs.setdefault((of, tokens), [])
                        # Beyond what it can do there is nothing to repeat: the longer it lasts, the more wait.
                        if not loads or tokens is None or rate < capacities[tokens]:
                            loads.append(self._run(port, tokens or SEEN, rate))
        self._bench.progress.end(name)
        for of, rate in rates.items():
            for tokens in keyturn:
                without, checked = tuple(runs[of, None]), tuple(runs[of, tokens])
                yield Added(self._kind.name, tokens, of, alone, capacities[tokens], rate, without, checked)

    @contextlib.contextmanager
    def _api(self, settings: dict[str, str]) -> Iterator[int]:
        """Start an API with these settings and yield the port that the gateway asks."""
        (grpc_port,) = free_ports(1)
        extra = {**settings, "KEYTURN_GATEWAY_PROFILE": self._kind.profile, "KEYTURN_GRPC_PORT": str(grpc_port)}
        url, keys = self._store
        with running_api(store_url=url, keys=keys, workers=1, folder=self._bench.folder, extra=extra) as api:
            yield grpc_port if self._kind.profile == "envoy-grpc" else api.port

    def _capacity(self, keyturn: int | None, tokens: str) -> float:
        full = self._run(keyturn, tokens, None)
        return full.answered / full.seconds

    def _run(self, keyturn: int | None, tokens: str, rate: float | None) -> Load:
        """One run, with a gateway that is started for it; without the check where no port is said."""
        ports = Ports(self._http, self._https, keyturn or self._upstream, self._upstream)
        with _running_gateway(self._bench, self._kind, ports, checked=keyturn is not None):
            self._send(tokens, _WARM_SECONDS, rate)
            return self._send(tokens, self._seconds, rate)

    def _send(self, tokens: str, seconds: float, rate: float | None) -> Load:
        came = send(
            self._bench.generator,
            f"{LOOPBACK}:{self._http}",
            self._requests[tokens],
            connections=_CONNECTIONS,
            seconds=seconds,
            once=False,
            rate=rate,
        )
        if came.failed > came.answered // 100:
            raise DevError(f"behind {self._kind.name} requests fail:\n{came.sample}")
        return came


@contextlib.contextmanager
def _running_upstream(bench: Bench) -> Iterator[int]:
    (port,) = free_ports(1)
    folder = bench.folder / "upstream"
    folder.mkdir()
    (folder / "nginx.conf").write_text(_API.format(port=port), encoding="utf-8")
    kind = BY_NAME["nginx"]
    command = kind.command(ensure_gateway("nginx", os.environ, bench.progress), folder)
    with kept(command, log=folder / "log", folder=folder, environ=os.environ):
        wait_until(lambda: accepts(port), "the API behind the gateway", seconds=_START_SECONDS, interval=0.05)
        yield port


@contextlib.contextmanager
def _running_gateway(bench: Bench, kind: Kind, ports: Ports, *, checked: bool) -> Iterator[None]:
    folder = bench.folder / f"gateway-{kind.name}-{'checked' if checked else 'alone'}"
    folder.mkdir(exist_ok=True)
    pair = Authority("bench", datetime.datetime.now(datetime.UTC)).issue("localhost", names=("localhost",))
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    write_files(kind, ports, folder, folder)
    (name,) = kind.files
    text = (folder / name).read_text(encoding="utf-8").replace("worker_processes auto;", "worker_processes 1;")
    (folder / name).write_text(text if checked else without_check(kind, text), encoding="utf-8")
    command = kind.command(ensure_gateway(kind.program, os.environ, bench.progress), folder)
    with kept(command, log=folder / "log", folder=folder, environ=os.environ):
        wait_until(lambda: accepts(ports.http), f"{kind.name} to listen", seconds=_START_SECONDS, interval=0.05)
        yield
