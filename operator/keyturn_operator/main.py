"""The operator's process: probes first, then the Lease, then everything that acts. It ends with 0 only when asked to."""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from keyturn.grants import Grants, InvalidGrants
from keyturn.records import Kind, StoredRecord
from keyturn.store.factory import open_store
from keyturn.store.interface import SchemaTooNew, Store, StoreUnavailable
from keyturn.tracing import Tracing, TracingUnavailable, start
from keyturn_operator import crds, logs
from keyturn_operator.activity import ACTIVITY_INTERVAL, ActivityWatch
from keyturn_operator.clients import ClientReconciler
from keyturn_operator.context import Context
from keyturn_operator.election import EXIT_LEASE_LOST, Elector, new_identity
from keyturn_operator.health import Health, application, serve
from keyturn_operator.key_maker import KeyMaker
from keyturn_operator.kube.client import KubeClient
from keyturn_operator.kube.login import login_source
from keyturn_operator.metrics import Metrics
from keyturn_operator.queue import Done, Key, Priority, WorkQueue
from keyturn_operator.reconcile import Worker
from keyturn_operator.references import SecretReferences, SecretWatch
from keyturn_operator.registrations import SELECTOR, ReplacedSecrets
from keyturn_operator.replicas import Replicas
from keyturn_operator.rows import Rows
from keyturn_operator.rules import Conflicts, RuleReconciler
from keyturn_operator.scope import OtherInstallations, Scope, read_grants
from keyturn_operator.service_accounts import PLURAL as SERVICE_ACCOUNTS
from keyturn_operator.settings import OperatorSettings
from keyturn_operator.signing_keys import SigningKeyReconciler
from keyturn_operator.sweep import Sweeper
from keyturn_operator.watching import OnEvent, kopf_settings, watch
from keyturn_operator.written_secrets import WrittenSecrets

log = logs.get_logger("main")

EXIT_FAILED = 1
EXIT_USAGE = 2
STORE_RETRY = 2.0
EXIT_WITHIN = 8.0


