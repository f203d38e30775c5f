"""Objects that use every field of each kind, and keys to put into others."""

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keyturn.jose import base64url
from keyturn.jose.keys import public_key
from tests.secrecy.planted import PLANTED

API_VERSION = "keyturn.dev/v1alpha1"

Manifest = dict[str, Any]


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    PLANTED.pem("a key for manifests", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    return key


def public_jwk(kid: str | None = None) -> dict[str, Any]:
    return dict(public_key(rsa_key().public_key(), kid=kid, field="jwk").jwk)


def private_jwk_members() -> dict[str, str]:
    """The private members of the RSA key as a JWK has them (RFC 7518 section 6.3.2)."""
    numbers = rsa_key().private_numbers()
    values = {
        "d": numbers.d,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qi": numbers.iqmp,
    }
    return {
        name: base64url.encode(value.to_bytes((value.bit_length() + 7) // 8)).decode() for name, value in values.items()
    }


def public_pem() -> str:
    return rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return rsa_key().private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def elliptic_jwk(kid: str) -> dict[str, Any]:
    return dict(public_key(ec.generate_private_key(ec.SECP256R1()).public_key(), kid=kid, field="jwk").jwk)


def edwards_jwk(kid: str) -> dict[str, Any]:
    return dict(public_key(ed25519.Ed25519PrivateKey.generate().public_key(), kid=kid, field="jwk").jwk)


def manifest(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def conditions(*types: str) -> list[Manifest]:
    return [
        {
            "type": name,
            "status": "True",
            "reason": "Accepted",
            "message": "Every replica has it.",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-31T08:00:00Z",
        }
        for name in types
    ]


def full_clients() -> list[Manifest]:
    """Clients that together use every field of a ClientCredential's spec."""
    keys = [
        {"jwk": {**public_jwk("rsa"), "key_ops": ["verify"], "ext": True}, "kid": "rsa"},
        {"jwk": elliptic_jwk("ec")},
        {"jwk": edwards_jwk("okp"), "notBefore": "2026-01-01T00:00:00Z", "notAfter": "2027-01-01T00:00:00+02:00"},
        {"pem": public_pem(), "kid": "pem"},
    ]
    spec = {
        "clientName": "Büro",
        "description": "Reads orders.\nEvery night.",
        "contacts": ["team@shop.example"],
        "permissions": ["orders:read", "orders:write"],
        "audiences": ["orders", "https://shop.example/api"],
        "allowedCustomClaims": ["tenant"],
        "tokenLifetime": "60s",
        "introspection": "any",
        "suspended": False,
        "expiresAt": "2030-01-01T00:00:00Z",
        "revokeTokensIssuedBefore": "2026-01-01T00:00:00.5Z",
    }
    with_keys = {**spec, "clientId": "full-client", "authMethod": "private_key_jwt", "publicKeys": keys}
    secret = {"secretName": "full-secret", "generate": False}
    with_secret = {**spec, "authMethod": "client_secret_basic", "clientSecret": secret}
    registration = {
        "secretName": "full-registration",
        "clientUri": "https://portal.example/apps/7",
        "softwareId": "4NRB1-0XZABZI9E6-5SM3R",
        "softwareVersion": "2.0 beta",
        "requested": {"permissions": ["orders:read"], "audiences": ["orders"]},
    }
    registered = {**spec, "authMethod": "client_secret_post", "registration": registration}
    overlap = {"rotateEvery": "720h", "keepPrevious": "48h"}
    with_keys |= {"generateKey": {"secretName": "full-key", "size": 3072, **overlap}, "deletionPolicy": "Retain"}
    with_keys |= {"jwksUri": "https://keys.shop.example/jwks.json"}
    generated = {"secretName": "full-generated", "generate": True, **overlap}
    with_generated = {**spec, "authMethod": "client_secret_post", "clientSecret": generated}
    with_account = {**spec, "authMethod": "private_key_jwt", "serviceAccount": {"name": "full-account"}}
    return [
        manifest("ClientCredential", "full", with_keys),
        manifest("ClientCredential", "full-secret", with_secret),
        manifest("ClientCredential", "full-registered", registered),
        manifest("ClientCredential", "full-generated", with_generated),
        manifest("ClientCredential", "full-workload", with_account),
    ]


def full_client_status() -> Manifest:
    stamps = dict.fromkeys(("addedAt", "lastUsedAt", "expiresAt"), "2026-01-31T08:00:00Z")
    history = {**stamps, "hint": "safe to remove: not used since ec came (2026-01-31T08:00:00Z)"}
    key = {
        "kid": "rsa",
        "thumbprint": "jd5SIyU5_-",
        "algorithm": "RS256",
        "size": 2048,
        "source": "publicKeys",
        **history,
    }
    return {
        "observedGeneration": 1,
        "clientId": "full-client",
        "permissions": 2,
        "secretName": "full-secret",
        "keys": [key],
        "secrets": [{"id": "0123456789abcdef", "source": "clientSecret", **history}],
        "lastTokenIssuedAt": "2026-01-31T08:00:00Z",
        "conditions": conditions("Ready"),
    }


def full_signing_key() -> Manifest:
    spec = {
        "algorithm": "RS256",
        "size": 3072,
        "rotateEvery": "720h",
        "publishBefore": "1h",
        "retainAfter": "24h",
        "importFrom": {"secretName": "old-key", "key": "old.pem", "passphraseKey": "passphrase", "kid": "old kid"},
        "deletionPolicy": "Delete",
        "secretName": "full-keyring",
        "revokeTokensIssuedBefore": "2026-01-01T00:00:00Z",
    }
    return manifest("SigningKey", "full", spec)


def full_signing_key_status() -> Manifest:
    times = ("createdAt", "publishedAt", "activatedAt", "retiredAt", "removeAt")
    return {
        "observedGeneration": 1,
        "secretName": "full-keyring",
        "nextRotationAt": "2026-02-28T08:00:00Z",
        "keys": [
            {
                "kid": "2026-01",
                "state": "Active",
                "algorithm": "RS256",
                "size": 3072,
                "imported": True,
                **dict.fromkeys(times, "2026-01-31T08:00:00Z"),
            }
        ],
        "conditions": conditions("Ready"),
    }


def full_rule() -> Manifest:
    permissions = {"anyOf": ["orders:read", "orders:admin"], "allOf": ["login"]}
    spec = {
        "hosts": ["shop.example", "*.shop.example", "[2001:db8::1]"],
        "audiences": ["orders"],
        "mode": "Enforce",
        "routes": [
            {"path": "/", "public": True, "backoffice": {"permissions": permissions}},
            {"path": "/orders/:id", "methods": ["GET", "HEAD"], "permissions": permissions, "public": False},
            {
                "path": "/orders/*",
                "methods": ["ALL"],
                "expression": 'permissions.orders &&\n"ü" in groups',
                "backoffice": {"expression": "isBackoffice", "public": False},
            },
        ],
    }
    return manifest("AccessRule", "full", spec)


def full_rule_status() -> Manifest:
    return {"observedGeneration": 1, "routes": 3, "conditions": conditions("Ready", "Conflicting")}
