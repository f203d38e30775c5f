"""Condition types and their machine-readable reasons: CamelCase words that stay as they are, since people alert on them."""

from typing import Final

READY: Final = "Ready"
CONFLICTING: Final = "Conflicting"

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
SERVICE_ACCOUNT_NOT_FOUND: Final = "ServiceAccountNotFound"
SERVICE_ACCOUNT_TAKEN: Final = "ServiceAccountTaken"
INVALID_EXPRESSION: Final = "InvalidExpression"
INVALID_PATH: Final = "InvalidPath"
UNSUPPORTED_FIELD: Final = "UnsupportedField"
NOT_USED: Final = "NotUsed"
PAUSED: Final = "Paused"
PENDING: Final = "Pending"
# Conflicting
CONTRADICTION: Final = "Contradiction"
NO_CONTRADICTION: Final = "NoContradiction"
