"""How long the store keeps what no longer acts, and in how large steps it forgets."""

from typing import Final

from keyturn.records import Kind

# Kinds of which the last state outlives the object: a signing key that was withdrawn must not come back with an object made anew.
REMEMBERED: Final = frozenset({Kind.SIGNING_KEY})

# A reader that was away longer than this reloads everything instead of following the tombstones.
TOMBSTONE_SECONDS: Final = 86_400.0
REPLICA_SECONDS: Final = 86_400.0
# Uses are kept for people: of living clients for about a year, of others as long as tombstones.
ACTIVITY_SECONDS: Final = 400 * 86_400.0
# Whoever was denied asks soon, or tries again.
DENIAL_SECONDS: Final = 3_600.0
MAX_DENIALS: Final = 20_000
# Of one id: it is the gateway's choice, or the caller's.
DENIALS_OF_ONE_ID: Final = 20
# Revision tags beyond this many go even within the day: their readers reload.
MAX_TAGS: Final = 100_000
# Rows in one deleting statement, so that no request waits for a long one.
PRUNE_STEP: Final = 1_000
