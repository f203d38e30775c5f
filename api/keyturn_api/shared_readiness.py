"""What worker processes tell one another: which of them may get requests."""

import mmap
import os


class SharedReadiness:
    """One byte for each worker process, in memory that all of them map: 1 when it is ready."""

    def __init__(self, descriptor: int, workers: int, index: int) -> None:
        self._map = mmap.mmap(descriptor, workers)
        self._workers = workers
        self._index = index

    @staticmethod
    def create(workers: int) -> int:
        """The descriptor to hand to the workers."""
        descriptor = os.memfd_create("keyturn-readiness")
        os.ftruncate(descriptor, workers)
        os.set_inheritable(descriptor, True)
        return descriptor

    def tell(self, *, ready: bool) -> None:
        self._map[self._index] = int(ready)

    def all_ready(self) -> bool:
        return self._map[: self._workers] == b"\1" * self._workers
