"""What a support archive holds: objects, events, logs, metrics and versions, with everything secret left out before it is read."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from typing import TYPE_CHECKING, Any, Final

from keyturn import __version__

from .errors import CommandError
from .listing import without_field_managers
from .manifest import to_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .kube import Kube, Object

KINDS: Final = ("clientcredentials", "signingkeys", "accessrules")
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
LOG_LINES: Final = 2000
LOG_BYTES: Final = 1024 * 1024
METRICS_PORT: Final = 9090
MAX_PODS: Final = 20
LEFT_OUT: Final = "(left out)"
# Annotations that repeat a whole object, data and all.
_WHOLE: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
_SECRET_NAME: Final = re.compile(r"PASSWORD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|PRIVATE", re.IGNORECASE)
_PASSWORD_IN_URL: Final = re.compile(r"(://[^\s/:@]*:)[^\s/@]+@")


def collect(kube: Kube, metrics: Mapping[str, str]) -> dict[str, str]:
    """Files by name. What may not be read is named in `unread.json`; no Secret's data is ever asked for. `metrics`: read already."""
    files: dict[str, str] = {}
    unread: dict[str, str] = {}
    home = kube.namespace

    def add(name: str, make: Callable[[], str]) -> None:
        try:
            files[name] = make()
        except CommandError as error:
            unread[name] = error.problem

    add("versions.json", lambda: _json({"keyturn": __version__, "kubernetes": kube.get("/version")}))
    for plural in KINDS:
        add(f"objects/{plural}.yaml", lambda plural=plural: documents(kube.list(kube.path(plural))))  # type: ignore[misc]
    core, apps = f"/api/v1/namespaces/{home}", f"/apis/apps/v1/namespaces/{home}"
    add("objects/secrets.yaml", lambda: documents(names_only(kube.list(f"{core}/secrets", accept=METADATA_ONLY))))
    add("objects/deployments.yaml", lambda: documents(kube.list(f"{apps}/deployments")))
    add("objects/pods.yaml", lambda: documents(kube.list(f"{core}/pods")))
    add("objects/leases.yaml", lambda: documents(kube.list(f"/apis/coordination.k8s.io/v1/namespaces/{home}/leases")))
    add("events.yaml", lambda: documents(kube.list(f"{core}/events")))
    try:
        pods = kube.list(f"{core}/pods", selector="app.kubernetes.io/component in (api, operator)")[:MAX_PODS]
    except CommandError as error:
        unread["logs"] = error.problem
        pods = []
    for pod in pods:
        name = pod["metadata"]["name"]
        for container in (pod.get("spec") or {}).get("containers") or ():
            for previous in ("false", "true"):
                query = {"container": container["name"], "tailLines": str(LOG_LINES), "previous": previous}
                place = f"logs/{name}-{container['name']}{'-previous' if previous == 'true' else ''}.log"
                add(place, lambda query=query, name=name: kube.text(f"{core}/pods/{name}/log", query, limit=LOG_BYTES))  # type: ignore[misc]
        add(
            f"metrics/{name}.txt",
            lambda name=name: kube.text(f"{core}/pods/{name}:{METRICS_PORT}/proxy/metrics", limit=LOG_BYTES),  # type: ignore[misc]
        )
    files |= {f"metrics/{name}.txt": text for name, text in metrics.items()}
    files["unread.json"] = _json(unread)
    return files


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


def without_secrets(obj: Object) -> dict[str, Any]:
    """The object without data of Secrets, without copies of itself, and without passwords in its containers' variables."""
    kept = without_field_managers(obj)
    for member in ("data", "stringData"):
        kept.pop(member, None)
    metadata = dict(kept["metadata"])
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {name: value for name, value in annotations.items() if name not in _WHOLE}
    kept["metadata"] = metadata
    cleaned: dict[str, Any] = _cleaned(kept)
    return cleaned


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("name"), str) and isinstance(value.get("value"), str):
            # A container's variable.
            secret = _SECRET_NAME.search(value["name"]) and not value["value"].startswith("/")
            shown = LEFT_OUT if secret else _PASSWORD_IN_URL.sub(rf"\1{LEFT_OUT}@", value["value"])
            return {**value, "value": shown}
        return {name: _cleaned(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    return value


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
