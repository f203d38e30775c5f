"""One process that serves requests: everything is started and ended here."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Final

import uvicorn
import uvloop

from keyturn.store.factory import open_store
from keyturn.store.interface import SchemaTooNew, StoreError
from keyturn.tracing import TracingUnavailable
from keyturn_api.http_protocol import LimitedHttpProtocol
from keyturn_api.logs import get_logger
from keyturn_api.service import Service, build, make_metrics, start_tracing, traced
from keyturn_api.settings import ApiSettings
from keyturn_api.shared_readiness import SharedReadiness
from keyturn_api.tls import ServerCertificate

_log = get_logger("process")
FAILED: Final = 1
_KEEP_ALIVE: Final = 75
# Far above what gateways open; beyond it requests are answered 503 instead of using up descriptors.
_MAX_CONNECTIONS: Final = 10_000
_READINESS_EVERY: Final = 0.5


class _Protocol(LimitedHttpProtocol):
    """This process's connections."""


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: the end is decided here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(settings: ApiSettings, listener: socket.socket, *, shared: SharedReadiness | None, parent: int | None) -> int:
    """Serves until SIGTERM or SIGINT (or the end of the parent process, which holds the other end of the pipe `parent`)."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, listener, shared, parent))


async def _serve(
    settings: ApiSettings, listener: socket.socket, shared: SharedReadiness | None, parent: int | None
) -> int:
    store = open_store(
        settings.store_url.get_secret_value(),
        listen_url=None if settings.store_listen_url is None else settings.store_listen_url.get_secret_value(),
        prepared=settings.store_prepared,
        pool_size=settings.store_pool_size,
        statement_timeout=settings.store_statement_timeout,
        transport=settings.transport,
    )
    try:
        tracing = start_tracing(settings)
    except TracingUnavailable as error:
        _log.error("cannot_start", cause=str(error))
        return FAILED
    service = build(settings, store=store, metrics=make_metrics(settings, tracing), shared=shared, tracing=tracing)
    if not settings.accepted_audiences:
        _log.info("any_audience_accepted")
    stop = _stop_on_signals(parent)
    config = uvicorn.Config(
        traced(service.application, settings, tracing),
        http=_Protocol,
        loop="none",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )
    certificate = None
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        certificate = ServerCertificate(
            settings.tls_cert_file, settings.tls_key_file, on_end=service.metrics.certificate_end.set
        )
        config.load()
        config.ssl = certificate.context
    server = _Server(config)
    status = 0
    async with _running(service, certificate) as failed:
        if service.grpc is not None:
            await service.grpc.start()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        _log.info("serving", address=str(listener.getsockname()))
        stopping = asyncio.create_task(stop.wait())
        ends: list[asyncio.Future[Any]] = [stopping, failed, serving]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        service.readiness.ending = True
        _Protocol.ending = True
        service.readiness.refresh()
        if failed.done():
            status = FAILED
        elif not serving.done() and settings.shutdown_delay:
            # Load balancers must see it before connections are refused. A second signal ends the wait.
            stop.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.shutdown_delay):
                    await stop.wait()
        stopping.cancel()
        server.should_exit = True
        if service.grpc is not None:
            await service.grpc.stop(settings.shutdown_timeout)
        await serving
    service.metrics.flush()
    if tracing is not None:
        await asyncio.to_thread(tracing.close)
    await service.activity.flush()
    await service.decisions.denials.flush()
    await service.heartbeat.end()
    await service.guard.close()
    service.verifier.close()
    await service.decisions.sources.close()
    if service.kubernetes is not None:
        await service.kubernetes.close()
    with contextlib.suppress(StoreError):
        await store.close()
    _log.info("ended")
    return status


@contextlib.asynccontextmanager
async def _running(service: Service, certificate: ServerCertificate | None) -> AsyncIterator["asyncio.Future[None]"]:
    """Runs what goes on beside the requests. The future is done when one of it has failed, which nothing mends."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def guarded(name: str, each: Coroutine[Any, Any, None]) -> None:
        try:
            await each
        except SchemaTooNew as error:
            _log.error("schema_too_new", cause=str(error))
        except Exception as error:  # noqa: BLE001 - said in the log; the process ends and is started anew
            _log.error("background_failed", task=name, exc_info=error)
        if not failed.done():
            failed.set_result(None)

    async def signing_keys() -> None:
        await service.signing_keys.start()
        await service.signing_keys.run()

    work: list[tuple[str, Coroutine[Any, Any, None]]] = [
        ("signing_keys", signing_keys()),
        ("follower", service.follower.run()),
        ("heartbeat", service.heartbeat.run()),
        ("activity", service.activity.run()),
        ("denials", service.decisions.denials.run()),
        ("readiness", _tell_readiness(service)),
        ("metrics", service.metrics.run()),
    ]
    if service.workloads is not None:
        work.append(("workloads", service.workloads.run()))
    if service.upkeep is not None:
        work.append(("registrations", service.upkeep.run()))
    if service.decisions.sources.trusted_issuers is not None:
        work.append(("trusted_issuers", service.decisions.sources.trusted_issuers.run()))
    if certificate is not None:
        work.append(("tls", certificate.run()))
    tasks = [asyncio.create_task(guarded(name, each)) for name, each in work]
    try:
        yield failed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell_readiness(service: Service) -> None:
    frozen = False
    while True:
        service.readiness.refresh()
        if service.grpc is not None:
            await service.grpc.tell(ready=not service.readiness.reasons())
        if not frozen and service.snapshot.loaded:
            # What was loaded stays; looking through it again and again would stop requests for a while each time.
            frozen = True
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 20, 50)
        await asyncio.sleep(_READINESS_EVERY)


def _stop_on_signals(parent: int | None) -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if parent is not None:

        def parent_gone() -> None:
            loop.remove_reader(parent)
            stop.set()

        loop.add_reader(parent, parent_gone)
    return stop


def main() -> None:
    """A worker that the supervisor started: the listener, the readiness and the pipe come as descriptors."""
    from keyturn_api import logs

    settings = ApiSettings()
    logs.configure(level=settings.log_level, form=settings.log_format)
    index, listener, readiness, pipe = map(int, sys.argv[1:5])
    shared = SharedReadiness(readiness, settings.workers, index)
    try:
        status = run(settings, socket.socket(fileno=listener), shared=shared, parent=pipe)
    except OSError as error:
        # The port of the gateway check by gRPC, which each worker opens itself, is another program's.
        _log.error("cannot_start", cause=str(error))
        status = FAILED
    sys.exit(status)


if __name__ == "__main__":
    main()
