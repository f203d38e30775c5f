"""Records of who did what through the API: one line each, on a logger of its own that no log level switches off."""

import logging
from typing import Any, Final

import structlog

LOGGER: Final = "keyturn.audit"

_stdlib = logging.getLogger(LOGGER)
_stdlib.setLevel(logging.INFO)
_log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    _stdlib,
    wrapper_class=structlog.stdlib.BoundLogger,
    processors=[
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
)


def record(event: str, *, who: str | None, request_id: str, **details: Any) -> None:
    """Writes one line: what happened, by whom (a user of Kubernetes, a client, an initial access token, an address), in which request.

    `details` name objects and what changed; no secret and no token is among them.
    """
    _log.info(event, who=who, request_id=request_id, **details)