class Operator:
    """One process: its parts in the order in which they start."""

    def __init__(
        self, settings: OperatorSettings, metrics: Metrics, grants: Grants, tracing: Tracing | None = None
    ) -> None:
        self._tracing = tracing
        self._settings = settings
        self._grants = grants
        self._scope = Scope(settings.namespaces, settings.home)
        self._metrics = metrics
        self._health = Health(sweep_limit=3 * settings.sweep_interval + 60.0)
        self._stop = asyncio.Event()
        self._elector: Elector | None = None

    async def run(self) -> int:
        """Runs until a signal (0) or a failure (not 0)."""
        self._catch_signals()
        host, port = self._settings.probe_host, self._settings.probe_port
        try:
            runner = await serve(application(self._health, self._metrics), host, port)
        except OSError as error:
            log.error("the probes cannot be served", host=host, port=port, cause=str(error))
            return EXIT_FAILED
        kube = KubeClient(login_source(kopf_settings()))
        store = open_store(
            self._settings.store_url,
            pool_size=self._settings.store_pool_size,
            statement_timeout=self._settings.store_statement_timeout,
            prepared=self._settings.store_prepared,
            transport=self._settings.transport,
        )
        background = asyncio.create_task(self._health.tick(), name="loop lag")
        acting = asyncio.create_task(self._act(kube, store), name="acting")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({acting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            asked = self._stop.is_set()
            if not asked:
                self._log_end(acting)
            acting.cancel()
            await asyncio.wait({acting}, timeout=EXIT_WITHIN / 2)
            if asked and acting.done() and not acting.cancelled() and acting.exception() is not None:
                log.warning("a part failed while it was ended", cause=repr(acting.exception())[:500])
        finally:
            self._health.starting = "stopping"
            try:
                async with asyncio.timeout(EXIT_WITHIN / 2):
                    if self._elector is not None:
                        await self._elector.release()
                    await kube.close()
                    await store.close()
                    await runner.cleanup()
                    if self._tracing is not None:
                        await asyncio.to_thread(self._tracing.close)
            except TimeoutError:
                log.warning("the end took too long; what is left ends with the process")
            background.cancel()
        log.info("the operator ends", asked=asked)
        return 0 if asked else EXIT_FAILED

    async def _act(self, kube: KubeClient, store: Store) -> None:
        settings, health = self._settings, self._health
        await self._open(store)
        await crds.wait_until_served(kube, self._note)
        health.starting = None
        if settings.leader_election:
            self._elector = Elector(
                kube,
                namespace=settings.home,
                name=settings.lease_name,
                identity=new_identity(),
                duration=settings.lease_duration,
                deadline=settings.renew_deadline,
                period=settings.retry_period,
            )
            await self._elector.acquire()
        async with asyncio.TaskGroup() as group:
            if self._elector is not None:
                group.create_task(_until_lost(self._elector), name="lease")
            epoch = await self._take_epoch(store)
            health.leading_since = time.monotonic()
            self._metrics.leader.set(1)
            self._metrics.epoch.set(epoch)
            log.info("acting", epoch=epoch, namespaces=list(settings.namespaces))
            if self._scope.every:
                # Before anything is watched: what is another installation's must not be taken for ours.
                await OtherInstallations(kube, self._scope, settings.lease_name, lambda: None).look()
            self._assemble(group, kube, store, epoch)

    def _assemble(self, group: asyncio.TaskGroup, kube: KubeClient, store: Store, epoch: int) -> None:
        settings = self._settings
        rows = Rows(store, epoch)

        async def work(key: Key) -> Done:
            return await worker(key)

        queue = WorkQueue(self._traced(work), workers=settings.workers)
        replicas = Replicas(store, queue.add, lambda: [*{*sweeper.listed, *rows.keys()}])
        scope = self._scope
        context = Context(kube, store, rows, replicas, settings, self._metrics, queue.add, scope, self._grants)
        references, accounts, registrations = SecretReferences(), SecretReferences(), SecretReferences()
        conflicts = Conflicts(queue.add)
        written = WrittenSecrets(references, queue.add)
        clients = ClientReconciler(
            context, references, accounts, registrations, maker=KeyMaker(queue.add), written=written
        )
        rules = RuleReconciler(context, conflicts)
        keys = SigningKeyReconciler(context, references, KeyMaker(queue.add))
        worker = Worker(context, {Kind.CLIENT: clients, Kind.SIGNING_KEY: keys, Kind.ACCESS_RULE: rules})

        def deleted(key: Key, uid: str) -> None:
            worker.deleted(key, uid)
            queue.add(key, Priority.RESTRICTION)

        def on_event(key: Key, deleted_uid: str | None, *, listed: bool) -> None:
            if deleted_uid is not None:
                deleted(key, deleted_uid)
            elif key.namespace in scope:
                queue.add(key, priority_of(key, listed=listed))

        def found(stored: list[StoredRecord]) -> None:
            rules.found([row for row in stored if row.record.kind is Kind.ACCESS_RULE])

        sweeper = Sweeper(context, deleted=deleted, swept=self._swept, found=found)
        activity = ActivityWatch(store, clients.used, interval=min(ACTIVITY_INTERVAL, settings.sweep_interval))
        replicas.on_look = self._metrics.replicas.set
        self._metrics.queue_depth.set_function(lambda: queue.schedule.ready)
        self._metrics.queue_delayed.set_function(lambda: queue.schedule.delayed)

        if scope.every:
            others = OtherInstallations(kube, scope, settings.lease_name, sweeper.soon)
            group.create_task(others.run(), name="other installations")
        group.create_task(queue.run(), name="queue")
        group.create_task(replicas.run(), name="replicas")
        group.create_task(conflicts.run(), name="conflicts")
        group.create_task(sweeper.run(), name="sweep")
        group.create_task(activity.run(), name="activity")
        for namespace in scope.places:
            secrets = SecretWatch(kube, namespace, references, queue.add, observer=written)
            group.create_task(secrets.run(), name=f"secrets of {namespace or 'all'}")
            accounts_watch = SecretWatch(kube, namespace, accounts, queue.add, plural=SERVICE_ACCOUNTS)
            group.create_task(accounts_watch.run(), name=f"service accounts of {namespace or 'all'}")
            registered = SecretWatch(kube, namespace, registrations, queue.add, field_selector=SELECTOR)
            group.create_task(registered.run(), name=f"registrations of {namespace or 'all'}")
        group.create_task(ReplacedSecrets(context).run(), name="replaced secrets")
        group.create_task(_kopf_until_it_ends(on_event, scope, self._catch_signals), name="kopf")

    def _traced(self, work: Callable[[Key], Awaitable[Done]]) -> Callable[[Key], Awaitable[Done]]:
        """The work of the queue, with a span around each where traces are sent; else nothing of them is even loaded."""
        if self._tracing is None:
            return work
        from keyturn_operator.tracing import traced

        return traced(work, self._tracing.tracer)

    async def _open(self, store: Store) -> None:
        while True:
            try:
                await store.open()
                return
            except StoreUnavailable as error:
                self._note(f"the store is not available ({error})")
                log.warning("waiting for the store", cause=str(error))
            await asyncio.sleep(STORE_RETRY)

    async def _take_epoch(self, store: Store) -> int:
        holder = self._elector.identity if self._elector is not None else new_identity()
        while True:
            try:
                return await store.next_epoch(holder)
            except StoreUnavailable as error:
                log.warning("waiting for the store", cause=str(error))
            await asyncio.sleep(STORE_RETRY)

    def _note(self, problem: str) -> None:
        self._health.starting = problem

    def _swept(self) -> None:
        self._health.last_sweep = time.monotonic()

    def _catch_signals(self) -> None:
        # kopf installs handlers of its own at its start: they would end it alone, and look like a failure.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    @staticmethod
    def _log_end(acting: "asyncio.Task[None]") -> None:
        error = None if acting.cancelled() else acting.exception()
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, SchemaTooNew | Ended):
            log.error("the operator cannot go on", cause=str(error))
        else:
            log.error("the operator cannot go on", exc_info=error)


class Ended(Exception):
    """A part that runs for as long as the process has ended."""


def priority_of(key: Key, *, listed: bool) -> Priority:
    """How soon an object that the watch tells of is looked at. `listed`: it came with the list that a watch begins with."""
    if listed:
        # All objects come at once: the sweep knows which of them have changed and go first.
        return Priority.RESYNC
    # Its change may withdraw a signing key, which waits for no backlog of other objects; there is one object of them that counts.
    return Priority.RESTRICTION if key.kind is Kind.SIGNING_KEY else Priority.CHANGE


async def _until_lost(elector: Elector) -> None:
    await elector.renew()
    raise Ended("the Lease is lost")


async def _kopf_until_it_ends(on_event: OnEvent, scope: Scope, spawned: Callable[[], None]) -> None:
    await watch(on_event, scope, asyncio.Event(), spawned)
    raise Ended("kopf has ended")


def main() -> None:
    """The console script `keyturn-operator`."""
    try:
        settings = OperatorSettings()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            print(f"keyturn-operator: {'.'.join(map(str, problem['loc']))}: {problem['msg']}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_USAGE)
    logs.configure(level=settings.log_level, form=settings.log_format)
    try:
        grants = read_grants(settings.grants_file, settings.home)
    except InvalidGrants as error:
        print(f"keyturn-operator: KEYTURN_GRANTS_FILE: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_USAGE)
    tracing = None
    if settings.traces_url is not None:
        try:
            tracing = start(
                "keyturn-operator", settings.traces_url, ratio=settings.traces_ratio, instance=socket.gethostname()
            )
        except TracingUnavailable as error:
            log.error("the operator cannot go on", cause=str(error))
            sys.exit(EXIT_USAGE)
    code = asyncio.run(Operator(settings, Metrics(), grants, tracing).run())
    sys.exit(code)


__all__ = ["EXIT_FAILED", "EXIT_LEASE_LOST", "EXIT_USAGE", "Operator", "main"]
