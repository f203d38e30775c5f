"""`keyturn keygen`: a key pair, and the manifest that registers its public half."""

from __future__ import annotations

import json
import re
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from keyturn.jose.signing import generate

from ..files import NewFile, write_all
from ..help import examples
from ..manifest import client_credential, to_yaml
from ..output import say
from ..progress import working

EPILOG: Final = examples(
    "keyturn keygen billing",
    "keyturn keygen billing --permission orders:read --permission orders:write --audience https://shop.example.org",
    "keyturn keygen billing --type ec --namespace team-a --out keys",
)

# RFC 1123 labels, as the API server asks of an object's name; also keeps the name inside the folder.
LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
OBJECT_NAME: Final = re.compile(rf"{LABEL}(\.{LABEL})*\Z")
NAMESPACE: Final = re.compile(rf"{LABEL}\Z")
MAX_NAME: Final = 253
# RFC 6749 §3.3: a scope-token.
PERMISSION: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}\Z")
# As a ClientCredential's `spec.audiences` takes them.
AUDIENCE: Final = re.compile(r"[^\s\x00-\x20\x7f-\x9f]{1,256}\Z")


class KeyType(StrEnum):
    RSA = "rsa"
    EC = "ec"


class RsaSize(StrEnum):
    SMALL = "2048"
    MEDIUM = "3072"
    LARGE = "4096"


EC_SIZE: Final = 256


def check_name(value: str) -> str:
    if len(value) > MAX_NAME or not OBJECT_NAME.match(value):
        raise typer.BadParameter("lower-case letters, digits, '-' and '.' only, as for any Kubernetes object")
    return value


def check_namespace(value: str | None) -> str | None:
    if value is not None and not NAMESPACE.match(value):
        raise typer.BadParameter("lower-case letters, digits and '-' only, at most 63")
    return value


def check_permissions(values: list[str] | None) -> list[str]:
    values = list(dict.fromkeys(values or []))
    if not all(PERMISSION.match(value) for value in values):
        raise typer.BadParameter(
            "1 to 256 visible ASCII characters without quote and backslash (RFC 6749, scope-token)"
        )
    return values


def check_audiences(values: list[str] | None) -> list[str]:
    values = list(dict.fromkeys(values or []))
    if not all(AUDIENCE.match(value) for value in values):
        raise typer.BadParameter("1 to 256 characters without spaces")
    return values


def keygen(
    name: Annotated[
        str,
        typer.Argument(
            callback=check_name, help="The client's name: of the object and of the files.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files; made if absent.")] = Path(),
    key_type: Annotated[KeyType, typer.Option("--type", help="RSA signs RS256, EC (P-256) signs ES256.")] = KeyType.RSA,
    size: Annotated[
        RsaSize | None, typer.Option(help="Bits of an RSA key; 2048 unless given.", show_default=False)
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", callback=check_namespace, help="Written into the manifest.", show_default=False
        ),
    ] = None,
    permission: Annotated[
        list[str] | None,
        typer.Option(callback=check_permissions, help="A permission of the client; may repeat.", show_default=False),
    ] = None,
    audience: Annotated[
        list[str] | None,
        typer.Option(callback=check_audiences, help="An audience of its tokens; may repeat.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Make a key pair for a client, and the manifest that registers it.

    Writes NAME.pem (the private key, readable by you alone), NAME.public.jwk, and NAME.yaml, a ClientCredential to apply.
    The private key stays with the client: it is in neither of the other two.
    """
    if key_type is KeyType.EC and size is not None:
        raise typer.BadParameter("is for RSA keys; an EC key is always P-256", param_hint="'--size'")
    with working("Making the key"):
        key = generate("ES256", EC_SIZE) if key_type is KeyType.EC else generate("RS256", int(size or RsaSize.SMALL))
    manifest = client_credential(
        name=name, namespace=namespace, jwk=key.public.jwk, permissions=permission or [], audiences=audience or []
    )
    private, public, applied = (out / f"{name}.{suffix}" for suffix in ("pem", "public.jwk", "yaml"))
    write_all(
        [
            NewFile(private, key.to_pem(), private=True),
            NewFile(public, (json.dumps(key.public.jwk, indent=2) + "\n").encode()),
            NewFile(applied, to_yaml(manifest).encode()),
        ],
        overwrite=force,
    )
    say(f"{private} is the private key (keep it secret), {public} its public half, {applied} the client's manifest.")
    say(f"Next: kubectl apply -f {shlex.quote(str(applied))}")
