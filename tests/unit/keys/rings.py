"""Key rings for tests."""

from keyturn.keys.plan import ensure, with_generated
from keyturn.keys.ring import KeyRing
from keyturn.keys.state import KeyPhase
from tests.sample_keys import sample_key

NOW = 1_700_000_000.0


def sample_ring(algorithm: str = "ES256", *, first: int = 0) -> KeyRing:
    """Active and Next, made at NOW of the sample keys `first` and `first + 1`."""
    plan = ensure(None, algorithm=algorithm, size=sample_key(algorithm).size, now=NOW)
    keys = {KeyPhase.ACTIVE: sample_key(algorithm, first), KeyPhase.NEXT: sample_key(algorithm, first + 1)}
    return with_generated(plan, keys, now=NOW)
