"""ClientCredential manifests as YAML that `kubectl apply` reads as it was meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

API_VERSION = "keyturn.dev/v1alpha1"

# Unquoted only what no YAML reader takes for anything but a string. kubectl's reader follows YAML 1.1 more closely than
# PyYAML's writer does: to it, `n` (a member of an RSA key) and `y` (one of an EC key) are booleans and `1e3` is a number.
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9./:_-]+\Z")


class ManifestDumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        # Lists indented below their key, as manifests are written by hand.
        super().increase_indent(flow, False)


def represent_string(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if PLAIN.match(value) else '"')


ManifestDumper.add_representer(str, represent_string)


def client_credential(
    *, name: str, namespace: str | None, jwk: Mapping[str, Any], permissions: Sequence[str], audiences: Sequence[str]
) -> dict[str, Any]:
    """The object that registers `jwk` (public members only). Empty lists are left out."""
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    spec: dict[str, Any] = {"authMethod": "private_key_jwt", "publicKeys": [{"jwk": dict(jwk)}]}
    if permissions:
        spec["permissions"] = list(permissions)
    if audiences:
        spec["audiences"] = list(audiences)
    return {"apiVersion": API_VERSION, "kind": "ClientCredential", "metadata": metadata, "spec": spec}


def to_yaml(manifest: Mapping[str, Any]) -> str:
    return yaml.dump(dict(manifest), Dumper=ManifestDumper, sort_keys=False, width=2**16, allow_unicode=True)
