"""Whether this process may get requests."""

import time
from collections.abc import Callable
from typing import Final

from keyturn.snapshot import Snapshot
from keyturn_api.follower import Follower
from keyturn_api.metrics import Metrics
from keyturn_api.shared_readiness import SharedReadiness
from keyturn_api.signing_keys import SigningKeys

SIGNING_KEY_GRACE: Final = 180.0
"""Seconds for which a process that could sign stays ready without the Active key: longer than a kubelet takes to mount a changed Secret."""


class SigningGrace:
    """Whether a process that cannot sign may stay ready: for a while, if it could before. Only its `/oauth/token` needs the key.

    When all signing keys are withdrawn at once every replica lacks the new ones until its mount follows. Were all of them not ready, nobody
    would decide, verify or publish the JWKS meanwhile.
    """

    def __init__(self) -> None:
        self._could_sign = False
        self._since: float | None = None

    def holds(self, *, signs: bool, now: float) -> bool:
        """Whether it is not yet over. `now`: seconds of a clock that only goes on."""
        if signs:
            self._could_sign, self._since = True, None
        elif self._since is None:
            self._since = now
        return self._could_sign and (self._since is None or now - self._since < SIGNING_KEY_GRACE)


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
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot = snapshot
        self._signing_keys = signing_keys
        self._follower = follower
        self._metrics = metrics
        self._max_staleness = max_staleness
        self._shared = shared
        self._clock = clock
        self._monotonic = monotonic
        self._grace = SigningGrace()
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
        elif not self._signs_or_will():
            found.append("active_signing_key_missing")
        if self._snapshot.loaded and self.is_stale(self._clock()):
            found.append("snapshot_stale")
        return found

    def _signs_or_will(self) -> bool:
        signs = self._signing_keys.signer() is not None
        holds = self._grace.holds(signs=signs, now=self._monotonic())
        # Without any state of the keys there is no key to wait for: no token counts.
        return signs or (holds and self._snapshot.signing is not None)

    def refresh(self) -> list[str]:
        """Tells metrics and the other processes, and returns why the service is not ready."""
        reasons = self.reasons()
        self._metrics.ready.set(not reasons)
        if self._shared is not None:
            self._shared.tell(ready=not reasons)
            if not reasons and not self._shared.all_ready():
                return ["another_worker_not_ready"]
        return reasons
