"""Errors in three parts: a code for the wire, a description for the caller, a cause for the log alone."""

from collections.abc import Sequence
from typing import Final

INVALID_REQUEST: Final = "invalid_request"
INVALID_CLIENT: Final = "invalid_client"
UNSUPPORTED_GRANT_TYPE: Final = "unsupported_grant_type"
INVALID_TOKEN: Final = "invalid_token"
INSUFFICIENT_SCOPE: Final = "insufficient_scope"
TEMPORARILY_UNAVAILABLE: Final = "temporarily_unavailable"
SLOW_DOWN: Final = "slow_down"
SERVER_ERROR: Final = "server_error"

Header = tuple[bytes, bytes]


class ApiError(Exception):
    """What an endpoint answers instead of its result.

    `code` is that of the protocol (RFC 6749 section 5.2, RFC 6750 section 3.1); `description` is for the caller and echoes no input;
    `reason` is a constant for log and metrics; `cause` is for the log only and holds no secret and no token.
    """

    def __init__(
        self,
        status: int,
        code: str,
        description: str,
        *,
        reason: str = "",
        cause: str = "",
        headers: Sequence[Header] = (),
    ) -> None:
        super().__init__(description)
        self.status = status
        self.code = code
        self.description = description
        self.reason = reason or code
        self.cause = cause
        self.headers = tuple(headers)


def invalid_request(description: str) -> ApiError:
    return ApiError(400, INVALID_REQUEST, description)


def unavailable(description: str, *, reason: str, retry_after: int = 1, cause: str = "") -> ApiError:
    return ApiError(
        503,
        TEMPORARILY_UNAVAILABLE,
        description,
        reason=reason,
        cause=cause,
        headers=[(b"retry-after", b"%d" % retry_after)],
    )
