"""The yardstick: the CPU time of one RSA-2048 signature and one verification, on this machine, now.

A token cannot cost less in private_key_jwt with RS256. Machines, and the hosts of virtual machines by the minute, differ by more
than most changes to a program do: a multiple of this is what compares.
"""

from __future__ import annotations

import time

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

_MESSAGE = b"x" * 400
_BATCH = 20


class Baseline:
    """One key, and the samples taken with it."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._public = self._key.public_key()

    def sample(self, seconds: float = 0.3) -> float:
        """Return the CPU milliseconds of one signature plus one verification, from work of about this length.

        The median of small batches: one that was interrupted does not count.
        """
        padded, digest = padding.PKCS1v15(), SHA256()
        batches: list[float] = []
        until = time.thread_time() + seconds
        while time.thread_time() < until or not batches:
            begin = time.thread_time()
            for _ in range(_BATCH):
                signature = self._key.sign(_MESSAGE, padded, digest)
                self._public.verify(signature, _MESSAGE, padded, digest)
            batches.append((time.thread_time() - begin) / _BATCH)
        return sorted(batches)[len(batches) // 2] * 1000
