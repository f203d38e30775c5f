"""`python -m keyturn_dev.programs`: builds or fetches every program that `make test` runs beside ours, what is needed first first.

Each is built once into the user's cache under a lock, so this may run beside the tests: whoever needs one that is being built waits.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from keyturn_dev.binaries import ensure_binaries
from keyturn_dev.errors import DevError
from keyturn_dev.gateway_programs import GATEWAY_NAMES, ensure_gateway
from keyturn_dev.node_programs import ensure_helm
from keyturn_dev.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Has all of them ready; what fails is said at the end, and the others are there nevertheless."""
    progress = Progress()
    environ = dict(os.environ)
    steps: list[Callable[[], object]] = [
        lambda: ensure_binaries(environ, progress),
        lambda: ensure_helm(environ, progress),
    ]
    steps += [lambda name=name: ensure_gateway(name, environ, progress) for name in GATEWAY_NAMES]  # type: ignore[misc]
    failures = []
    for step in steps:
        try:
            step()
        except DevError as error:
            failures.append(str(error))
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
