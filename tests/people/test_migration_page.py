"""The shell commands of docs/migrate.md, run as they stand; those of `keyturn` are run with the others of the documents."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from keyturn.jose.signing import load_pem
from tests.cluster.clients import World, needs, route
from tests.documents import PROJECT, RUN_BY, blocks, shown_objects
from tests.manifests import rsa_key
from tests.people.command_line import kubeconfig

PAGE = PROJECT / "docs" / "migrate.md"
PASSPHRASE = "of the reference"


def command(program: str) -> str:
    """The page's command that calls `program`."""
    (found,) = [one.text for one in blocks(PAGE) if RUN_BY.fullmatch(one.mark) and one.text.startswith(f"{program} ")]
    return found


def run(world: World, script: str, folder: Path, **environ: str) -> str:
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    kubectl = programs / "kubectl"
    if not kubectl.exists():
        kubectl.symlink_to(world.installation.target.kubectl)
    done = subprocess.run(
        ["/bin/sh", "-eu"],
        input=script,
        cwd=folder,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "KUBECONFIG": str(kubeconfig(world)), **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


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
        command("kubectl"),
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
    assert run(world, command("curl"), tmp_path, TOKEN=client.token(), SERVICE=service) == status
