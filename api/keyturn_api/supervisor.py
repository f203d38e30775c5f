"""Several worker processes on one listening socket, one metrics port for all, and a readiness that means every one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from keyturn_api.logs import get_logger
from keyturn_api.settings import ApiSettings
from keyturn_api.shared_readiness import SharedReadiness

_log = get_logger("supervisor")
_METRICS_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
_LOOK_EVERY: Final = 0.2
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_STABLE: Final = 60.0


@dataclass(slots=True)
class _Worker:
    index: int
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    start_at: float = 0.0
    pause: float = _FIRST_PAUSE


def run(settings: ApiSettings, listener: socket.socket) -> int:
    """Keeps the workers running until SIGTERM or SIGINT; then ends them gracefully. Returns the exit status."""
    directory = tempfile.mkdtemp(prefix="keyturn-metrics-")
    try:
        return _supervise(settings, listener, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _supervise(settings: ApiSettings, listener: socket.socket, directory: str) -> int:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=directory)  # type: ignore[no-untyped-call]
    start_http_server(settings.metrics_port, settings.metrics_host, registry=registry)
    readiness = SharedReadiness.create(settings.workers)
    # The workers see the end of this process, however it comes, by the end of the pipe.
    pipe, own_end = os.pipe()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    workers = [_Worker(index) for index in range(settings.workers)]

    def start(worker: _Worker) -> None:
        descriptors = (listener.fileno(), readiness, pipe)
        worker.process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "keyturn_api.worker", str(worker.index), *map(str, descriptors)],
            pass_fds=descriptors,
            env={**os.environ, _METRICS_DIRECTORY: directory},
        )
        worker.started_at = time.monotonic()

    try:
        while not stop.is_set():
            now = time.monotonic()
            for worker in workers:
                if worker.process is None:
                    if now >= worker.start_at:
                        start(worker)
                elif (status := worker.process.poll()) is not None:
                    _log.error("worker_ended", worker=worker.index, status=status)
                    _bury(worker, readiness, settings.workers, directory)
                    worker.pause = _FIRST_PAUSE if now - worker.started_at > _STABLE else worker.pause
                    worker.start_at, worker.pause = now + worker.pause, min(worker.pause * 2, _LONGEST_PAUSE)
            stop.wait(_LOOK_EVERY)
        return _end(workers, settings, stop)
    finally:
        for worker in workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
        os.close(own_end)


def _bury(worker: _Worker, readiness: int, workers: int, directory: str) -> None:
    assert worker.process is not None
    SharedReadiness(readiness, workers, worker.index).tell(ready=False)
    mark_process_dead(worker.process.pid, directory)  # type: ignore[no-untyped-call]
    worker.process = None


def _end(workers: list[_Worker], settings: ApiSettings, stop: threading.Event) -> int:
    running = [worker.process for worker in workers if worker.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + settings.shutdown_delay + settings.shutdown_timeout + 10
    stop.clear()
    while any(process.poll() is None for process in running) and time.monotonic() < deadline:
        if stop.wait(0.05):
            # A second signal: no more waiting for load balancers.
            stop.clear()
            for process in running:
                if process.poll() is None:
                    process.terminate()
    # One that was only just starting has no handler for the signal yet: it has served nobody.
    return 0 if all(process.poll() in (0, -signal.SIGTERM) for process in running) else 1
