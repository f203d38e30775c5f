"""`keyturn keygen`: three files that fit together, a private key that is nobody else's, and nothing lost by accident."""

from __future__ import annotations

import base64
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keyturn.jose.keys import parse_jwk
from keyturn_cli.manifest import client_credential, to_yaml

from .command import keyturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = ("billing.pem", "billing.public.jwk", "billing.yaml")
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def keygen(folder: Path, *arguments: str) -> dict[str, Any]:
    """Makes an EC pair unless told otherwise (an RSA one takes longer); gives the manifest."""
    kind = () if "--type" in arguments else ("--type", "ec")
    result = keyturn("keygen", "billing", "--out", str(folder), *kind, *arguments)
    assert result.exit_code == 0, result.output
    manifest = yaml.safe_load((folder / "billing.yaml").read_text())
    assert isinstance(manifest, dict)
    return manifest


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=lambda umask: f"umask {umask:03o}")
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_the_private_key_is_readable_by_its_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    keygen(tmp_path)
    assert mode(tmp_path / "billing.pem") == 0o600
    assert mode(tmp_path / "billing.yaml") == 0o644 & ~umask


@pytest.mark.parametrize(
    ("arguments", "kind", "algorithm", "size"),
    [
        pytest.param(["--type", "rsa"], RSAPrivateKey, "RS256", 2048, id="RSA without a size"),
        pytest.param(["--type", "rsa", "--size", "3072"], RSAPrivateKey, "RS256", 3072, id="RSA with a size"),
        pytest.param(["--type", "ec"], EllipticCurvePrivateKey, "ES256", 256, id="EC"),
    ],
)
def test_the_three_files_hold_one_key(
    tmp_path: Path, arguments: list[str], kind: type, algorithm: str, size: int
) -> None:
    manifest = keygen(tmp_path, *arguments)
    pem = (tmp_path / "billing.pem").read_bytes()
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----")  # PKCS #8
    private = load_pem_private_key(pem, None)
    assert isinstance(private, kind)
    jwk = json.loads((tmp_path / "billing.public.jwk").read_text())
    assert manifest["spec"]["publicKeys"] == [{"jwk": jwk}]
    public = parse_jwk(jwk, field="jwk")
    assert (public.kid, public.algorithm, public.size) == (jwk["kid"], algorithm, size)
    assert public.kid == public.thumbprint
    # The public half belongs to the private one: what that signs verifies.
    result = keyturn(
        "token", "--assertion-only", "--issuer", "https://i", "--client-id", "c", "--key", str(tmp_path / "billing.pem")
    )
    signing_input, _, signature = result.stdout.strip().rpartition(".")
    assert public.verify(signing_input.encode(), decode(signature))


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_no_private_member_is_in_the_public_files_or_on_the_screen(tmp_path: Path, kind: str) -> None:
    result = keyturn("keygen", "billing", "--out", str(tmp_path), "--type", kind)
    jwk = json.loads((tmp_path / "billing.public.jwk").read_text())
    assert not PRIVATE_MEMBERS & jwk.keys()
    assert "PRIVATE" not in (tmp_path / "billing.yaml").read_text() + result.output


def test_the_manifest_holds_what_was_asked_for(tmp_path: Path) -> None:
    manifest = keygen(
        tmp_path,
        *("--namespace", "team-a", "--permission", "orders:read", "--permission", "1e3", "--permission", "orders:read"),
        *("--audience", "https://shop.example.org"),
    )
    jwk = json.loads((tmp_path / "billing.public.jwk").read_text())
    assert manifest == {
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "ClientCredential",
        "metadata": {"name": "billing", "namespace": "team-a"},
        "spec": {
            "authMethod": "private_key_jwt",
            "publicKeys": [{"jwk": jwk}],
            "permissions": ["orders:read", "1e3"],
            "audiences": ["https://shop.example.org"],
        },
    }


def test_what_was_not_asked_for_is_left_out_of_the_manifest(tmp_path: Path) -> None:
    manifest = keygen(tmp_path)
    assert set(manifest["metadata"]) == {"name"}
    assert set(manifest["spec"]) == {"authMethod", "publicKeys"}


