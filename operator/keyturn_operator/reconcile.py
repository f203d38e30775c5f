"""One reconcile from a key: read the live object, hand it to its kind, and turn whatever happens into an outcome."""

import time
from collections.abc import Mapping
from typing import Protocol

from keyturn import reasons
from keyturn.records import Kind
from keyturn.store.interface import Fenced, StoreUnavailable
from keyturn_operator import conditions
from keyturn_operator.conditions import Verdict
from keyturn_operator.context import Context, path_of
from keyturn_operator.kube.client import Object
from keyturn_operator.kube.errors import Forbidden, KubeError, KubeUnavailable, NamespaceTerminates
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Done, Key

log = get_logger("reconcile")


class Reconciler(Protocol):
    """What knows one kind of object."""

    async def reconcile(self, key: Key, obj: Object) -> Done:
        """Makes the object true; raises what the caller retries."""

    async def gone(self, key: Key, uids: set[str]) -> None:
        """Takes back what the object, under these uids, had."""


class Worker:
    """The work of the queue. One bad object fails for itself; only losing the epoch ends everything."""

    def __init__(self, context: Context, reconcilers: Mapping[Kind, Reconciler]) -> None:
        self._context = context
        self._reconcilers = reconcilers
        self._deleted: dict[Key, set[str]] = {}

    def deleted(self, key: Key, uid: str) -> None:
        """Takes note of a deletion's uid: the object can be read no more, and its row may be one that we do not know."""
        self._deleted.setdefault(key, set()).add(uid)

    async def __call__(self, key: Key) -> Done:
        started = time.perf_counter()
        outcome = "error"
        try:
            done = await self._guarded(key)
            outcome = "failed" if done.failed else "done"
            return done
        finally:
            seconds = time.perf_counter() - started
            self._context.metrics.reconciles.labels(kind=str(key.kind), outcome=outcome).observe(seconds)

    async def _guarded(self, key: Key) -> Done:
        obj: Object | None = None
        try:
            if key.namespace not in self._context.scope:
                # Another installation has come into its namespace since: the sweep takes the row away.
                return Done()
            obj = await self._context.kube.get(path_of(key))
            return await self._one(key, obj)
        except Fenced:
            raise
        except NamespaceTerminates:
            log.info("the namespace is being deleted: nothing is made anew", object=str(key))
            return Done()
        except StoreUnavailable as error:
            self._context.metrics.store_failures.labels("reconcile").inc()
            log.warning("the store is not available", object=str(key), cause=str(error))
            text = "The store is not available: what this object says is not in force yet."
            await self._excuse(key, obj, Verdict("Unknown", reasons.STORE_UNAVAILABLE, text))
        except KubeUnavailable as error:
            self._context.metrics.kubernetes_failures.labels("reconcile").inc()
            log.warning("the Kubernetes API is not available", object=str(key), cause=str(error))
        except KubeError as error:
            self._context.metrics.kubernetes_failures.labels("reconcile").inc()
            log.warning("a call to the Kubernetes API was refused", object=str(key), cause=str(error))
            if not (isinstance(error, Forbidden) and error.terminating):
                text = f"The Kubernetes API refused a call ({error}); it is tried again."
                await self._excuse(key, obj, Verdict("False", conditions.RECONCILE_FAILED, text))
        except Exception as error:
            # One object that no one has foreseen must not stop the others.
            log.exception("the reconcile has failed", object=str(key))
            text = f"The operator failed on this object ({type(error).__name__}, see its log); it is tried again."
            await self._excuse(key, obj, Verdict("Unknown", conditions.RECONCILE_FAILED, text))
        return Done(failed=True)

    async def _one(self, key: Key, obj: Object | None) -> Done:
        context = self._context
        reconciler = self._reconcilers[key.kind]
        live = obj is not None and not obj["metadata"].get("deletionTimestamp")
        told = frozenset(self._deleted.get(key, ()))
        if obj is not None and live:
            # A namesake was deleted just before: its row goes first, whatever becomes of the new object.
            for uid in sorted(told - {obj["metadata"]["uid"]}):
                await context.withdraw(key, uid, "the object was deleted")
            done = await reconciler.reconcile(key, obj)
        else:
            known = context.rows.known(key)
            uids = {*told, *([known.uid] if known else []), *([obj["metadata"]["uid"]] if obj else [])}
            await reconciler.gone(key, uids)
            context.census.gone(key)
            context.replicas.forget(key)
            context.waiting_since.pop(key, None)
            done = Done()
        # Only what this pass has seen: a deletion that came in meanwhile has queued the key again.
        left = self._deleted.get(key, set()) - told
        if left:
            self._deleted[key] = left
        else:
            self._deleted.pop(key, None)
        return done

    async def _excuse(self, key: Key, obj: Object | None, verdict: Verdict) -> None:
        """Says in the status that the object is not reconciled. Where nothing has changed since the last time, what stands there holds."""
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return
        status = obj.get("status") or {}
        if status.get("observedGeneration") == obj["metadata"].get("generation") and conditions.ready_of(status):
            return
        try:
            await self._context.write_status(key, obj, [verdict])
        except Exception as error:  # noqa: BLE001 - the excuse must not fail where the work already has
            log.warning("the status could not be written", object=str(key), cause=str(error) or type(error).__name__)
