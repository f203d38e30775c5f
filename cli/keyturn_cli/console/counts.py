"""What rules under Audit would have denied: counted by the API replicas, read from their metrics where these can be reached."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from .. import release
from ..errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..kube import Kube

METRIC: Final = "keyturn_api_audit_denials_total"
METRICS_PORT: Final = 9090
KEPT_SECONDS: Final = 15.0
MAX_REPLICAS: Final = 20
MAX_BYTES: Final = 4 * 1024 * 1024
TIMEOUT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Counts:
    """By rule (`namespace/name`), of all replicas since each of them started. `problem`: why there are none; empty where there are."""

    by_rule: Mapping[str, int] = field(default_factory=dict)
    replicas: int = 0
    problem: str = ""


def count_denials(texts: Sequence[str]) -> dict[str, int]:
    """The counts of several replicas together. Raises ValueError for what are no metrics."""
    found: dict[str, int] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == METRIC:
                    rule = sample.labels.get("rule", "")
                    found[rule] = found.get(rule, 0) + int(sample.value)
    return found


class AuditCounts:
    """Reads the metrics at the URLs that were named, else of the pods, through the API server."""

    def __init__(
        self,
        kube: Kube,
        urls: Sequence[str],
        *,
        open_client: Callable[[], httpx2.Client],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._urls = tuple(urls)
        self._open_client = open_client
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: tuple[float, Counts] | None = None

    def read(self) -> Counts:
        """Never raises: what keeps the counts away is told instead."""
        with self._lock:
            now = self._clock()
            if self._kept is not None and now < self._kept[0]:
                return self._kept[1]
            try:
                texts = self._of_urls() if self._urls else self._of_pods()
                counts = Counts(count_denials(texts), len(texts))
            except CommandError as error:
                counts = Counts(problem=error.problem)
            except httpx2.HTTPError as error:
                counts = Counts(problem=f"The metrics can't be reached ({type(error).__name__}).")
            except ValueError:
                counts = Counts(problem="What was found there are no metrics.")
            self._kept = (now + KEPT_SECONDS, counts)
            return counts

    def _of_urls(self) -> list[str]:
        texts = []
        with self._open_client() as client:
            for url in self._urls:
                answer = client.get(url, timeout=TIMEOUT_SECONDS)
                if answer.status_code != 200 or len(answer.content) > MAX_BYTES:
                    raise ValueError(url)
                texts.append(answer.text)
        return texts

    def _of_pods(self) -> list[str]:
        namespace = f"/api/v1/namespaces/{self._kube.namespace}/pods"
        pods = [
            pod
            for pod in release.parts(self._kube.list(namespace))
            if release.component(pod) == "api" and (pod.get("status") or {}).get("phase") == "Running"
        ]
        if not pods:
            raise ValueError(namespace)
        return [
            self._kube.text(f"{namespace}/{pod['metadata']['name']}:{METRICS_PORT}/proxy/metrics")
            for pod in pods[:MAX_REPLICAS]
        ]
