"""Libraries of others register clients of their own at an installation, as their documentation shows, and get and use tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from keyturn_dev.errors import DevError
from tests.api.installation import ApiProcess, free_port
from tests.cluster.clients import World
from tests.realclients.service import Service, private_jwk
from tests.realclients.toolchains import Program, java_program, node_program
from tests.realclients.trust import make_trust


@pytest.fixture(scope="module")
def service(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A further replica of the shared installation, under an issuer of its own that is reached by TLS."""
    folder = tmp_path_factory.mktemp("registering")
    trust, port = make_trust(folder), free_port()
    issuer = f"https://localhost:{port}"
    state = world.installation.state
    environ = {
        "KEYTURN_ISSUER": issuer,
        "KEYTURN_HTTP_PORT": str(port),
        "KEYTURN_TLS_CERT_FILE": str(trust.certificate),
        "KEYTURN_TLS_KEY_FILE": str(trust.key),
        "KEYTURN_STORE_URL": world.installation.store_url,
        "KEYTURN_SIGNING_KEY_DIRECTORY": str(world.installation.keys),
        "KEYTURN_REGISTRATION_TOKENS_DIRECTORY": str(world.installation.registration_tokens),
        "KEYTURN_NAMESPACE": world.namespace,
        "KEYTURN_KUBERNETES_URL": (state / "api-server.url").read_text(encoding="utf-8"),
        "KEYTURN_KUBERNETES_TOKEN_FILE": str(state / "api.token"),
        "KEYTURN_KUBERNETES_CA_FILE": str(state / "api-server.crt"),
        "KEYTURN_RATE_LIMIT_EXEMPT": "127.0.0.0/8",
        "KEYTURN_SHUTDOWN_DELAY": "0",
        "KEYTURN_LOG_LEVEL": "DEBUG",
    }
    process = ApiProcess(environ, folder / "api.log")
    try:
        asyncio.run(process.ready())
        yield Service(issuer, process, trust)
    finally:
        process.end()


@pytest.fixture(scope="module")
def node(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Program:
    try:
        return node_program(tmp_path_factory.mktemp("node"), service.environ)
    except DevError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="module")
def java(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Program:
    try:
        return java_program(tmp_path_factory.mktemp("java"), service.environ, *service.java_properties)
    except DevError as error:
        pytest.fail(str(error))


def exists(world: World, client_id: str) -> bool:
    name = client_id.removeprefix(f"{world.namespace}.")
    labels = world.objects.get("clientcredentials", name)["metadata"]["labels"]
    return bool(labels["keyturn.dev/registered"] == "true")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
def test_openid_client_registers_and_gets_and_uses_a_token(
    node: Program, service: Service, world: World, method: str
) -> None:
    jwk = private_jwk("ES256")
    public = {name: value for name, value in jwk.items() if name != "d"}
    keys = {"jwks": {"keys": [public]}} if method == "private_key_jwt" else {}
    result = node.run(
        "register",
        issuer=service.issuer,
        initial_access_token=world.installation.registration_token,
        metadata={"client_name": "A client on Node.js", "token_endpoint_auth_method": method, **keys},
        **({"key": jwk, "algorithm": "ES256"} if keys else {}),
    )
    assert result["status"] == 200
    client_id = result["client"]["client_id"]
    assert (result["info"]["client_id"], result["info"]["permissions"]) == (client_id, [])
    assert exists(world, client_id)


@pytest.mark.parametrize("method", ["client_secret_basic", "private_key_jwt"])
def test_nimbus_registers_and_gets_and_uses_a_token(java: Program, service: Service, world: World, method: str) -> None:
    given = {"audience_claim": service.issuer, "key": private_jwk("RS256"), "algorithm": "RS256"}
    result = java.run(
        "register",
        issuer=service.issuer,
        initial_access_token=world.installation.registration_token,
        method=method,
        **(given if method == "private_key_jwt" else {}),
    )
    assert result.get("status") == 200, result
    assert result["info"]["client_id"] == result["client_id"]
    assert exists(world, result["client_id"])
