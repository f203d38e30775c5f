"""The shell commands of docs/migrate.md, run as they stand; those of `keyturn` are run with the others of the documents."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from keyturn.jose.signing import load_pem
from tests.cluster.clients import World, needs, route
from tests.documents import PROJECT, shown_objects
from tests.manifests import rsa_key
from tests.people.shell import run, shown

PAGE = PROJECT / "docs" / "migrate.md"
PASSPHRASE = "of the reference"


def signing_key() -> dict[str, Any]:
    (found,) = [one for place, one in shown_objects() if place == "docs/migrate.md: SigningKey keyturn"]
    return found


def test_the_reference_s_key_is_in_the_secret_as_the_signing_key_of_the_page_names_it(
    world: World, tmp_path: Path
) -> None:
    key = rsa_key()
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.encode()))
    (tmp_path / "reference.pem").write_bytes(encrypted)
    run(
        world,
        shown(PAGE, "kubectl "),
        tmp_path,
        PRIVATE_RSA_KEY_FILE_PATH=str(tmp_path / "reference.pem"),
        PRIVATE_KEY_PASSWORD=PASSPHRASE,
    )
    named = signing_key()["spec"]["importFrom"]
    data = world.objects.get("secrets", named["secretName"])["data"]
    pem, passphrase = (base64.b64decode(data[named[member]]) for member in ("key", "passphraseKey"))
    assert load_pem(pem, algorithm="RS256", password=passphrase).algorithm == "RS256"


@pytest.mark.parametrize(("permission", "status"), [("orders:read", "200"), ("orders:list", "403")])
def test_the_question_of_the_page_is_answered_by_its_status(
    world: World, tmp_path: Path, permission: str, status: str
) -> None:
    name = permission.replace(":", "-")
    client = world.client(f"moved-{name}").apply(permissions=[permission], audiences=["orders"])
    client.wait()
    # The rule that the examples of the help have too: one path, one rule.
    world.rule("orders-example", route("/orders", "GET", **needs("orders:read")))
    service = world.replicas[0].url
    assert run(world, shown(PAGE, "curl "), tmp_path, TOKEN=client.token(), SERVICE=service) == status