@pytest.mark.parametrize(
    "word", ["y", "n", "Y", "N", "yes", "on", "null", "~", "1e3", "0o17", "1_0", "0x1f", "12:30", "-"]
)
def test_a_word_that_some_yaml_reader_takes_for_something_else_is_quoted(word: str) -> None:
    text = to_yaml(client_credential(name="c", namespace=None, jwk={word: word}, permissions=[word], audiences=[]))
    assert yaml.safe_load(text)["spec"]["permissions"] == [word]
    lines = [line.strip().replace("'", '"') for line in text.splitlines()]
    assert f'- "{word}"' in lines
    assert f'"{word}": "{word}"' in lines


def test_it_says_what_to_do_next_as_a_command_that_can_be_copied(tmp_path: Path) -> None:
    folder = tmp_path / "my keys"
    result = keyturn("keygen", "billing", "--out", str(folder), "--type", "ec", env={"COLUMNS": "40"})
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == f"Next: kubectl apply -f '{folder}/billing.yaml'"


@pytest.mark.parametrize("present", FILES)
def test_an_existing_file_is_left_alone_and_nothing_is_written(tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_text("mine")
    result = keyturn("keygen", "billing", "--out", str(tmp_path), "--type", "ec")
    assert result.exit_code == 1
    assert f"{present} exists already" in result.stderr
    assert "--force" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [present]
    assert (tmp_path / present).read_text() == "mine"


def test_a_link_that_leads_nowhere_is_in_the_way_too(tmp_path: Path) -> None:
    (tmp_path / "billing.pem").symlink_to(tmp_path / "elsewhere")
    result = keyturn("keygen", "billing", "--out", str(tmp_path), "--type", "ec")
    assert result.exit_code == 1
    assert not (tmp_path / "elsewhere").exists()


def test_force_replaces_the_file_and_neither_its_mode_nor_what_it_linked_to_lives_on(tmp_path: Path) -> None:
    folder, other = tmp_path / "keys", tmp_path / "other"
    folder.mkdir()
    other.write_text("someone's")
    (folder / "billing.pem").symlink_to(other)
    (folder / "billing.yaml").write_text("old")
    (folder / "billing.yaml").chmod(0o666)
    keygen(folder, "--force")
    assert other.read_text() == "someone's"
    assert not (folder / "billing.pem").is_symlink()
    assert mode(folder / "billing.pem") == 0o600
    assert mode(folder / "billing.yaml") & 0o022 == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_a_failed_replacement_leaves_the_old_files_and_no_remains(tmp_path: Path) -> None:
    (tmp_path / "billing.pem").mkdir()  # a folder can't be replaced by a file
    (tmp_path / "billing.yaml").write_text("old")
    result = keyturn("keygen", "billing", "--out", str(tmp_path), "--type", "ec", "--force")
    assert result.exit_code == 2
    assert "can't be written" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["billing.pem", "billing.yaml"]
    assert (tmp_path / "billing.yaml").read_text() == "old"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = keyturn("keygen", "billing", "--out", str(tmp_path / "file"), "--type", "ec")
    assert result.exit_code == 2
    assert f"{tmp_path / 'file'} can't be written" in result.stderr
    assert "--out" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["../billing"], id="a name that leads out of the folder"),
        pytest.param(["Billing"], id="a name that no Kubernetes object can have"),
        pytest.param(["billing\n"], id="a name with a line break"),
        pytest.param(["a" * 254], id="a name that is too long"),
        pytest.param(["billing", "--namespace", "team.a"], id="a namespace with a dot"),
        pytest.param(["billing", "--type", "ec", "--size", "2048"], id="a size for an EC key"),
        pytest.param(["billing", "--size", "1024"], id="a weak RSA key"),
        pytest.param(["billing", "--type", "dsa"], id="a type that signs no assertion"),
        pytest.param(["billing", "--permission", "orders read"], id="a permission with a space"),
        pytest.param(["billing", "--permission", 'a"b'], id="a permission with a quote"),
        pytest.param(["billing", "--permission", ""], id="an empty permission"),
        pytest.param(["billing", "--permission", "p" * 257], id="a permission that is too long"),
        pytest.param(["billing", "--audience", "a b"], id="an audience with a space"),
        pytest.param([], id="no name"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_a_usage_error_and_writes_nothing(
    tmp_path: Path, arguments: list[str]
) -> None:
    folder = tmp_path / "keys"
    result = keyturn("keygen", "--out", str(folder), *arguments)
    assert result.exit_code == 2
    assert not folder.exists()
