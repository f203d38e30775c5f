"""Why a token or an assertion is refused: a constant for code and metrics, words for the caller, a cause for the log."""

from typing import Final

MALFORMED: Final = "malformed"
UNKNOWN_KEY: Final = "unknown_key"
WRONG_ALGORITHM: Final = "wrong_algorithm"
WRONG_TYPE: Final = "wrong_type"
BAD_SIGNATURE: Final = "bad_signature"
MISSING_CLAIM: Final = "missing_claim"
INVALID_CLAIM: Final = "invalid_claim"
WRONG_ISSUER: Final = "wrong_issuer"
WRONG_SUBJECT: Final = "wrong_subject"
WRONG_AUDIENCE: Final = "wrong_audience"
EXPIRED: Final = "expired"
NOT_YET_VALID: Final = "not_yet_valid"
TOO_LONG_LIVED: Final = "too_long_lived"
BEFORE_STORE: Final = "before_store"
REPLAYED: Final = "replayed"
MISSING_CLIENT_ID: Final = "missing_client_id"
NOT_BOUND: Final = "not_bound"
POD_GONE: Final = "pod_gone"
UNKNOWN_CLIENT: Final = "unknown_client"
WRONG_METHOD: Final = "wrong_method"
CLIENT_SUSPENDED: Final = "client_suspended"
CLIENT_EXPIRED: Final = "client_expired"
REVOKED: Final = "revoked"


class TokenRefused(Exception):
    """A token or an assertion that does not count.

    `reason` is one of this module's constants; `description` may go to the caller and echoes nothing of the input;
    `cause` is for the log only and holds no secret and no token either.
    """

    def __init__(self, reason: str, description: str, *, cause: str = "") -> None:
        super().__init__(description)
        self.reason = reason
        self.description = description
        self.cause = cause
