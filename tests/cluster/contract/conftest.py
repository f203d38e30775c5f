"""One installation for the contract: the operator, an API with the settings as they come, and further ones on the same store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

from keyturn_dev.cluster import Cluster
from keyturn_dev.installation import Installation, status_of
from keyturn_dev.waiting import wait_until
from tests.api.installation import ASSERTION_TYPE, ApiProcess
from tests.cluster.clients import Client, World, needs, route, world_of
from tests.cluster.conftest import signing_key
from tests.cluster.test_life_of_objects import secret
from tests.manifests import Manifest, manifest
from tests.sample_keys import sample_key

PERMISSIONS = ["orders:read", "orders:write"]
AUDIENCES = ["orders", "https://billing.example"]
SECRET = "contract s3cret+%/:=&é"


@dataclass
class Contract:
    """The installation as people who move to it meet it."""

    world: World
    folder: Path
    started: dict[tuple[tuple[str, str], ...], ApiProcess] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.world.replicas[0].url

    @property
    def issuer(self) -> str:
        return self.url

    def at(self, **settings: str) -> str:
        """The URL of an API with other settings on the same store; started when it is first asked for."""
        if not settings:
            return self.url
        key = tuple(sorted(settings.items()))
        if key not in self.started:
            environ = {
                "KEYTURN_ISSUER": self.issuer,
                "KEYTURN_STORE_URL": self.world.installation.store_url,
                "KEYTURN_SIGNING_KEY_DIRECTORY": str(self.world.installation.keys),
                "KEYTURN_SHUTDOWN_DELAY": "0",
                "KEYTURN_LOG_LEVEL": "DEBUG",
                "KEYTURN_RATE_LIMIT_EXEMPT": "127.0.0.0/8",
                "KEYTURN_ADMINISTRATION": "false",
                **{f"KEYTURN_{name.upper()}": value for name, value in settings.items()},
            }
            process = ApiProcess(environ, self.folder / f"api-{len(self.started)}.log")
            self.started[key] = process
            wait_until(lambda: status_of(f"{process.url}/readyz") == 200, f"{settings} to be served", seconds=30)
        return self.started[key].url

    def stop(self, **settings: str) -> None:
        """Ends one of them, so that the next test that needs such a one starts it anew."""
        self.started.pop(tuple(sorted(settings.items()))).end()

    @property
    def client(self) -> Client:
        """The client of the guide: one RSA key, permissions, audiences."""
        return self.world.client("contract", key=sample_key("RS256", 501))

    def form(self, signed: str | None = None, **fields: Any) -> dict[str, Any]:
        given = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed or self.client.assertion()}
        return {"grant_type": "client_credentials", **given, **fields}

    def post(self, data: Mapping[str, Any], *, url: str | None = None, **options: Any) -> httpx2.Response:
        return httpx2.post(f"{url or self.url}/oauth/token", data=dict(data), trust_env=False, timeout=10, **options)

    def get(
        self, path: str, *, url: str | None = None, headers: Mapping[str, str] | None = None, token: str | None = None
    ) -> httpx2.Response:
        given = dict(headers or {}) | ({} if token is None else {"Authorization": f"Bearer {token}"})
        return httpx2.get(f"{url or self.url}{path}", headers=given, trust_env=False, timeout=10)

    def auth(
        self,
        target: str,
        *,
        method: str = "GET",
        token: str | None = None,
        url: str | None = None,
        **headers: str,
    ) -> httpx2.Response:
        """The question of a gateway of the reference."""
        asked = {"Original-Request-Uri": target, "Original-Request-Method": method}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.get("/auth", url=url, headers={**asked, **given}, token=token)

    def token(self, *, url: str | None = None, **fields: Any) -> str:
        answer = self.post(self.form(**fields), url=url)
        assert answer.status_code == 200, answer.text
        token = answer.json()["access_token"]
        assert isinstance(token, str)
        return token


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def contract_objects(contract: Contract) -> list[Manifest]:
    client = contract.client
    # The reference's own examples write RSA256.
    jwk = {**client.key.public.jwk, "alg": "RSA256"}
    common = {"permissions": PERMISSIONS, "audiences": AUDIENCES}
    by_secret = {"authMethod": "client_secret_basic", "clientSecret": {"secretName": "contract-s", "generate": False}}
    routes = [
        route("/contract/orders", "GET", **needs("orders:read")),
        route("/contract/orders", "POST", **needs("orders:write")),
        route("/contract/orders/open"),
        route("/contract/admin", **needs("admin")),
        route("/contract/public"),
    ]
    return [
        secret("contract-s", client_secret=SECRET),
        client.manifest(publicKeys=[{"jwk": jwk}], allowedCustomClaims=["tenant"], **common),
        manifest("ClientCredential", "contract-secret", {**by_secret, **common}),
        manifest("ClientCredential", "contract-bare", {"publicKeys": [{"jwk": dict(client.key.public.jwk)}]}),
        manifest("AccessRule", "contract", {"routes": routes}),
    ]


@pytest.fixture(scope="package")
def contract(crds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contract]:
    folder = tmp_path_factory.mktemp("contract")
    own = Installation(crds, "keyturn-contract", folder / "state", settings={"KEYTURN_OPERATOR_SWEEP_INTERVAL": "5"})
    try:
        own.start()
        own.apply([signing_key(own.namespace)])
        own.wait_ready()
        with world_of(own, replicas=1) as world:
            one = Contract(world, folder)
            try:
                world.apply(*contract_objects(one))
                names = ["contract", "contract-secret", "contract-bare"]
                world.objects.wait_all_ready("clientcredentials", names, seconds=20)
                world.objects.wait_for("accessrules", "contract")
                yield one
            finally:
                for process in one.started.values():
                    process.end()
    finally:
        own.stop()
