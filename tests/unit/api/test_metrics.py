"""Requests are counted cheaply, and none is lost on the way to a scrape."""

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry

from keyturn_api import metrics as module
from keyturn_api.metrics import Metrics

NAME = "keyturn_api_requests_total"


def shown(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """What a scrape shows of the requests."""
    return {
        (sample.labels["endpoint"], sample.labels["outcome"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == NAME
    }


def test_a_scrape_shows_every_request_so_far() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    assert shown(registry) == {}
    metrics.count("auth", "allowed")
    metrics.count("auth", "allowed")
    metrics.count("token", "ok")
    assert shown(registry) == {("auth", "allowed"): 2, ("token", "ok"): 1}
    metrics.count("auth", "allowed")
    assert shown(registry) == shown(registry) == {("auth", "allowed"): 3, ("token", "ok"): 1}


async def test_without_a_scrape_counts_are_handed_on_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FLUSH_EVERY", 0.001)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    running = asyncio.create_task(metrics.run())
    for _ in range(2):
        before = registry.get_sample_value(NAME, {"endpoint": "auth", "outcome": "allowed"}) or 0
        metrics.count("auth", "allowed")
        await asyncio.sleep(0.05)
        assert metrics._requests.labels("auth", "allowed")._value.get() == before + 1
    running.cancel()


def test_scrapes_in_other_threads_count_nothing_twice_and_miss_nothing() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    done = threading.Event()

    def scrape() -> None:
        while not done.is_set():
            metrics.flush()

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20_000):
        metrics.count("auth", "allowed" if number % 4 else "forbidden")
    done.set()
    for thread in threads:
        thread.join()
    assert shown(registry) == {("auth", "allowed"): 15_000, ("auth", "forbidden"): 5_000}
