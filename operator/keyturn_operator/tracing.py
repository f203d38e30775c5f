"""Spans of reconciles. Only an operator that sends traces loads this module."""

from collections.abc import Awaitable, Callable

from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode, Tracer

from keyturn_operator.queue import Done, Key

Work = Callable[[Key], Awaitable[Done]]


def traced(work: Work, tracer: Tracer) -> Work:
    """The same work with a span around each reconcile: each is a trace of its own."""

    async def reconcile(key: Key) -> Done:
        with tracer.start_as_current_span(
            "reconcile", context=Context(), record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute("k8s.namespace.name", key.namespace)
            span.set_attribute("keyturn.kind", str(key.kind))
            span.set_attribute("keyturn.name", key.name)
            try:
                done = await work(key)
            except BaseException:
                # Its text is for the log alone.
                span.set_status(Status(StatusCode.ERROR))
                raise
            span.set_attribute("keyturn.outcome", "failed" if done.failed else "done")
            if done.failed:
                span.set_status(Status(StatusCode.ERROR))
            return done

    return reconcile
