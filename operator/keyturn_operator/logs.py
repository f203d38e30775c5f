"""One log format for our own lines, kopf's and the standard library's."""

import logging
import sys
from typing import Any

import structlog


def _kopf_object(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """kopf hands the object over as an attribute of the log record; keep what names it, never its content."""
    record = event.get("_record")
    reference = getattr(record, "k8s_ref", None)
    if isinstance(reference, dict):
        event["object"] = "/".join(str(reference.get(part, "")) for part in ("kind", "namespace", "name"))
    return event


def configure(*, level: str, form: str) -> None:
    """Sends every logger's lines to standard error, as JSON lines (`json`) or for people (`text`). Audit lines are always JSON."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _kopf_object,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared[:-1],
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )

    def formatter(renderer: Any) -> logging.Formatter:
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )

    as_json = structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        formatter(as_json if form == "json" else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)

    audit = logging.getLogger("keyturn.audit")
    audit_handler = logging.StreamHandler(sys.stderr)
    audit_handler.setFormatter(formatter(as_json))
    audit.handlers[:] = [audit_handler]
    audit.propagate = False
    audit.setLevel(logging.INFO)

    # kopf prints merge-patch bodies at DEBUG and a line for each event at INFO; the HTTP libraries every connection.
    logging.getLogger("kopf").setLevel(max(logging.getLevelName(level), logging.INFO))
    for noisy in ("kopf.objects", "aiohttp", "asyncio", "kubernetes", "urllib3", "aiosqlite", "sqlalchemy", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.getLevelName(level), logging.WARNING))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structured logger below `keyturn.operator`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"keyturn.operator.{name}")
    return logger
