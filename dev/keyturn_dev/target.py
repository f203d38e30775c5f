"""Which cluster to use: one of our own on this machine, or the context that the person's kubeconfig names.

`KEYTURN_CLUSTER` unset, empty or `local`: the local one. `current`: the person's own, after they have said yes.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Protocol

from keyturn_dev.binaries import ensure_kubectl
from keyturn_dev.cluster import Cluster
from keyturn_dev.errors import DevError, UsageError
from keyturn_dev.kubeconfig import run_kubectl, service_account_kubeconfig, write_kubeconfig
from keyturn_dev.paths import CLUSTER_STATE
from keyturn_dev.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

VARIABLE = "KEYTURN_CLUSTER"
LOCAL = "local"
CURRENT = "current"


class Target(Protocol):
    """A cluster to work on. `Cluster` and `CurrentContext` are its two kinds."""

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig to use; there between `up` and `down`."""

    @property
    def kubectl(self) -> Path:
        """A kubectl that fits."""

    def up(self) -> Path:
        """Make the cluster ready to use and return the kubeconfig."""

    def down(self) -> bool:
        """Undo what `up` did, no more than that, and tell whether there was anything to undo."""

    def is_up(self) -> bool:
        """Tell whether `up` was called and `down` not yet."""

    def service_account_kubeconfig(
        self, namespace: str, name: str, out: Path, duration: str = "1h", audiences: Sequence[str] = ()
    ) -> Path:
        """Write a kubeconfig that acts as a ServiceAccount and return its path."""


class CurrentContext:
    """The person's own cluster, held to the one context that they agreed to.

    The context is copied into a kubeconfig of its own: were another one chosen meanwhile (`kubectl config
    use-context`), what goes on here would otherwise continue on that other cluster.
    """

    def __init__(self, state: Path, kubectl: Path, environ: Mapping[str, str]) -> None:
        self.kubectl = kubectl
        self.kubeconfig = state.absolute() / "current.kubeconfig"
        try:
            wanted = ("config", "view", "--raw", "--minify", "--flatten", "-o", "json")
            view = run_kubectl(kubectl, None, *wanted, environ=environ)
            self._document = json.loads(view)
            self.context = str(self._document["current-context"])
            self.server = str(self._document["clusters"][0]["cluster"]["server"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise DevError("your kubeconfig names no cluster in its current context") from error

    def up(self) -> Path:
        """Write the context's own kubeconfig, see that the API server answers, and return its path."""
        write_kubeconfig(self.kubeconfig, self._document)
        try:
            run_kubectl(self.kubectl, self.kubeconfig, "get", "--raw", "/version", "--request-timeout=20s", seconds=30)
        except BaseException:
            self.down()
            raise
        return self.kubeconfig

    def down(self) -> bool:
        """Remove the copied kubeconfig; the cluster is the person's and stays as it is."""
        existed = self.kubeconfig.exists()
        self.kubeconfig.unlink(missing_ok=True)
        return existed

    def is_up(self) -> bool:
        """Tell whether the copied kubeconfig exists."""
        return self.kubeconfig.exists()

    def service_account_kubeconfig(
        self, namespace: str, name: str, out: Path, duration: str = "1h", audiences: Sequence[str] = ()
    ) -> Path:
        """Write a kubeconfig that acts as a ServiceAccount (see `keyturn_dev.kubeconfig`) and return its path."""
        return service_account_kubeconfig(
            self.kubectl, self.kubeconfig, namespace, name, out, duration=duration, audiences=audiences
        )


def choose_cluster(
    environ: Mapping[str, str] | None = None,
    *,
    state: Path = CLUSTER_STATE,
    progress: Progress | None = None,
    ask: Callable[[str], str] | None = None,
) -> Target:
    """Return the cluster that the environment asks for, not started yet.

    `KEYTURN_CLUSTER=current` names context and server and asks first; `YES=1` answers. Raise `UsageError` if the answer
    is no, if nobody can be asked, or if the variable has another value. `ask` (default: the terminal, if standard input
    is one) takes the question and returns what the person typed.
    """
    environ = os.environ if environ is None else environ
    progress = progress or Progress()
    wanted = environ.get(VARIABLE, "") or LOCAL
    if wanted == LOCAL:
        return Cluster(state, environ=environ, progress=progress)
    if wanted != CURRENT:
        raise UsageError(f"{VARIABLE} is {wanted!r}: it may be {LOCAL!r} (the default) or {CURRENT!r}")
    current = CurrentContext(state.with_name("current"), ensure_kubectl(environ, progress), environ)
    progress.say(f"{VARIABLE}={CURRENT}: this changes the cluster of context {current.context!r} at {current.server}.")
    confirm(environ, ask or terminal())
    return current


def confirm(environ: Mapping[str, str], ask: Callable[[str], str] | None) -> None:
    """Return if the person agrees to use their cluster; raise `UsageError` if not, or if there is nobody to ask."""
    if environ.get("YES") == "1":
        return
    if ask is None:
        raise UsageError(
            f"{VARIABLE}={CURRENT} asks before it changes your cluster, and there is no terminal: set YES=1"
        )
    if ask("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was changed")


def terminal() -> Callable[[str], str] | None:
    """Return a way to ask the person, or None if standard input is no terminal."""
    return _ask if sys.stdin is not None and sys.stdin.isatty() else None


def _ask(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    # An empty line from readline means the end of input, which is no answer.
    return sys.stdin.readline()
