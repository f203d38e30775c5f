"""A kubeconfig whose credentials end while a command or the console runs: the API server takes the new ones on the same object."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from keyturn_cli.errors import CommandError
from keyturn_cli.kube import Kube, Refused, open_kube
from tests.cluster.clients import World
from tests.people.command_line import kubeconfig


def who_am_i(kube: Kube) -> str:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    told = kube.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    return str(told["status"]["userInfo"]["username"])


def token_of_an_account(world: World) -> dict[str, str]:
    with open_kube(kubeconfig=str(kubeconfig(world))) as kube:
        path = f"/api/v1/namespaces/{world.namespace}/serviceaccounts/default/token"
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
        return {"token": str(kube.create(path, review)["status"]["token"])}


def administrator(world: World) -> dict[str, str]:
    (user,) = (one["user"] for one in yaml.safe_load(kubeconfig(world).read_text("utf-8"))["users"])
    return {
        "clientCertificateData": base64.b64decode(user["client-certificate-data"]).decode(),
        "clientKeyData": base64.b64decode(user["client-key-data"]).decode(),
    }


def certificate_of_nobody() -> dict[str, str]:
    """By an authority that the API server does not know."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    now = datetime.now(tz=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(minutes=5))
        .sign(key, SHA256())
    )
    return {
        "clientCertificateData": made.public_bytes(Encoding.PEM).decode(),
        "clientKeyData": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    }


@pytest.mark.parametrize("proof", ["token", "certificate"])
def test_a_credential_plugin_is_asked_again_when_the_api_server_knows_its_person_no_more(
    world: World, tmp_path: Path, proof: str
) -> None:
    if proof == "token":
        old, new = {"token": "over"}, token_of_an_account(world)
        name = f"system:serviceaccount:{world.namespace}:default"
    else:
        old, new, name = certificate_of_nobody(), administrator(world), "keyturn-admin"
    given = tmp_path / "given.json"

    def give(status: dict[str, str]) -> None:
        credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
        given.write_text(json.dumps(credential), "utf-8")
        given.chmod(0o600)

    document: dict[str, Any] = yaml.safe_load(kubeconfig(world).read_text("utf-8"))
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "cat",
        "args": [str(given)],
        "interactiveMode": "Never",
    }
    document["users"] = [{"name": one["name"], "user": {"exec": plugin}} for one in document["users"]]
    config = tmp_path / "config"
    config.write_text(yaml.safe_dump(document), "utf-8")
    config.chmod(0o600)

    give(old)
    with open_kube(kubeconfig=str(config)) as kube:
        with pytest.raises(CommandError) as caught:
            who_am_i(kube)
        assert isinstance(caught.value, Refused)
        assert caught.value.status == 401
    with open_kube(kubeconfig=str(config)) as kube:
        give(new)
        assert who_am_i(kube) == name
