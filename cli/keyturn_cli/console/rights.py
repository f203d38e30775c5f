"""What the person may do, as the API server says (SelfSubjectAccessReview): what would be refused is not offered."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from ..errors import CommandError
from ..kube import GROUP

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..kube import Kube

REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
KEPT_SECONDS: Final = 30.0
MAX_KEPT: Final = 500


class Rights:
    """Answers are kept for half a minute: a right that is taken away is then refused by the API server itself."""

    def __init__(self, kube: Kube, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str, str, str], tuple[float, bool]] = {}

    def may(self, verb: str, resource: str, name: str = "", *, group: str = GROUP) -> bool:
        """Whether the person may do this in the namespace. No answer counts as no."""
        key = (verb, group, resource, name)
        now = self._clock()
        with self._lock:
            kept = self._kept.get(key)
        if kept is not None and now < kept[0]:
            return kept[1]
        plural, _, subresource = resource.partition("/")
        asked = {"namespace": self._kube.namespace, "verb": verb, "group": group, "resource": plural}
        if subresource:
            asked["subresource"] = subresource
        if name:
            asked["name"] = name
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        try:
            allowed = (self._kube.create(REVIEWS, body).get("status") or {}).get("allowed") is True
        except CommandError:
            return False
        with self._lock:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = (now + KEPT_SECONDS, allowed)
        return allowed
