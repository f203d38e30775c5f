"""Requests are counted cheaply, and none is lost on the way to a scrape."""

import asyncio
import threading
import time

import pytest
from prometheus_client import CollectorRegistry, Histogram

from keyturn_api import metrics as module
from keyturn_api.metrics import STARTED, Metrics

NAME = "keyturn_api_requests_total"


def shown(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """What a scrape shows of the requests that there were."""
    return {
        (sample.labels["endpoint"], sample.labels["outcome"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == NAME and sample.value
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


def of_auth(registry: CollectorRegistry, name: str) -> dict[str, float]:
    """The histogram's samples of `auth` and `allowed`: by the end of the bucket, or their plain name."""
    return {
        sample.labels.get("le", sample.name): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name.startswith(name)
        and sample.labels.get("endpoint") == "auth"
        and not sample.name.endswith("created")
    }


def test_times_are_shown_as_the_library_would_have_observed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, reference = CollectorRegistry(), CollectorRegistry()
    metrics = Metrics(registry)
    expected = Histogram("reference_seconds", "", ["endpoint"], buckets=module.BOUNDS, registry=reference)
    # On a bound, between two, below the first, and above the last.
    for number, seconds in enumerate([0.001, 0.0007, 0.00001, 7.5, 0.001, 0.3]):
        monkeypatch.setattr(time, "perf_counter", lambda now=10.0 + seconds: now)
        metrics.count("auth", "allowed", {STARTED: 10.0})
        expected.labels("auth").observe(10.0 + seconds - 10.0)
        if number % 2:
            metrics.flush()
    told, wanted = of_auth(registry, "keyturn_api_request_seconds"), of_auth(reference, "reference_seconds")
    assert told.pop("keyturn_api_request_seconds_sum") == pytest.approx(wanted.pop("reference_seconds_sum"))
    assert told.pop("keyturn_api_request_seconds_count") == wanted.pop("reference_seconds_count") == 6
    assert told == wanted


def test_a_request_without_a_beginning_is_counted_and_not_timed() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.count("auth", "allowed", {})
    assert shown(registry) == {("auth", "allowed"): 1}
    assert of_auth(registry, "keyturn_api_request_seconds") == {}


def test_a_count_costs_a_few_microseconds_at_most() -> None:
    metrics = Metrics(CollectorRegistry())
    scope = {STARTED: time.perf_counter()}

    def run() -> float:
        began = time.thread_time()
        for _ in range(2000):
            metrics.count("auth", "allowed", scope)
            metrics.decided("team/orders", "Allowed", scope)
        return (time.thread_time() - began) / 2000

    # A check of a token seen before takes 23 microseconds in all.
    assert min(run() for _ in range(20)) < 5e-6


@pytest.mark.parametrize(
    ("named", "told"),
    [
        pytest.param(0, {"other": 6}, id="none named"),
        pytest.param(2, {"a": 3, "b": 2, "other": 1}, id="the first two named"),
        pytest.param(9, {"a": 3, "b": 2, "c": 1}, id="all named"),
    ],
)
def test_tokens_are_told_apart_by_client_as_far_as_the_setting_says(named: int, told: dict[str, float]) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, named_clients=named)
    for client in "aababc":
        metrics.issued(client)
    assert samples(registry, "keyturn_api_tokens_issued_total", "client") == told


def samples(registry: CollectorRegistry, name: str, label: str) -> dict[str, float]:
    return {one.labels[label]: one.value for metric in registry.collect() for one in metric.samples if one.name == name}


def test_rules_and_reasons_beyond_the_limit_are_counted_as_others() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for number in range(module.MAX_RULES + 7):
        metrics.decided(f"team/{number}", "Allowed", {})
    metrics.decided(None, "UnknownRoute", {})
    metrics.decided("team/0", "Allowed", {})
    told = samples(registry, "keyturn_api_decisions_total", "rule")
    assert len(told) == module.MAX_RULES + 2
    assert (told["team/0"], told[module.OTHER], told[module.NO_RULE]) == (2, 7, 1)


def test_reasons_of_failed_proofs_are_bounded_too() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for number in range(module.MAX_REASONS + 5):
        metrics.not_proven("assertion", f"reason-{number}")
    told = samples(registry, "keyturn_api_client_authentication_failures_total", "reason")
    assert len(told) == module.MAX_REASONS + 1
    assert told[module.OTHER] == 5
