"""What a support archive holds: objects, events, logs, metrics and versions, with everything secret left out before it is read."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from typing import TYPE_CHECKING, Any, Final, TypeVar

from keyturn import __version__

from . import release
from .errors import CommandError
from .kube import GROUP, JSON
from .manifest import to_yaml
from .redaction import LEFT_OUT, without_secrets
from .rights import LEASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .kube import Kube, Object

T = TypeVar("T")
_SECRET_FIELD: Final = re.compile(r"secret", re.IGNORECASE)
KINDS: Final = ("clientcredentials", "signingkeys", "accessrules")
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
LOG_LINES: Final = 2000
LOG_BYTES: Final = 1024 * 1024
# Where each part shows its metrics.
METRICS_PORTS: Final = {"api": 9090, "operator": 8081}
MAX_PODS: Final = 20


def collect(kube: Kube, metrics: Mapping[str, str]) -> dict[str, str]:
    """Files by name, about the installation's own objects. What may not be read, or is cut, is named in `unread.json`.

    No Secret's data is ever asked for. `metrics`: read already.
    """
    files: dict[str, str] = {}
    unread: dict[str, str] = {}
    home = kube.namespace
    core, apps = f"/api/v1/namespaces/{home}", f"/apis/apps/v1/namespaces/{home}"

    def read(name: str, act: Callable[[], T], none: T) -> T:
        try:
            return act()
        except CommandError as error:
            unread[name] = error.problem
            return none

    def keep(
        name: str, path: str, which: Callable[[Object], bool] = lambda _: True, accept: str = JSON
    ) -> list[Object]:
        listed: list[Object] | None = read(name, lambda: kube.list(path, accept=accept), None)
        if listed is None:
            return []
        found = [one for one in listed if which(one)]
        files[name] = documents(found)
        return found

    about: Object | None = read("versions.json", lambda: kube.get("/version"), None)
    files["versions.json"] = _json({"keyturn": __version__, "kubernetes": about})
    own = [one for plural in KINDS for one in keep(f"objects/{plural}.yaml", kube.path(plural))]
    # Others live in the namespace, too: what is theirs is no business of whoever gets the archive.
    deployments = keep("objects/deployments.yaml", f"{apps}/deployments", release.is_ours)
    called = release.releases(deployments)
    sets = keep("objects/statefulsets.yaml", f"{apps}/statefulsets", lambda one: release.is_ours(one, called))
    pods = keep("objects/pods.yaml", f"{core}/pods", lambda one: release.is_ours(one, called))
    operator = release.settings(release.part(deployments, "operator"))
    lease = operator.get("KEYTURN_OPERATOR_LEASE_NAME", LEASE)
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{home}/leases"
    keep("objects/leases.yaml", leases, lambda one: one["metadata"]["name"] == lease)
    workloads = [one["metadata"]["name"] for one in (*deployments, *sets)]
    keep("events.yaml", f"{core}/events", lambda one: is_about(one, workloads))
    named = secrets_named([*own, *deployments, *sets, *pods])
    secrets = read("objects/secrets.yaml", lambda: kube.list(f"{core}/secrets", accept=METADATA_ONLY), None)
    if secrets is not None:
        files["objects/secrets.yaml"] = documents(names_only([one for one in secrets if is_own_secret(one, named)]))
    programs = release.parts(pods)
    if len(programs) > MAX_PODS:
        unread["logs"] = f"Of {len(programs)} pods the first {MAX_PODS} were asked."
    for pod in programs[:MAX_PODS]:
        name = pod["metadata"]["name"]
        for container in release.containers(pod):
            if container["name"] not in release.PARTS:
                # What the cluster puts beside the program writes of other things.
                continue
            for previous in ("false", "true"):
                query = {"container": container["name"], "tailLines": str(LOG_LINES), "previous": previous}
                place = f"logs/{name}-{container['name']}{'-previous' if previous == 'true' else ''}.log"
                end = read(place, lambda: kube.end_of(f"{core}/pods/{name}/log", query, limit=LOG_BYTES), None)  # noqa: B023
                if end is not None:
                    files[place], cut = end
                    unread |= {place: "Only the end of it was taken."} if cut else {}
        place = f"metrics/{name}.txt"
        shown = f"{core}/pods/{name}:{METRICS_PORTS[release.component(pod)]}/proxy/metrics"
        text = read(place, lambda: kube.text(shown, limit=LOG_BYTES), None)  # noqa: B023
        if text is not None:
            files[place] = text
            unread |= {place: "Only the beginning of it was taken."} if len(text) >= LOG_BYTES else {}
    files |= {f"metrics/{name}.txt": text for name, text in metrics.items()}
    files["unread.json"] = _json(unread)
    return files


def is_about(event: Object, workloads: Sequence[str]) -> bool:
    """Whether an event is about an object of ours, or about a workload, one of its pods, or what stands between."""
    about = event.get("involvedObject") or {}
    name = str(about.get("name", ""))
    ours = str(about.get("apiVersion", "")).startswith(f"{GROUP}/")
    return ours or any(name == one or name.startswith(f"{one}-") for one in workloads)


def secrets_named(objects: Iterable[Object]) -> frozenset[str]:
    """The Secrets that these objects name."""
    return frozenset(name for one in objects for name in _secrets_in(one, named=False))


def _secrets_in(value: Any, *, named: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            if isinstance(one, str):
                if key == "secretName" or (named and key == "name"):
                    yield one
            else:
                yield from _secrets_in(one, named=_SECRET_FIELD.search(str(key)) is not None)
    elif isinstance(value, list):
        for one in value:
            yield from _secrets_in(one, named=named)


def is_own_secret(secret: Object, named: frozenset[str]) -> bool:
    """Whether one of our objects names the Secret, or it was made for one, or by the chart."""
    metadata = secret["metadata"]
    marks = [*(metadata.get("labels") or {}), *(metadata.get("annotations") or {})]
    owners = [str(one.get("apiVersion", "")) for one in metadata.get("ownerReferences") or ()]
    return (
        metadata["name"] in named
        or release.is_ours(secret)
        or any(one.startswith(f"{GROUP}/") for one in (*marks, *owners))
    )


def documents(objects: Sequence[Object]) -> str:
    """Objects as YAML, without what may be secret in them."""
    return "---\n".join(to_yaml(without_secrets(one)) for one in objects)


def names_only(secrets: Sequence[Object]) -> list[Object]:
    """Secrets with their annotations' names alone: the operator keeps the hashes of previous values in one."""
    return [
        {
            **one,
            "metadata": {
                **one["metadata"],
                "annotations": dict.fromkeys(one["metadata"].get("annotations") or {}, LEFT_OUT),
            },
        }
        for one in secrets
    ]


def archive(files: Mapping[str, str], *, root: str, now: float) -> bytes:
    """The files as a compressed tar, in the order of their names."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in sorted(files):
            content = files[name].encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"{root}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(now), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=int(now))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
