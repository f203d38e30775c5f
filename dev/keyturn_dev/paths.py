"""Where things lie: the project's folder, and the user's cache that all checkouts share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = Path(__file__).resolve().parents[2]
CONTROL_PLANE = PROJECT / "dev" / "control-plane"
HELM = PROJECT / "dev" / "helm"
COREDNS = PROJECT / "dev" / "coredns"
GO_REQUIREMENTS = PROJECT / "dev" / "go-requirements.txt"
POSTGRES_REQUIREMENTS = PROJECT / "dev" / "postgres-requirements.txt"
ENVOY_REQUIREMENTS = PROJECT / "dev" / "envoy-requirements.txt"
GATEWAYS = PROJECT / "dev" / "gateways"
CLUSTER_STATE = PROJECT / ".run" / "cluster"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return Keyturn's folder in the user's cache, by the XDG base directory specification.

    The specification asks that a relative `XDG_CACHE_HOME` be ignored, and an empty one be taken as unset.
    """
    named = Path(environ.get("XDG_CACHE_HOME", ""))
    base = named if named.is_absolute() else Path(environ.get("HOME") or Path.home()) / ".cache"
    return base / "keyturn"
