"""Condition types and their machine-readable reasons: CamelCase words that stay as they are, since people alert on them."""

from typing import Final

READY: Final = "Ready"
CONFLICTING: Final = "Conflicting"
ROTATION_PENDING: Final = "RotationPending"
TOKENS_INVALIDATED: Final = "TokensInvalidated"
SECRET_RESTORED: Final = "SecretRestored"
WITHDRAWAL_INCOMPLETE: Final = "WithdrawalIncomplete"
KEYS_EXPIRING: Final = "KeysExpiring"
KEYS_FETCHED: Final = "KeysFetched"
TOKEN_TOO_LONG: Final = "TokenTooLong"

# Conditions that are bad news when they hold.
WARNINGS: Final = frozenset(
    {CONFLICTING, TOKENS_INVALIDATED, SECRET_RESTORED, WITHDRAWAL_INCOMPLETE, KEYS_EXPIRING, TOKEN_TOO_LONG}
)

# Ready=True
ACCEPTED: Final = "Accepted"
# Ready=Unknown
NO_REPLICA: Final = "NoReplica"
PROPAGATING: Final = "Propagating"
STORE_UNAVAILABLE: Final = "StoreUnavailable"
# Ready=False
INVALID_SPEC: Final = "InvalidSpec"
INVALID_KEY: Final = "InvalidKey"
PRIVATE_KEY: Final = "PrivateKeyMaterial"
WEAK_KEY: Final = "WeakKey"
DUPLICATE_KID: Final = "DuplicateKid"
INVALID_CLIENT_ID: Final = "InvalidClientId"
CLIENT_ID_TAKEN: Final = "ClientIdTaken"
CLIENT_ID_RESERVED: Final = "ClientIdReserved"
RESERVED_CLAIM: Final = "ReservedClaim"
NO_CREDENTIAL: Final = "NoCredential"
SUSPENDED: Final = "Suspended"
EXPIRED: Final = "Expired"
SECRET_NOT_FOUND: Final = "SecretNotFound"
SECRET_INVALID: Final = "SecretInvalid"
SECRET_CONFLICT: Final = "SecretConflict"
IMPORT_FAILED: Final = "ImportFailed"
SERVICE_ACCOUNT_NOT_FOUND: Final = "ServiceAccountNotFound"
SERVICE_ACCOUNT_TAKEN: Final = "ServiceAccountTaken"
INVALID_EXPRESSION: Final = "InvalidExpression"
INVALID_PATH: Final = "InvalidPath"
UNSUPPORTED_FIELD: Final = "UnsupportedField"
NOT_GRANTED: Final = "NotGranted"
NOT_USED: Final = "NotUsed"
PAUSED: Final = "Paused"
PENDING: Final = "Pending"
# Conflicting
CONTRADICTION: Final = "Contradiction"
NO_CONTRADICTION: Final = "NoContradiction"
# RotationPending
NEXT_NOT_PUBLISHED: Final = "NextKeyNotPublished"
NEXT_TOO_YOUNG: Final = "NextKeyTooYoung"
NEXT_NOT_LOADED: Final = "NextKeyNotLoaded"
TOO_MANY_KEYS: Final = "TooManyKeys"
NOTHING_PENDING: Final = "NothingPending"
# WithdrawalIncomplete
ANNOTATION_INVALID: Final = "AnnotationInvalid"
UNKNOWN_KID: Final = "UnknownKid"
# TokensInvalidated, SecretRestored; over: WithdrawalIncomplete, too
SIGNING_KEYS_LOST: Final = "SigningKeysLost"
KEYS_COMPROMISED: Final = "KeysCompromised"
OLDER_SECRET: Final = "OlderSecret"
OVER: Final = "Over"
# KeysExpiring
KEY_ENDS_SOON: Final = "KeyEndsSoon"
NO_KEY_ENDS_SOON: Final = "NoKeyEndsSoon"
# TokenTooLong
GRANT_TOO_LARGE: Final = "GrantTooLarge"
GRANT_FITS: Final = "GrantFits"
# KeysFetched, and Ready=False while no copy counts
FETCHED: Final = "Fetched"
KEYS_REFUSED: Final = "KeysRefused"
JWKS_URI_UNAVAILABLE: Final = "JwksUriUnavailable"
JWKS_URI_INVALID: Final = "JwksUriInvalid"
JWKS_URI_NOT_ALLOWED: Final = "JwksUriNotAllowed"
