"""The list of trusted issuers: what it must say, and what is refused with the place of the mistake."""

from typing import Any

import pytest
import yaml

from keyturn.tokens.issuers import ClaimMapping, InvalidIssuers, TrustedIssuer, parse_issuers
from tests.documents import PROJECT, blocks

OWN = "https://issuer.example"
LEAST = {"issuer": "https://login.example", "audiences": ["orders"], "algorithms": ["RS256"]}


def parse(*issuers: Any) -> tuple[TrustedIssuer, ...]:
    return parse_issuers({"issuers": list(issuers)}, own_issuer=OWN)


def test_the_least_that_an_issuer_needs_maps_nothing_to_permissions_or_groups() -> None:
    (issuer,) = parse(LEAST)
    assert issuer.claims == ClaimMapping(("sub",), None, None, None)
    assert (issuer.token_types, issuer.jwks_uri) == (frozenset({"at+jwt"}), None)
    assert issuer.discovery_url == "https://login.example/.well-known/openid-configuration"


def test_everything_that_can_be_said() -> None:
    whole = {
        **LEAST,
        "jwksUri": "https://keys.example/jwks",
        "tokenTypes": ["JWT", "application/at+jwt"],
        "claims": {
            "userId": "email",
            "groups": ["realm_access", "roles"],
            "permissions": "scope",
            "userProperties": "https://x.example/p",
        },
    }
    assert parse(whole) == (
        TrustedIssuer(
            "https://login.example",
            frozenset({"orders"}),
            frozenset({"RS256"}),
            "https://keys.example/jwks",
            frozenset({"jwt", "at+jwt"}),
            ClaimMapping(("email",), ("realm_access", "roles"), ("scope",), ("https://x.example/p",)),
        ),
    )


def test_no_issuers_is_a_list_too() -> None:
    assert parse() == ()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        pytest.param({"issuer": None}, "issuers[0].issuer", id="no issuer"),
        pytest.param({"issuer": "login.example"}, "issuers[0].issuer", id="no URL"),
        pytest.param({"issuer": "https://u:p@login.example"}, "issuers[0].issuer", id="a password in it"),
        pytest.param({"issuer": OWN}, "issuers[0].issuer", id="our own"),
        pytest.param({"audiences": None}, "issuers[0].audiences", id="no audiences"),
        pytest.param({"audiences": []}, "issuers[0].audiences", id="an empty list of audiences"),
        pytest.param({"audiences": "orders"}, "issuers[0].audiences", id="audiences as a text"),
        pytest.param({"algorithms": None}, "issuers[0].algorithms", id="no algorithms"),
        pytest.param({"algorithms": ["HS256"]}, "issuers[0].algorithms", id="a symmetric algorithm"),
        pytest.param({"algorithms": ["none"]}, "issuers[0].algorithms", id="no algorithm by name"),
        pytest.param({"jwksUri": "http://keys.example"}, "issuers[0].jwksUri", id="keys by http"),
        pytest.param({"jwksUri": 7}, "issuers[0].jwksUri", id="a number"),
        pytest.param({"tokenTypes": []}, "issuers[0].tokenTypes", id="no type at all"),
        pytest.param({"audience": ["x"]}, "issuers[0]: audience", id="a misspelt member"),
        pytest.param({"claims": {"permission": "x"}}, "issuers[0].claims: permission", id="a misspelt claim"),
        pytest.param({"claims": {"groups": []}}, "issuers[0].claims.groups", id="an empty path"),
        pytest.param({"claims": []}, "issuers[0].claims", id="claims as a list"),
    ],
)
def test_a_mistake_is_told_by_its_place(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidIssuers) as error:
        parse({**LEAST, **changes})
    assert str(error.value).startswith(place)
    assert "p@" not in str(error.value)


@pytest.mark.parametrize("document", [None, [], {}, {"issuers": {}}, {"issuers": [], "more": 1}], ids=str)
def test_another_document_is_refused(document: Any) -> None:
    with pytest.raises(InvalidIssuers):
        parse_issuers(document, own_issuer=OWN)


@pytest.mark.parametrize("issuers", [[LEAST, LEAST], ["x"], [LEAST] * 51], ids=["twice", "a text", "too many"])
def test_a_list_that_cannot_be_meant_is_refused(issuers: list[Any]) -> None:
    with pytest.raises(InvalidIssuers):
        parse(*issuers)


def test_http_is_for_issuers_that_are_named_so() -> None:
    (issuer,) = parse({**LEAST, "issuer": "http://127.0.0.1:8080", "jwksUri": "http://127.0.0.1:8080/keys"})
    assert issuer.jwks_uri == "http://127.0.0.1:8080/keys"


def test_the_list_that_the_documentation_shows_is_taken_as_it_stands() -> None:
    shown = [block for block in blocks(PROJECT / "docs" / "access-rules.md") if block.text.startswith("issuers:")]
    (issuer,) = parse_issuers(yaml.safe_load(shown[0].text), own_issuer=OWN)
    assert issuer.claims == ClaimMapping(("sub",), ("realm_access", "roles"), ("scope",), ("profile",))
