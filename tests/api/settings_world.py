"""A few running processes whose settings differ in everything, and what their checks need."""

import json
import ssl
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from keyturn.clients.state import SecretHash, WorkloadAccount
from keyturn.keys.plan import ensure, with_generated
from keyturn.keys.state import KeyPhase, SigningKeyState
from keyturn.records import Kind
from keyturn.rules.state import Condition, RouteState, RuleState
from keyturn.secrets import hash_secret
from keyturn_dev.certificates import Authority
from tests.api.conftest import APP, SECRET
from tests.api.installation import ApiProcess, Installation, assertion, form
from tests.api.peer import Answer, Asked, Peer
from tests.sample_keys import sample_key

USERS_KEY = sample_key(number=21)
SLOW_COST = 12
CLUSTER_ISSUER = "https://cluster.example"
PLAIN_ISSUER = "https://plain.example"
PLAIN_URL = "https://api.example/public"


@dataclass
class Running:
    """One process of a group, with what its checks need."""

    process: ApiProcess
    http: httpx2.AsyncClient
    group: "Group"

    async def token(self, client_id: str = "team.app", **changes: Any) -> httpx2.Response:
        claims = changes.pop("claims", {})
        signed = assertion(APP, client_id, **{"aud": self.group.issuer, **claims})
        return await self.http.post(f"{self.group.prefix}/oauth/token", data=form(signed, **changes))

    async def access_token(self, client_id: str = "team.app", **changes: Any) -> str:
        answer = await self.token(client_id, **changes)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    async def decide(self, path: str = "/orders", **headers: str) -> httpx2.Response:
        question = {"Original-Request-Uri": path, "Original-Request-Method": "GET"}
        return await self.http.get("/auth", headers=question | headers)


@dataclass(frozen=True)
class Group:
    """The settings of one process."""

    issuer: str = "https://issuer.example"
    prefix: str = ""
    settings: dict[str, str] = field(default_factory=dict)


