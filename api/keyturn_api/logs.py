"""One log format for our own lines and the standard library's, on standard error."""

import logging
import sys
from typing import Any, Final

import orjson
import structlog

_NOISY: Final = (
    "aiosqlite",
    "alembic",
    "asyncio",
    "asyncpg",
    "httpcore2",
    "httpx2",
    "sqlalchemy",
    "uvicorn",
    "watchfiles",
)


def configure(*, level: str, form: str) -> None:
    """Sends all lines to standard error, as JSON lines (`json`) or for people (`text`). Audit records are always JSON."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    as_json = form == "json"
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.JSONRenderer(serializer=orjson.dumps)
            if as_json
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer)
        if as_json
        else structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    audit = logging.getLogger("keyturn.audit")
    audit_handler = logging.StreamHandler(sys.stderr)
    audit_handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ]
        )
    )
    audit.handlers[:] = [audit_handler]
    audit.propagate = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # At DEBUG these write statements with their parameters, or a line for each byte that arrives.
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.getLevelName(level), logging.WARNING))


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A structured logger that names its component of the API."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(component=name)
    return logger
