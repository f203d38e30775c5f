"""Whether this process may get requests."""

import time
from collections.abc import Callable

from keyturn.snapshot import Snapshot
from keyturn_api.follower import Follower
from keyturn_api.metrics import Metrics
from keyturn_api.shared_readiness import SharedReadiness
from keyturn_api.signing_keys import SigningKeys


class Readiness:
    """Says why the process is not ready: it has no snapshot, cannot sign, is out of date, or is about to end."""

    def __init__(
        self,
        snapshot: Snapshot,
        signing_keys: SigningKeys,
        follower: Follower,
        metrics: Metrics,
        *,
        max_staleness: float | None = None,
        shared: SharedReadiness | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshot = snapshot
        self._signing_keys = signing_keys
        self._follower = follower
        self._metrics = metrics
        self._max_staleness = max_staleness
        self._shared = shared
        self._clock = clock
        self.ending = False

    def is_stale(self, now: float) -> bool:
        """Whether the store has been silent for longer than the installation allows."""
        if self._max_staleness is None:
            return False
        heard = self._follower.synchronized_at
        return heard is None or now - heard > self._max_staleness

    def reasons(self) -> list[str]:
        """Why this process is not ready; empty when it is."""
        found = []
        if self.ending:
            found.append("ending")
        if not self._snapshot.loaded:
            found.append("snapshot_not_loaded")
        elif self._signing_keys.signer() is None:
            found.append("active_signing_key_missing")
        if self._snapshot.loaded and self.is_stale(self._clock()):
            found.append("snapshot_stale")
        return found

    def refresh(self) -> list[str]:
        """Tells metrics and the other processes, and returns why the service is not ready."""
        reasons = self.reasons()
        self._metrics.ready.set(not reasons)
        if self._shared is not None:
            self._shared.tell(ready=not reasons)
            if not reasons and not self._shared.all_ready():
                return ["another_worker_not_ready"]
        return reasons