class World:
    """Starts the process of a group when its first check comes; ends all of them with the module."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.installation = Installation(folder)
        self.authority = Authority("test", datetime.now(UTC))
        self._running: dict[str, Running] = {}

    async def open(self) -> None:
        installation = self.installation
        await installation.open()
        self.stack.push_async_callback(installation.close)
        await fill(installation)
        second = with_generated(
            ensure(None, algorithm="RS256", size=2048, now=time.time()),
            {KeyPhase.ACTIVE: sample_key(number=103), KeyPhase.NEXT: sample_key(number=104)},
            now=time.time(),
        )
        self.second_ring = second
        await installation.put(Kind.SIGNING_KEY, "second", SigningKeyState(second.keys).to_body())
        for name, content in second.to_secret_data().items():
            (self.folder / "second").mkdir(exist_ok=True)
            (self.folder / "second" / name).write_bytes(content)
        (self.folder / "more.json").write_text('{"op_policy_uri": "https://policy.example"}')
        served = self.authority.issue("served", names=("127.0.0.2",), client=False)
        (self.folder / "tls.crt").write_bytes(served.certificate)
        (self.folder / "tls.key").write_bytes(served.key)
        (self.folder / "ca.crt").write_bytes(self.authority.certificate)
        (self.folder / "kubernetes-token").write_text("the-services-own")
        kubernetes = self.authority.issue("kubernetes", names=("127.0.0.1",), client=False)
        (self.folder / "kubernetes.crt").write_bytes(kubernetes.certificate)
        (self.folder / "kubernetes.key").write_bytes(kubernetes.key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.folder / "kubernetes.crt", self.folder / "kubernetes.key")
        self.kubernetes = await self.stack.enter_async_context(Peer(review, context=context))
        self.users = await self.stack.enter_async_context(Peer(self._user))
        self.issuer = await self.stack.enter_async_context(Peer(lambda _: (200, {"keys": [USERS_KEY.public.jwk]})))
        (self.folder / "issuers.json").write_text(
            json.dumps(
                {
                    "issuers": [
                        {
                            "issuer": self.issuer.url,
                            "audiences": ["orders"],
                            "algorithms": ["RS256"],
                            "jwksUri": f"{self.issuer.url}/keys",
                            "claims": {"permissions": "rights"},
                        }
                    ]
                }
            )
        )

    @staticmethod
    def _user(asked: Asked) -> Answer:
        if "session=good" not in asked.headers.get("cookie", ""):
            return 401, {}
        return 200, {"id": "ada", "rights": ["orders:read"], "tenant": "north", "sub": "not this", "permissions": []}

    def groups(self) -> dict[str, Group]:
        folder = self.folder
        kubernetes = {
            "kubernetes_url": self.kubernetes.url,
            "kubernetes_token_file": str(folder / "kubernetes-token"),
            "kubernetes_ca_file": str(folder / "ca.crt"),
            "namespace": "project",
            "administration": "true",
            "administration_server_tokens": "true",
        }
        return {
            "plain": Group(
                issuer=PLAIN_ISSUER,
                settings={
                    "public_url": PLAIN_URL,
                    "token_lifetime": "60",
                    "max_token_lifetime": "120",
                    "token_typ": "JWT",
                    "clock_skew_seconds": "120",
                    "token_endpoint_as_audience": "true",
                    "require_audience": "true",
                    "accepted_audiences": "stock, more",
                    "openid_config_path": str(folder / "more.json"),
                    "max_body_bytes": "2048",
                    "log_level": "DEBUG",
                    "log_format": "text",
                    "strict_mode": "false",
                },
            ),
            "gateway": Group(
                settings={
                    "gateway_profile": "envoy",
                    "context_headers": "true",
                    "header_prefix": "x-auth-",
                    "unknown_route": "reference",
                    "client_as_user": "false",
                }
            ),
            "limits": Group(
                settings={
                    "secret_failures_per_minute": "2",
                    "rate_limit_exempt": "192.0.2.0/24",
                    "trusted_proxies": "127.0.0.0/8",
                    "forwarded_header": "forwarded",
                    "bcrypt_cost": str(SLOW_COST),
                    "hash_queue": "1",
                    "revocations_per_client": "2",
                    "secret_cache": "0",
                    "token_cache": "0",
                }
            ),
            "places": Group(
                prefix="/p",
                settings={
                    "http_host": "127.0.0.2",
                    "metrics_host": "127.0.0.3",
                    "service_prefix": "/p",
                    "workers": "2",
                    "tls_cert_file": str(folder / "tls.crt"),
                    "tls_key_file": str(folder / "tls.key"),
                    "signing_key": "second",
                    "signing_key_directory": str(folder / "second"),
                },
            ),
            "users": Group(
                settings={
                    "userinfo_url": f"{self.users.url}/me",
                    "authorization_headers_to_proxy": "cookie",
                    "user_id_key": "id",
                    "permissions_key": "rights",
                    "user_properties": "tenant",
                    "userinfo_timeout": "1",
                    "userinfo_cache_seconds": "0",
                    "userinfo_connections": "1",
                    "trusted_issuers_file": str(folder / "issuers.json"),
                    "workload_identity": "false",
                    "denials_kept": "0",
                    "denials_stored": "true",
                    **kubernetes,
                }
            ),
            "edge": Group(
                settings={
                    "trust_user_headers": "true",
                    "trusted_peers": "127.0.0.1/32",
                    "denials_kept": "1",
                    "denials_stored": "false",
                    "cluster_issuer": CLUSTER_ISSUER,
                    "workload_token_review": "false",
                    **kubernetes,
                }
            ),
            "ending": Group(settings={"shutdown_delay": "2", "shutdown_timeout": "1", "max_staleness": "1.5"}),
        }

    async def running(self, name: str) -> Running:
        if name not in self._running:
            group = self.groups()[name]
            process = self.installation.start(issuer=group.issuer, **group.settings)
            await process.ready()
            context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
            http = await self.stack.enter_async_context(httpx2.AsyncClient(base_url=process.url, verify=context))
            self._running[name] = Running(process, http, group)
        return self._running[name]


async def fill(installation: Installation) -> None:
    """Clients and rules for all checks."""
    await installation.add_key_client("team.app", APP, audiences=("orders", "stock"))
    await installation.add_key_client("team.long", APP, audiences=("orders", "stock"), token_lifetime=3600)
    hashed = SecretHash(hash_secret(SECRET, SLOW_COST), None, "uid/1")
    await installation.add_secret_client("team.secret", SECRET, secrets=(hashed,), audiences=("orders", "stock"))
    account = WorkloadAccount("project", "web", "account-uid")
    await installation.add_key_client("team.pods", APP, keys=(), service_account=account)
    await installation.add_rules()
    office = RuleState(
        routes=(
            RouteState("/office", ("GET",), Condition(any_of=("nobody",)), Condition(any_of=("orders:read",))),
            RouteState("/north", ("GET",), Condition(expression='userProperties.tenant == "north"')),
        )
    )
    await installation.put(Kind.ACCESS_RULE, "office", office.to_body())


def review(asked: Asked) -> Answer:
    """A Kubernetes API that knows one token, allows one namespace, and publishes the keys of its ServiceAccount tokens."""
    if asked.method == "GET":
        return 200, {"keys": [USERS_KEY.public.jwk]}
    spec = asked.json()["spec"]
    if asked.path.partition("?")[0].endswith("/tokenreviews"):
        good = spec["token"] == "support" and "audiences" not in spec
        user = {"username": "ada", "uid": "1", "groups": ["support"]}
        return 201, {"status": {"authenticated": good, "user": user if good else {}}}
    attributes = spec["resourceAttributes"]
    return 201, {
        "status": {"allowed": attributes["namespace"] == "project" and attributes["verb"] in ("introspect", "explain")}
    }
