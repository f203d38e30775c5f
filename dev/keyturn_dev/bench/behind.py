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
_CONNECTIONS = 32
_START_SECONDS = 30.0
_WARM_SECONDS = 1.0
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
    """One gateway. Requests a second: its capacity `alone` and with the check, and the `rate` at which both were compared."""

    gateway: str
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
            yield _measure(bench, BY_NAME[name], store, upstream)


def _measure(bench: Bench, kind: Kind, store: tuple[str, Path], upstream: int) -> Added:
    bench.progress.begin(f"behind {kind.name}")
    requests = bench.folder / "caller.requests"
    tokens = bench.sign_tokens()
    wire.write_requests(
        requests,
        [wire.plain_get(token, uri=target) for token, target in zip(tokens, world.targets(len(tokens)), strict=True)],
    )
    grpc_port, http, https = free_ports(3)
    extra = {"KEYTURN_GATEWAY_PROFILE": kind.profile, "KEYTURN_GRPC_PORT": str(grpc_port)}

    def load(seconds: float, rate: float | None = None) -> Load:
        came = send(
            bench.generator,
            f"{LOOPBACK}:{http}",
            requests,
            connections=_CONNECTIONS,
            seconds=seconds,
            once=False,
            rate=rate,
        )
        if came.failed > came.answered // 100:
            raise DevError(f"behind {kind.name} requests fail:\n{came.sample}")
        return came

    with running_api(store_url=store[0], keys=store[1], workers=1, folder=bench.folder, extra=extra) as api:
        keyturn = grpc_port if kind.profile == "envoy-grpc" else api.port
        ports = Ports(http, https, keyturn, upstream)
        runs: dict[bool, list[Load]] = {True: [], False: []}
        capacity: dict[bool, float] = {}
        for checked in (True, False):
            with _running_gateway(bench, kind, ports, checked=checked):
                load(_WARM_SECONDS)
                full = load(bench.options.seconds)
                capacity[checked] = full.answered / full.seconds
        rate = capacity[True] / 2
        # In turn, so that a slow spell of the machine meets both.
        for number in range(bench.options.runs):
            for checked in (False, True):
                bench.progress.update(f"behind {kind.name}: run {number + 1}")
                with _running_gateway(bench, kind, ports, checked=checked):
                    load(_WARM_SECONDS, rate)
                    runs[checked].append(load(bench.options.seconds, rate))
    bench.progress.end(f"behind {kind.name}")
    return Added(kind.name, capacity[False], capacity[True], rate, tuple(runs[False]), tuple(runs[True]))


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
