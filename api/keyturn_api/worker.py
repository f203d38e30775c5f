"""One process that serves requests: everything is put together, started and ended here."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvicorn
import uvloop

from keyturn.snapshot import Snapshot
from keyturn.store.batching import BatchedReplayGuard
from keyturn.store.factory import open_store
from keyturn.store.interface import SchemaTooNew, Store, StoreError
from keyturn.tracing import TracingUnavailable
from keyturn_api.activity import ActivityRecorder
from keyturn_api.administration import Administration
from keyturn_api.application import Application, build_framework
from keyturn_api.client_authentication import ClientAuthenticator
from keyturn_api.client_secrets import SecretVerifier
from keyturn_api.decisions import Decisions, make_decisions
from keyturn_api.follower import Follower, Heartbeat
from keyturn_api.gateway import Gateway
from keyturn_api.guessing import GuessLimiter
from keyturn_api.http import Asgi
from keyturn_api.http_protocol import LimitedHttpProtocol
from keyturn_api.introspection import Introspection
from keyturn_api.kubernetes import Kubernetes, NotConfigured, find_access
from keyturn_api.logs import get_logger
from keyturn_api.metadata import Jwks
from keyturn_api.metrics import Metrics
from keyturn_api.readiness import Readiness
from keyturn_api.registration_service import build_registration
from keyturn_api.registration_upkeep import RegistrationUpkeep
from keyturn_api.revocation import RevocationEndpoint
from keyturn_api.settings import ApiSettings
from keyturn_api.shared_readiness import SharedReadiness
from keyturn_api.signing_keys import SigningKeys
from keyturn_api.snapshot_changes import SnapshotChanges
from keyturn_api.tls import ServerCertificate
from keyturn_api.token_endpoint import TokenEndpoint
from keyturn_api.token_questions import Askers
from keyturn_api.tokeninfo import TokenInfo
from keyturn_api.verified import AccessTokens
from keyturn_api.workload import WorkloadIdentity, workload_identity

if TYPE_CHECKING:
    from keyturn.tracing import Tracing
    from keyturn_api.envoy_grpc import GrpcServer

_log = get_logger("process")
FAILED: Final = 1
_KEEP_ALIVE: Final = 75
# Far above what gateways open; beyond it requests are answered 503 instead of using up descriptors.
_MAX_CONNECTIONS: Final = 10_000
_READINESS_EVERY: Final = 0.5


@dataclass(slots=True)
class Service:
    """All parts of one process."""

    store: Store
    snapshot: Snapshot
    signing_keys: SigningKeys
    follower: Follower
    heartbeat: Heartbeat
    activity: ActivityRecorder
    guard: BatchedReplayGuard
    verifier: SecretVerifier
    readiness: Readiness
    metrics: Metrics
    application: Application
    kubernetes: Kubernetes | None
    administration: Administration
    upkeep: RegistrationUpkeep | None
    grpc: "GrpcServer | None"
    decisions: Decisions
    workloads: WorkloadIdentity | None


def replica_id() -> str:
    """Unique for each process, also where the pid is always 1."""
    return f"{socket.gethostname()[:100]}-{os.getpid()}-{os.urandom(4).hex()}"


def build(
    settings: ApiSettings,
    *,
    store: Store,
    metrics: Metrics,
    shared: SharedReadiness | None = None,
    tracing: "Tracing | None" = None,
) -> Service:
    """Puts the parts together; nothing runs yet."""
    snapshot = Snapshot(settings.signing_key)
    signing_keys = SigningKeys(settings.signing_key_directory, snapshot, typ=settings.token_typ)
    follower = Follower(store, snapshot, metrics)
    own_id = replica_id()
    heartbeat = Heartbeat(store, snapshot, signing_keys, own_id, metrics)
    readiness = Readiness(
        snapshot, signing_keys, follower, metrics, max_staleness=settings.max_staleness, shared=shared
    )
    changes = SnapshotChanges()

    def changed() -> None:
        heartbeat.notice()
        changes.notice()

    follower.on_change = changed
    signing_keys.on_change = heartbeat.notice
    activity = ActivityRecorder(store)
    guard = BatchedReplayGuard(store)
    verifier = SecretVerifier(cost=settings.bcrypt_cost, queue=settings.hash_queue, capacity=settings.secret_cache)
    limiter = GuessLimiter(settings.secret_failures_per_minute, settings.rate_limit_exempt)
    tokens = AccessTokens(
        snapshot,
        issuer=settings.issuer,
        accepted=frozenset(settings.accepted_audiences),
        clock_skew=settings.clock_skew_seconds,
        capacity=settings.token_cache,
    )
    authenticator = ClientAuthenticator(settings, snapshot, guard, verifier, limiter, metrics)
    authenticator.on_store_replaced = follower.wake
    kubernetes = connect(settings)
    workloads = workload_identity(settings, snapshot, kubernetes)
    token = TokenEndpoint(settings, snapshot, signing_keys, authenticator, activity, metrics, workloads=workloads)
    administration = Administration(
        kubernetes,
        issuer=settings.issuer,
        enabled=settings.administration,
        server_tokens=settings.administration_server_tokens,
    )
    namespace = "" if kubernetes is None else kubernetes.namespace
    introspection = Introspection(
        Askers(authenticator, administration, verb="introspect", namespace=namespace),
        snapshot,
        tokens,
        metrics,
        max_body_bytes=settings.max_body_bytes,
    )
    revocation = RevocationEndpoint(
        Askers(authenticator, administration, verb="revoke", namespace=namespace),
        snapshot,
        tokens,
        store,
        metrics,
        max_body_bytes=settings.max_body_bytes,
        clock_skew=settings.clock_skew_seconds,
    )
    decisions = make_decisions(
        settings, snapshot, tokens, store, metrics, administration, is_stale=readiness.is_stale, namespace=namespace
    )
    registrations = None
    if kubernetes is not None:
        registrations = build_registration(
            settings,
            kubernetes=kubernetes,
            administration=administration,
            snapshot=snapshot,
            changes=changes,
            replicas=store,
            replica_id=own_id,
        )
    framework = build_framework(
        settings, snapshot, readiness, registration=registrations is not None and registrations.open_to_clients
    )
    if registrations is not None:
        registrations.add_routes(framework, settings.service_prefix, metrics)
    application = Application(
        settings,
        gateway=decisions.gateway,
        tokeninfo=TokenInfo(snapshot, tokens, metrics),
        jwks=Jwks(snapshot, metrics),
        token=token,
        introspection=introspection,
        revocation=revocation,
        explaining=decisions.explaining,
        other=framework,
        metrics=metrics,
    )
    return Service(
        store,
        snapshot,
        signing_keys,
        follower,
        heartbeat,
        activity,
        guard,
        verifier,
        readiness,
        metrics,
        application,
        kubernetes,
        administration,
        None if registrations is None else registrations.upkeep,
        grpc_server(settings, decisions.gateway, tracing),
        decisions,
        workloads,
    )


def grpc_server(settings: ApiSettings, gateway: Gateway, tracing: "Tracing | None" = None) -> "GrpcServer | None":
    """The gateway check by gRPC where the installation's profile is that; else its library is not even loaded."""
    if settings.gateway_profile != "envoy-grpc":
        return None
    from keyturn_api import envoy_grpc

    if tracing is not None:
        from keyturn_api.tracing import traced_check

        return envoy_grpc.server_for(settings, traced_check(gateway, tracing.tracer))
    return envoy_grpc.server_for(settings, gateway)


