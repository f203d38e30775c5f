"""What a spec names as the sources of its keys and secret, and what is wrong with that."""

from typing import Any

import pytest

from keyturn import reasons
from keyturn.clients.sources import CredentialKind, GenerateSpec, SecretRef, Sources, read_sources, uri_fault

BASIC = {"authMethod": "client_secret_basic"}
DAY = 24 * 3600


def key(**members: Any) -> dict[str, Any]:
    return {"generateKey": {"secretName": "k", **members}}


def secret(**members: Any) -> dict[str, Any]:
    return {**BASIC, "clientSecret": {"secretName": "s", **members}}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        pytest.param({}, Sources(), id="nothing"),
        pytest.param(key(), Sources(generate=GenerateSpec(CredentialKind.KEY, "k", DAY), fills="k"), id="a key"),
        pytest.param(
            key(size=4096, rotateEvery="720h", keepPrevious="1h"),
            Sources(generate=GenerateSpec(CredentialKind.KEY, "k", 3600, 720 * 3600, 4096), fills="k"),
            id="a key with everything",
        ),
        pytest.param(
            key(rotateEvery="10m"),
            Sources(generate=GenerateSpec(CredentialKind.KEY, "k", 600, 600), fills="k"),
            id="an overlap that is no longer than the interval by itself",
        ),
        pytest.param(
            key(rotateEvery="10s", keepPrevious="1m"),
            Sources(generate=GenerateSpec(CredentialKind.KEY, "k", 60, 10), fills="k"),
            id="an overlap that is longer than the interval on demand",
        ),
        pytest.param(
            key(keepPrevious="0s"),
            Sources(generate=GenerateSpec(CredentialKind.KEY, "k", 0), fills="k"),
            id="no overlap",
        ),
        pytest.param(
            secret(), Sources(generate=GenerateSpec(CredentialKind.SECRET, "s", DAY), fills="s"), id="a secret"
        ),
        pytest.param(
            {**secret(generate=True), "authMethod": "client_secret_post"},
            Sources(generate=GenerateSpec(CredentialKind.SECRET, "s", DAY), fills="s"),
            id="a secret for the body, expressly generated",
        ),
        pytest.param(secret(generate=False), Sources(provided=SecretRef("s")), id="a provided secret"),
        pytest.param({"jwksUri": "https://a.example/k"}, Sources(jwks_uri="https://a.example/k"), id="a URL"),
        pytest.param({"deletionPolicy": "Retain"}, Sources(retain=True), id="to be retained"),
        pytest.param({"deletionPolicy": "Delete"}, Sources(), id="to be deleted"),
    ],
)
def test_a_spec_names_its_sources(spec: dict[str, Any], wanted: Sources) -> None:
    assert read_sources(spec) == (wanted, [])


@pytest.mark.parametrize(
    ("spec", "field", "wanted"),
    [
        pytest.param({"generateKey": "k"}, "generateKey", Sources(), id="a key that is a text"),
        pytest.param({"generateKey": {}}, "generateKey.secretName", Sources(), id="a key without a Secret"),
        pytest.param(key(size=1024), "generateKey.size", Sources(fills="k"), id="a weak key"),
        pytest.param(key(size=True), "generateKey.size", Sources(fills="k"), id="a size that is a boolean"),
        pytest.param(key(rotateEvery="1d"), "generateKey.rotateEvery", Sources(fills="k"), id="an interval in days"),
        pytest.param(key(rotateEvery="0s"), "generateKey.rotateEvery", Sources(fills="k"), id="an interval of nothing"),
        pytest.param(key(keepPrevious=5), "generateKey.keepPrevious", Sources(fills="k"), id="an overlap in digits"),
        pytest.param(secret(generate="no"), "clientSecret.generate", Sources(), id="generate as a text"),
        pytest.param(
            secret(generate=False, rotateEvery="1h"),
            "clientSecret.rotateEvery",
            Sources(provided=SecretRef("s")),
            id="a schedule for what others provide",
        ),
        pytest.param({"jwksUri": "http://a.example"}, "jwksUri", Sources(), id="a URL without TLS"),
        pytest.param({"deletionPolicy": "Keep"}, "deletionPolicy", Sources(retain=True), id="an unknown policy"),
        pytest.param({**BASIC, "jwksUri": "https://a.example"}, "jwksUri", Sources(), id="a URL beside a secret"),
        pytest.param({**BASIC, **key()}, "generateKey", Sources(), id="a key beside a secret"),
        pytest.param(
            {"clientSecret": {"secretName": "s"}}, "clientSecret", Sources(), id="a secret for a client with keys"
        ),
    ],
)
def test_a_mistake_is_told_with_its_field_and_names_no_source(
    spec: dict[str, Any], field: str, wanted: Sources
) -> None:
    sources, problems = read_sources(spec)
    assert sources == wanted
    assert [(one.reason, one.field) for one in problems] == [(reasons.INVALID_SPEC, f"spec.{field}")]


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("http://keys.example/", id="no TLS"),
        pytest.param("HTTPS:keys.example", id="no host"),
        pytest.param("https:///keys", id="an empty host"),
        pytest.param("https://keys.example:8443/", id="another port"),
        pytest.param("https://keys.example:99999/", id="a port that is none"),
        pytest.param("https://user@keys.example/", id="a user"),
        pytest.param("https://user:password@keys.example/", id="a password"),
        pytest.param("https://keys.example/#a", id="a fragment"),
        pytest.param("https://keys.example/#", id="an empty fragment"),
        pytest.param("https://keys.example/a b", id="a space"),
        pytest.param("https://keys.example/\n", id="a line break"),
        pytest.param("https://keys.example\\@inside/", id="a backslash"),
        pytest.param("https://ключи.example/", id="another script"),
        pytest.param("https://[::1/", id="a broken address"),
        pytest.param("https://keys.example/" + "a" * 1024, id="too long"),
        pytest.param("", id="nothing"),
        pytest.param(7, id="a number"),
    ],
)
def test_keys_are_never_fetched_from(uri: object) -> None:
    assert uri_fault(uri)


@pytest.mark.parametrize(
    "uri", ["https://keys.example/jwks.json", "https://keys.example:443/?a=b", "https://[2001:db8::1]/"]
)
def test_keys_may_be_fetched_from(uri: str) -> None:
    assert uri_fault(uri) is None
