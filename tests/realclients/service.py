"""One running service that libraries of others use as they find it: by its issuer's URL, over TLS."""

from __future__ import annotations

import contextlib
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey, OKPKey, RSAKey

from keyturn.clients.state import CLIENT_SECRET_POST
from keyturn.jose.signing import PrivateKey
from tests.api.installation import ApiProcess, Installation, free_port
from tests.realclients.trust import TRUSTSTORE_PASSWORD, Trust
from tests.sample_keys import ALGORITHMS, sample_key

PERMISSIONS = ["orders:read", "orders:write"]
AUDIENCE = "https://orders.example"
# As Keyturn makes them: such a secret needs no encoding, and so also fits libraries that leave out RFC 6749's.
SECRET = "GENERATED-0uFq1vLkYw2c7Zp9aXnT4sRb8eHdJ3mG6iKoQy5W-_c"
# As people choose them: RFC 6749 section 2.3.1 says how it goes into a header.
CHOSEN_SECRET = "chosen s3cret+% :/=&é"


def key_client(algorithm: str) -> str:
    return f"team.{algorithm.lower()}"


def key_of(algorithm: str) -> PrivateKey:
    return sample_key(algorithm, 301)


def private_jwk(algorithm: str) -> dict[str, Any]:
    """The private key as a JWK, which every library reads."""
    return {**joserfc_key(algorithm).as_dict(private=True), "kid": key_of(algorithm).kid, "alg": algorithm}


def joserfc_key(algorithm: str) -> ECKey | OKPKey | RSAKey:
    """The private key as Authlib takes it."""
    pem = key_of(algorithm).to_pem()
    if algorithm == "ES256":
        return ECKey.import_key(pem)
    return OKPKey.import_key(pem) if algorithm == "EdDSA" else RSAKey.import_key(pem)


@dataclass(frozen=True)
class Service:
    """A service under its issuer's URL."""

    issuer: str
    process: ApiProcess
    trust: Trust

    @property
    def token_endpoint(self) -> str:
        return f"{self.issuer}/oauth/token"

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.trust.authority))

    @property
    def environ(self) -> Mapping[str, str]:
        """What makes Node.js and Go trust the certificate."""
        return {"NODE_EXTRA_CA_CERTS": str(self.trust.authority), "SSL_CERT_FILE": str(self.trust.authority)}

    @property
    def java_properties(self) -> tuple[str, ...]:
        return (
            f"-Djavax.net.ssl.trustStore={self.trust.truststore}",
            f"-Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD}",
            "-Djavax.net.ssl.trustStoreType=PKCS12",
        )


# A store younger than an hour asks for `iat` in assertions, which one of the libraries leaves out.
STORE_AGE = 2 * 3600


@asynccontextmanager
async def filled_installation(folder: Path) -> AsyncIterator[Installation]:
    """A store with a client for each algorithm and for each way of sending a secret."""
    installation = Installation(folder)
    try:
        await installation.open()
        with contextlib.closing(sqlite3.connect(folder / "keyturn.sqlite", timeout=10)) as store, store:
            store.execute("UPDATE keyturn_meta SET born_at = ?", (time.time() - STORE_AGE,))
        common: dict[str, Any] = {"permissions": tuple(PERMISSIONS), "audiences": (AUDIENCE,)}
        for algorithm in ALGORITHMS:
            await installation.add_key_client(key_client(algorithm), key_of(algorithm), **common)
        await installation.add_secret_client("team.basic", SECRET.encode(), **common)
        await installation.add_secret_client("team.chosen", CHOSEN_SECRET.encode(), **common)
        post = {**common, "auth_method": CLIENT_SECRET_POST}
        await installation.add_secret_client("team.post", SECRET.encode(), **post)
        await installation.add_secret_client("team.chosen-post", CHOSEN_SECRET.encode(), **post)
        yield installation
    finally:
        await installation.close()


@asynccontextmanager
async def running_service(installation: Installation, trust: Trust, **settings: str) -> AsyncIterator[Service]:
    port = free_port()
    issuer = f"https://localhost:{port}"
    tls = {"tls_cert_file": str(trust.certificate), "tls_key_file": str(trust.key)}
    given = {"issuer": issuer, "http_port": str(port), "rate_limit_exempt": "127.0.0.0/8", **tls, **settings}
    process = await installation.start(**given).ready()
    try:
        yield Service(issuer, process, trust)
    finally:
        process.end()


def claims_are_whole(info: Mapping[str, Any], service: Service, client_id: str) -> None:
    """What a resource server reads of a token by /tokeninfo."""
    assert info["iss"] == service.issuer
    assert (info["sub"], info["client_id"]) == (client_id, client_id)
    assert (info["permissions"], info["aud"]) == (PERMISSIONS, [AUDIENCE])
    assert info["exp"] > info["iat"]
