"""Liveness and readiness, decided from what the process has noted of itself, and their small HTTP server."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from keyturn_operator.metrics import Metrics

MAX_LOOP_LAG = 5.0
"""Seconds that the event loop may be late before the process counts as hung."""


@dataclass
class Health:
    """What the probes look at. Times are of the monotonic clock."""

    sweep_limit: float
    starting: str | None = "starting"  # why the process is not ready yet
    leading_since: float | None = None
    last_sweep: float | None = None
    last_tick: float = field(default_factory=time.monotonic)

    def live(self, now: float) -> str | None:
        """Why the process should be restarted, or None. A standby sweeps nothing, so only a leader's sweeps can be late."""
        if now - self.last_tick > MAX_LOOP_LAG:
            return f"the event loop is {now - self.last_tick:.0f} s late"
        if self.leading_since is not None:
            since = max(self.leading_since, self.last_sweep or 0.0)
            if now - since > self.sweep_limit:
                return f"no sweep has succeeded for {now - since:.0f} s"
        return None

    def ready(self, now: float) -> str | None:
        """Why the process is not ready, or None. A healthy standby is ready: it can take over."""
        return self.starting or self.live(now)

    async def tick(self, interval: float = 0.5) -> None:
        """Notes that the event loop turns, until cancelled."""
        while True:
            self.last_tick = time.monotonic()
            await asyncio.sleep(interval)


def application(health: Health, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> web.Application:
    """`/livez`, `/readyz` and `/metrics`."""

    def answer(problem: str | None) -> web.Response:
        return web.Response(status=200 if problem is None else 503, text=(problem or "ok") + "\n")

    async def livez(_request: web.Request) -> web.Response:
        return answer(health.live(clock()))

    async def readyz(_request: web.Request) -> web.Response:
        return answer(health.ready(clock()))

    async def expose(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=1024)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", expose)
    return app


async def serve(app: web.Application, host: str, port: int) -> web.AppRunner:
    """Starts the server; the caller cleans the runner up."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
