"""The way to the service's private paths: the URL that was given, else its Service through the API server's proxy.

The public address is no way there: it publishes what is for callers only. Nor is the proxy where a Kubernetes token is to be shown to the
service: the API server takes the Authorization header for itself, and passes none on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from . import release
from .errors import CommandError, Exit
from .output import printable
from .server import Answer, fetch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx2

    from .kube import Kube, Object

LOCAL_PORT: Final = 8080
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024


class Barred(CommandError):
    """The caller may not use the API server's proxy. The next step is what to type instead."""


class Service(Protocol):
    """`proxied`: the API server stands between and says itself, in X-Forwarded-*, what was asked for."""

    @property
    def where(self) -> str: ...
    @property
    def proxied(self) -> bool: ...
    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Its answer, whatever the status. Raises CommandError where it gives none."""


@dataclass(frozen=True, slots=True)
class Named:
    """At a URL."""

    http: httpx2.Client
    where: str
    proxied: bool = False

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        asked = self.http.build_request("GET", self.where + path, headers=dict(headers or {}))
        return fetch(self.http, asked, limit=MAX_ANSWER_BYTES)


@dataclass(frozen=True, slots=True)
class Proxied:
    """Behind the API server. The chart calls Service and Deployment alike."""

    kube: Kube
    deployment: Object
    proxied: bool = True

    @property
    def where(self) -> str:
        return f"Service {self.deployment['metadata']['name']}, through the API server"

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        name = self.deployment["metadata"]["name"]
        port = f"{'https:' if _scheme(self.deployment) == 'https' else ''}{name}:http"
        whole = f"/api/v1/namespaces/{self.kube.namespace}/services/{port}/proxy{release.prefix(self.deployment)}{path}"
        answer = self.kube.ask(whole, headers or {}, limit=MAX_ANSWER_BYTES)
        told = answer.json()
        if answer.status < 300 or told.get("kind") != "Status":
            return answer
        # That is the API server's own; the service answers with no such object.
        said = told.get("message")
        cause = printable(said).rstrip(".") if isinstance(said, str) and said else f"HTTP {answer.status}"
        if answer.status == 403:
            raise Barred(
                f"You may not reach the service through the API server: {cause}.",
                f"Ask for `get` on services/proxy; or {forwarding(self.kube.namespace, self.deployment)}.",
                Exit.REFUSED,
            )
        raise CommandError(
            f"The API server does not reach Service {name}: {cause}.",
            f"Check the API's pods and the network policies; or {forwarding(self.kube.namespace, self.deployment)}.",
            Exit.UNREACHABLE,
        )


def find_service(
    kube: Kube, http: httpx2.Client, url: str | None, deployments: Sequence[Object] | None
) -> Service | None:
    """The service at `url`, else that of the API's Deployment. None where neither is known."""
    if url is not None:
        return Named(http, url)
    deployment = release.part(deployments, "api")
    return None if deployment is None else Proxied(kube, deployment)


def forwarding(namespace: str, deployment: Object) -> str:
    """What to type to reach the service from this machine, in words that go on a sentence."""
    forward = f"kubectl port-forward -n {namespace} service/{deployment['metadata']['name']} {LOCAL_PORT}:http"
    local = f"{_scheme(deployment)}://127.0.0.1:{LOCAL_PORT}{release.prefix(deployment)}"
    return f"type `{forward}`, and name it with --url {local}"


def not_named(kube: Kube) -> CommandError:
    """Why a service that wants to see a Kubernetes token can't be asked without a URL, with what to type."""
    try:
        deployments = release.parts(kube.list(f"/apis/apps/v1/namespaces/{kube.namespace}/deployments"))
    except CommandError:
        deployments = []
    deployment = release.part(deployments, "api")
    if deployment is None:
        return CommandError(
            "Nothing in the namespace says where the service is.",
            "Name it with --url or KEYTURN_URL; a port forwarded to its Service will do.",
            Exit.USAGE,
        )
    step = forwarding(kube.namespace, deployment)
    return CommandError(
        "The service answers this inside the cluster only, and no URL of it was named.",
        f"{step[0].upper()}{step[1:]}.",
        Exit.USAGE,
    )


def _scheme(deployment: Object) -> str:
    return "https" if release.settings(deployment).get("KEYTURN_TLS_CERT_FILE") else "http"
