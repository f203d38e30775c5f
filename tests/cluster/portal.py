"""Registration as portals, internal callers and registered clients see it, over HTTP alone."""

from __future__ import annotations

import base64
import json
import ssl
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx2
import jwt
import yaml

from keyturn.jose.signing import PrivateKey
from tests.cluster.clients import World, as_object
from tests.manifests import Manifest
from tests.sample_keys import sample_key


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class Registered:
    """A client that was registered over HTTP, with all that it was told."""

    world: World
    told: dict[str, Any]
    key: PrivateKey | None = None

    @property
    def client_id(self) -> str:
        return str(self.told["client_id"])

    @property
    def name(self) -> str:
        return self.client_id.removeprefix(f"{self.world.namespace}.")

    @property
    def token(self) -> str:
        return str(self.told["registration_access_token"])

    def object(self) -> Manifest:
        return self.world.objects.get("clientcredentials", self.name)

    def secrets(self) -> list[Manifest]:
        return [one for one in self.world.objects.all("secrets") if one["metadata"]["name"].startswith(self.name)]

    def assertion(self, key: PrivateKey | None = None) -> str:
        signer = key or self.key
        assert signer is not None
        now = int(time.time())
        claims = {"iss": self.client_id, "sub": self.client_id, "aud": self.world.replicas[0].url}
        times = {"jti": str(uuid.uuid4()), "iat": now, "exp": now + 60}
        headers = {"kid": signer.kid}
        return jwt.encode({**claims, **times}, signer.to_pem().decode(), algorithm=signer.algorithm, headers=headers)

    def grant(self, replica: int = 0, *, key: PrivateKey | None = None) -> httpx2.Response:
        api = self.world.replicas[replica]
        if self.key is None and key is None:
            return api.grant_basic(self.client_id, self.told["client_secret"])
        return api.grant(self.assertion(key))

    def access_token(self, replica: int = 0) -> str:
        answer = self.grant(replica)
        assert answer.status_code == 200, answer.text
        return str(as_object(answer)["access_token"])

    def read(self, token: str | None = None) -> httpx2.Response:
        return httpx2.get(self.told["registration_client_uri"], headers=bearer(token or self.token), timeout=20)

    def put(self, token: str | None = None, **metadata: Any) -> httpx2.Response:
        body = {"client_id": self.client_id, **metadata}
        uri = self.told["registration_client_uri"]
        return httpx2.put(uri, json=body, headers=bearer(token or self.token), timeout=30)

    def delete(self, token: str | None = None) -> httpx2.Response:
        return httpx2.delete(self.told["registration_client_uri"], headers=bearer(token or self.token), timeout=20)


class Portal:
    """Whoever may register clients at an installation."""

    def __init__(self, world: World) -> None:
        self.world = world

    def post(self, path: str, body: Any, token: str | None, *, replica: int = 0) -> httpx2.Response:
        url = f"{self.world.installation.url_of(replica)}{path}"
        return httpx2.post(url, json=body, headers=bearer(token) if token else {}, timeout=30)

    def register(self, body: Any, *, token: str | None = "", replica: int = 0) -> httpx2.Response:
        own = self.world.installation.registration_token if token == "" else token
        return self.post("/register", body, own, replica=replica)

    def with_key(self, key: PrivateKey | None = None, **metadata: Any) -> Registered:
        signer = key or new_key(self.world)
        method = {"token_endpoint_auth_method": "private_key_jwt"}
        answer = self.register({**method, "jwks": {"keys": [dict(signer.public.jwk)]}, **metadata})
        assert answer.status_code == 201, answer.text
        return Registered(self.world, as_object(answer), signer)

    def with_secret(self, **metadata: Any) -> Registered:
        answer = self.register(metadata)
        assert answer.status_code == 201, answer.text
        return Registered(self.world, as_object(answer))

    def clients(self, body: Any, token: str | None) -> httpx2.Response:
        return self.post("/clients", body, token)

    def caller(self, name: str, *verbs: str, audience: str | None = None) -> str:
        """A ServiceAccount that may do this with ClientCredentials, and a token of its own."""
        metadata = {"name": name, "namespace": self.world.namespace}
        rbac = "rbac.authorization.k8s.io"
        objects: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}]
        if verbs:
            rules = [{"apiGroups": ["keyturn.dev"], "resources": ["clientcredentials"], "verbs": list(verbs)}]
            role = {"apiGroup": rbac, "kind": "Role", "name": name}
            subject = {"kind": "ServiceAccount", **metadata}
            objects += [
                {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
                {
                    "apiVersion": f"{rbac}/v1",
                    "kind": "RoleBinding",
                    "metadata": metadata,
                    "roleRef": role,
                    "subjects": [subject],
                },
            ]
        self.world.apply(*objects)
        wanted = f"{self.world.installation.url}/admin" if audience is None else audience
        asked = [f"--audience={wanted}"] if wanted else []
        return self.world.kubectl("create", "token", name, *asked).strip()


class Account:
    """The Kubernetes API as the ServiceAccount of one part of the installation; no command of kubectl's, which reads before it writes."""

    def __init__(self, world: World, part: str) -> None:
        document = yaml.safe_load((world.installation.state / f"{part}.kubeconfig").read_text(encoding="utf-8"))
        cluster = document["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode("ascii")
        self._objects = world.objects
        self._http = httpx2.Client(
            base_url=cluster["server"],
            verify=ssl.create_default_context(cadata=authority),
            headers=bearer(document["users"][0]["user"]["token"]),
            timeout=10,
            trust_env=False,
        )

    def close(self) -> None:
        self._http.close()

    def create(self, plural: str, given: Manifest) -> httpx2.Response:
        return self._http.post(self._objects.path(plural), json=given)

    def get(self, plural: str, name: str = "") -> httpx2.Response:
        return self._http.get(f"{self._objects.path(plural)}/{name}".rstrip("/"))

    def patch(self, name: str, change: Manifest) -> httpx2.Response:
        headers = {"Content-Type": "application/merge-patch+json"}
        path = f"{self._objects.path('clientcredentials')}/{name}"
        return self._http.patch(path, content=json.dumps(change), headers=headers)

    def delete(self, plural: str, name: str) -> httpx2.Response:
        return self._http.delete(f"{self._objects.path(plural)}/{name}")


def new_key(world: World) -> PrivateKey:
    return sample_key("ES256", next(world.key_numbers))


def audit_lines(world: World, *names: str) -> list[dict[str, Any]]:
    """The audit records of the API processes with these events."""
    logs = [
        world.installation.log(f"api-{number}").read_text(encoding="utf-8") for number in range(len(world.replicas))
    ]
    records = [json.loads(line) for log in logs for line in log.splitlines() if '"keyturn.audit"' in line]
    return [one for one in records if one["event"] in names]
