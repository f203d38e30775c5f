"""The parts of one process, put together: nothing runs yet."""

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.snapshot import Snapshot
from keyturn.store.batching import BatchedReplayGuard
from keyturn.store.interface import Store
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
from keyturn_api.token_endpoint import TokenEndpoint
from keyturn_api.token_questions import Askers
from keyturn_api.tokeninfo import TokenInfo
from keyturn_api.verified import AccessTokens
from keyturn_api.workload import WorkloadIdentity, workload_identity

if TYPE_CHECKING:
    from keyturn.tracing import Tracing
    from keyturn_api.envoy_grpc import GrpcServer

_log = get_logger("process")


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
        exempt=settings.rate_limit_exempt,
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
        per_client=settings.revocations_per_client,
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
            verifier=verifier,
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
