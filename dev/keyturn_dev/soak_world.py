"""An installation for the long tests: many clients with one key, asked and changed over connections that stay open."""

from __future__ import annotations

import contextlib
import itertools
import json
import ssl
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import jwt
import yaml

from keyturn.jose.signing import generate
from keyturn_dev.certificates import write_private
from keyturn_dev.errors import DevError
from keyturn_dev.installation import Installation
from keyturn_dev.rights import SIGNING_KEY
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from keyturn_dev.cluster import Cluster

_GROUP = "/apis/keyturn.dev/v1alpha1"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_CREATORS = 8
_PAGE = 500
_TOKENS = 1000
_CHANGE_SECONDS = 10.0


class SoakWorld:
    """Clients are numbered; `c-<number>` is the object of one, and all share one key, so that each manifest costs little to make."""

    def __init__(self, cluster: Cluster, installation: Installation) -> None:
        self.installation = installation
        certs = cluster.state / "certs"
        context = ssl.create_default_context(cafile=str(certs / "ca.crt"))
        context.load_cert_chain(certs / "admin.crt", certs / "admin.key")
        server = cluster.status().server
        if server is None:
            raise DevError("the cluster has gone")
        self._kube = httpx2.Client(base_url=server, verify=context, timeout=60, trust_env=False)
        self._api = httpx2.Client(base_url=installation.url, timeout=30, trust_env=False)
        self._key = generate("ES256", 256)
        self._pem = self._key.to_pem().decode()

    def close(self) -> None:
        """Let all connections go."""
        self._kube.close()
        self._api.close()

    def _path(self, plural: str) -> str:
        return f"{_GROUP}/namespaces/{self.installation.namespace}/{plural}"

    def create(self, numbers: Iterable[int]) -> None:
        """Make these clients; raise `DevError` when the API server refuses one."""

        def make(number: int) -> None:
            body = {
                "apiVersion": "keyturn.dev/v1alpha1",
                "kind": "ClientCredential",
                "metadata": {"name": f"c-{number}"},
                "spec": {"publicKeys": [{"jwk": dict(self._key.public.jwk)}], "permissions": ["soak"]},
            }
            answer = self._kube.post(self._path("clientcredentials"), json=body)
            if answer.status_code != 201:
                raise DevError(f"c-{number} was refused: {answer.text[:500]}")

        with ThreadPoolExecutor(_CREATORS) as pool:
            list(pool.map(make, numbers))

    def _all(self, plural: str) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            query = {"limit": str(_PAGE), **({"continue": token} if token else {})}
            page = self._kube.get(self._path(plural), params=query).json()
            yield from page["items"]
            token = page["metadata"].get("continue", "")
            if not token:
                return

    def ready(self) -> int:
        """How many clients are Ready."""
        return sum(
            any(
                one["type"] == "Ready" and one["status"] == "True"
                for one in obj.get("status", {}).get("conditions", ())
            )
            for obj in self._all("clientcredentials")
        )

    def wait_ready(self, count: int, *, seconds: float) -> None:
        """Wait for so many to be Ready, and no more than so long."""
        # Looking at all of them is work for the API server, which shares this machine.
        wait_until(
            lambda: self.ready() >= count,
            f"{count} clients to be Ready",
            seconds=seconds,
            interval=max(0.5, count / 1000),
        )

    def request(self, number: int) -> int:
        """Ask for a token as one client and return the status."""
        return self._grant(self._assertion(number)).status_code

    def _grant(self, assertion: str) -> httpx2.Response:
        form = {"grant_type": "client_credentials", "client_assertion_type": _ASSERTION, "client_assertion": assertion}
        return self._api.post("/oauth/token", data=form)

    def _assertion(self, number: int) -> str:
        client_id = f"{self.installation.namespace}.c-{number}"
        now = int(time.time())
        body = {"iss": client_id, "sub": client_id, "aud": self.installation.url, "jti": str(uuid.uuid4())}
        times = {"iat": now, "exp": now + 300}
        return jwt.encode({**body, **times}, self._pem, algorithm="ES256", headers={"kid": self._key.kid})

    def measure(self, clients: int, requests: int) -> dict[str, list[float]]:
        """Seconds of each request for a token and of each decision, the clients taking turns, one request after the other."""
        step = max(1, clients // min(clients, _TOKENS))
        turns = itertools.cycle(range(0, clients, step))
        times: dict[str, list[float]] = {"token": [], "/auth": []}
        tokens = []
        for number in itertools.islice(turns, requests):
            assertion = self._assertion(number)
            began = time.perf_counter()
            answer = self._grant(assertion)
            times["token"].append(time.perf_counter() - began)
            if answer.status_code != 200:
                raise DevError(f"c-{number} got no token: {answer.text[:500]}")
            tokens.append(answer.json()["access_token"])
        for token in itertools.islice(itertools.cycle(tokens[-_TOKENS:]), requests):
            headers = {
                "Authorization": f"Bearer {token}",
                "Original-Request-Method": "GET",
                "Original-Request-Uri": "/soak",
            }
            began = time.perf_counter()
            status = self._api.get("/auth", headers=headers).status_code
            times["/auth"].append(time.perf_counter() - began)
            if status != 200:
                raise DevError(f"/auth answered {status}")
        return times

    def change(self, number: int, turn: int) -> float:
        """Change one client's permissions and return how many seconds it took to count."""
        wanted = ["soak", f"turn-{turn}"]
        headers = {"Content-Type": "application/merge-patch+json"}
        content = json.dumps({"spec": {"permissions": wanted}})
        answer = self._kube.patch(f"{self._path('clientcredentials')}/c-{number}", content=content, headers=headers)
        if answer.status_code != 200:
            raise DevError(f"c-{number} could not be changed: {answer.text[:500]}")
        began = time.monotonic()

        def counts() -> bool:
            # What a client has gained is in its next token.
            return self.show_token(number) == sorted(wanted)

        try:
            wait_until(counts, "a change to count", seconds=_CHANGE_SECONDS)
        except DevError:
            # An answer too, and a bad one: the hour goes on.
            return _CHANGE_SECONDS
        return time.monotonic() - began

    def show_token(self, number: int) -> list[str]:
        """The permissions that a new token of this client has, as the API says when it is shown."""
        token = self._grant(self._assertion(number)).json()["access_token"]
        told = self._api.get("/tokeninfo", headers={"Authorization": f"Bearer {token}"})
        return sorted(told.json().get("permissions", ()))

    def versions(self) -> dict[str, str]:
        """By `plural/name`, the resourceVersion of each of our objects, of each Secret and Event of the namespace."""
        found: dict[str, str] = {}
        for plural in ("clientcredentials", "accessrules", "signingkeys"):
            found |= {
                f"{plural}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in self._all(plural)
            }
        for plural in ("secrets", "events"):
            page = self._kube.get(f"/api/v1/namespaces/{self.installation.namespace}/{plural}").json()
            found |= {
                f"{plural}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in page["items"]
            }
        return found


@contextlib.contextmanager
def opened(cluster: Cluster, namespace: str, state: Path, *, server: str | None = None) -> Iterator[SoakWorld]:
    """Start an installation with a signing key and one route, and end it. `server`: another way to the API server for the operator."""
    installation = Installation(cluster, namespace, state)
    try:
        installation.start()
        if server is not None:
            path = installation.state / "operator.kubeconfig"
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            document["clusters"][0]["cluster"]["server"] = server
            write_private(path, json.dumps(document).encode())
            installation.restart_operator()
        condition = {"permissions": {"anyOf": ["soak"]}}
        manifests: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("SigningKey", SIGNING_KEY, {}),
            ("AccessRule", "soak", {"routes": [{"path": "/soak", **condition}]}),
        )
        installation.apply(
            [
                {"apiVersion": "keyturn.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
                for kind, name, spec in manifests
            ]
        )
        installation.wait_ready(60)
        world = SoakWorld(cluster, installation)
        try:
            yield world
        finally:
            world.close()
    finally:
        installation.stop()