def start_tracing(settings: ApiSettings) -> "Tracing | None":
    """Traces where the installation sends them somewhere; else nothing of them is even loaded. Raises `TracingUnavailable`."""
    if settings.traces_url is None:
        return None
    from keyturn import tracing

    return tracing.start("keyturn-api", settings.traces_url, ratio=settings.traces_ratio, instance=socket.gethostname())


def make_metrics(settings: ApiSettings, tracing: "Tracing | None") -> Metrics:
    """The metrics, which tell spans too where there are any."""
    if tracing is None:
        return Metrics(named_clients=settings.metrics_clients)
    from keyturn_api.tracing import TracedMetrics

    return TracedMetrics(named_clients=settings.metrics_clients)


def traced(application: Application, settings: ApiSettings, tracing: "Tracing | None") -> Asgi:
    """The application as it is served."""
    if tracing is None:
        return application
    from keyturn_api.tracing import TracedApplication

    return TracedApplication(application, tracing.tracer, prefix=settings.service_prefix)


def connect(settings: ApiSettings) -> Kubernetes | None:
    """The Kubernetes API, if there is one to call: without it there is no registration and no administration."""
    try:
        access = find_access(
            url=settings.kubernetes_url,
            token_file=settings.kubernetes_token_file,
            ca_file=settings.kubernetes_ca_file,
            namespace=settings.namespace,
        )
    except NotConfigured as error:
        _log.info("without_kubernetes", cause=str(error))
        return None
    return Kubernetes(access)


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
