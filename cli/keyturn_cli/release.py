"""The installation's own objects among those of a namespace, which other programs share: what the chart made, and how it set it up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from keyturn.endpoints import base_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .kube import Object

PARTS: Final = ("operator", "api")
# A chart of another name, such as keyturn-shop, is not ours.
_CHART: Final = re.compile(r"keyturn-[0-9]")
# Both programs need it, and no other program reads it.
_ISSUER: Final = "KEYTURN_ISSUER"
_VERSION: Final = re.compile(r"v?([0-9]+\.[0-9]+[A-Za-z0-9.+-]*)")


def is_ours(obj: Object, releases: Iterable[tuple[str, str]] = ()) -> bool:
    """Whether a Deployment, StatefulSet or Pod is the installation's: by the chart's label, or by a program's settings in it.

    `releases`: what is called as one of these is ours too; the database's pods bear no more than such a name.
    """
    if _CHART.match(str(_labels(obj).get("helm.sh/chart", ""))) or _release(obj) in releases:
        return True
    return any(variable.get("name") == _ISSUER for one in containers(obj) for variable in one.get("env") or ())


def releases(objects: Iterable[Object]) -> frozenset[tuple[str, str]]:
    """What the releases among these objects are called: by name and instance."""
    return frozenset(_release(one) for one in parts(objects)) - {("", "")}


def component(obj: Object) -> str:
    """Which part an object of the chart is."""
    return str(_labels(obj).get("app.kubernetes.io/component", ""))


def parts(objects: Iterable[Object]) -> list[Object]:
    """Those of the two programs: not the database, nor what somebody else calls `api`."""
    return [one for one in objects if component(one) in PARTS and is_ours(one)]


def containers(obj: Object) -> list[dict[str, Any]]:
    """The containers of a Pod, or of what makes pods."""
    spec = obj.get("spec") or {}
    spec = (spec.get("template") or {}).get("spec") or {} if "template" in spec else spec
    return [one for one in spec.get("containers") or () if isinstance(one, dict)]


def part(deployments: Sequence[Object] | None, name: str) -> Object | None:
    """The Deployment of one part; None where there is none."""
    return next((one for one in deployments or () if component(one) == name), None)


def settings(deployment: Object | None) -> Mapping[str, str]:
    """What a Deployment gives its program as it stands there; not what comes from Secrets."""
    given = [variable for one in containers(deployment or {}) for variable in one.get("env") or ()]
    return {str(one.get("name")): str(one["value"]) for one in given if one.get("value")}


def prefix(deployment: Object | None) -> str:
    """The path in front of every endpoint."""
    return settings(deployment).get("KEYTURN_SERVICE_PREFIX", "").rstrip("/")


def issuer(deployment: Object | None) -> str:
    """Who issues the tokens, without a slash at the end; empty where it is not said there."""
    return settings(deployment).get(_ISSUER, "").rstrip("/")


def public_url(deployment: Object | None) -> str | None:
    """Where callers reach the service, as its own settings say."""
    public = settings(deployment).get("KEYTURN_PUBLIC_URL")
    if not (public or issuer(deployment)).startswith(("https://", "http://")):
        return None
    return base_url(issuer(deployment), public, prefix(deployment))


def version(deployment: Object) -> str:
    """That of the image, which counts and not the chart's label; empty where the image's tag is no version."""
    for one in containers(deployment):
        if one.get("name") in PARTS:
            name = str(one.get("image", "")).partition("@")[0].rpartition("/")[2]
            found = _VERSION.fullmatch(name.partition(":")[2])
            return found[1] if found else ""
    return ""


def _release(obj: Object) -> tuple[str, str]:
    labels = _labels(obj)
    return str(labels.get("app.kubernetes.io/name", "")), str(labels.get("app.kubernetes.io/instance", ""))


def _labels(obj: Object) -> Mapping[str, Any]:
    return (obj.get("metadata") or {}).get("labels") or {}
