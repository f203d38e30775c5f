"""Keys that a client publishes: read one by one, and a copy that ends by itself."""

import dataclasses
import json
from typing import Any

import pytest

from keyturn import reasons
from keyturn.clients.fetched import COPY_COUNTS, RENEW_AT, copy_fetched_at, fetched_keys, read_jwk_set
from keyturn.clients.state import SOURCE_JWKS_URI, ClientState
from tests.manifests import elliptic_jwk, private_jwk_members, public_jwk

URI = "https://keys.example/jwks.json"
NOW = 1_800_000_000.0


EC = {kid: elliptic_jwk(kid) for kid in ("a", "b")}


def document(*keys: Any, **members: Any) -> bytes:
    return json.dumps({"keys": list(keys), **members}).encode()


def last(*keys: Any, at: float = NOW, uri: str = URI) -> ClientState:
    fetched = read_jwk_set(document(*keys), uri=uri, fetched_at=at)
    return ClientState(client_id="shop.a", created_at=0.0, keys=fetched.keys, jwks_uri=uri)


def test_the_keys_of_a_document_count_for_a_day_from_when_it_was_fetched() -> None:
    fetched = read_jwk_set(document(public_jwk("a"), elliptic_jwk("b")), uri=URI, fetched_at=NOW)
    assert [(key.kid, key.source, key.not_after) for key in fetched.keys] == [
        ("a", SOURCE_JWKS_URI, NOW + COPY_COUNTS),
        ("b", SOURCE_JWKS_URI, NOW + COPY_COUNTS),
    ]
    assert fetched.problems == ()
    assert copy_fetched_at(fetched.keys) == NOW


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param({**public_jwk("bad"), **private_jwk_members()}, reasons.PRIVATE_KEY, id="private material"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, reasons.PRIVATE_KEY, id="a symmetric key"),
        pytest.param(
            {"use": "enc", **public_jwk("bad"), **private_jwk_members()},
            reasons.PRIVATE_KEY,
            id="private material in a key for encryption",
        ),
        pytest.param({**public_jwk("bad"), "n": "AQAB"}, reasons.WEAK_KEY, id="a weak key"),
        pytest.param({**public_jwk("bad"), "e": "Aw"}, reasons.WEAK_KEY, id="a tiny exponent"),
        pytest.param({**public_jwk("bad"), "x5u": "https://a"}, reasons.INVALID_KEY, id="a reference"),
        pytest.param({**public_jwk("bad"), "alg": "HS256"}, reasons.INVALID_KEY, id="a symmetric algorithm"),
        pytest.param({**public_jwk("bad"), "kid": "k" * 129}, reasons.INVALID_KEY, id="a long kid"),
        pytest.param({**public_jwk("bad"), "kid": 'a"b'}, reasons.INVALID_KEY, id="a quotation mark in the kid"),
        pytest.param("text", reasons.INVALID_KEY, id="no object"),
        pytest.param(None, reasons.INVALID_KEY, id="null"),
    ],
)
def test_one_bad_key_is_told_of_and_hides_no_other(bad: Any, reason: str) -> None:
    fetched = read_jwk_set(document(bad, elliptic_jwk("good")), uri=URI, fetched_at=NOW)
    assert [key.kid for key in fetched.keys] == ["good"]
    (problem,) = fetched.problems
    assert (problem.reason, "keys[0]" in problem.field) == (reason, True)
    assert not any(value in str(problem) for value in private_jwk_members().values())


def test_a_key_for_encryption_is_passed_over() -> None:
    fetched = read_jwk_set(document({**public_jwk("enc"), "use": "enc"}, elliptic_jwk("a")), uri=URI, fetched_at=NOW)
    assert ([key.kid for key in fetched.keys], fetched.problems) == (["a"], ())


def test_keys_that_share_a_kid_do_not_count() -> None:
    fetched = read_jwk_set(document(public_jwk("a"), elliptic_jwk("a"), elliptic_jwk("b")), uri=URI, fetched_at=NOW)
    assert [key.kid for key in fetched.keys] == ["b"]
    assert [one.reason for one in fetched.problems] == [reasons.DUPLICATE_KID]


def test_only_the_first_ten_keys_are_read() -> None:
    keys = [elliptic_jwk(f"k{n}") for n in range(12)]
    fetched = read_jwk_set(document(*keys), uri=URI, fetched_at=NOW)
    assert len(fetched.keys) == 10
    assert "12" in fetched.problems[0].message


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no keys"),
        pytest.param(b'{"keys": {}}', id="keys that are no list"),
        pytest.param(b'{"keys": [], "keys": []}', id="keys twice"),
        pytest.param(b'{"keys": ' + b"[" * 5000, id="too deep"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
    ],
)
def test_what_is_no_jwk_set_is_refused_without_being_quoted(given: bytes) -> None:
    with pytest.raises(ValueError, match="the answer is no") as refused:
        read_jwk_set(given, uri=URI, fetched_at=NOW)
    assert refused.value.__cause__ is None


def test_without_a_newer_document_the_last_copy_counts_until_it_ends() -> None:
    before = last(EC["a"])
    kept = fetched_keys(None, before, URI, may_add=True, now=NOW + COPY_COUNTS - 1)
    assert kept == before.keys
    assert fetched_keys(None, before, URI, may_add=True, now=NOW + COPY_COUNTS) == ()


def test_a_copy_of_another_url_does_not_count() -> None:
    assert fetched_keys(None, last(EC["a"]), "https://other.example/", may_add=True, now=NOW) == ()


@pytest.mark.parametrize(
    ("later", "end"),
    [
        pytest.param(900.0, NOW + COPY_COUNTS, id="the same keys soon after change nothing"),
        pytest.param(COPY_COUNTS - RENEW_AT, NOW + COPY_COUNTS - RENEW_AT + COPY_COUNTS, id="an hour later they do"),
    ],
)
def test_fetching_the_same_again_changes_the_row_once_an_hour(later: float, end: float) -> None:
    before = last(EC["a"])
    again = read_jwk_set(document(EC["a"]), uri=URI, fetched_at=NOW + later)
    (key,) = fetched_keys(again, before, URI, may_add=True, now=NOW + later)
    assert key.not_after == end


def test_a_changed_document_replaces_the_copy_and_keys_that_stay_keep_their_age() -> None:
    before = last(EC["a"], EC["b"])
    before = dataclasses.replace(before, keys=tuple(dataclasses.replace(key, added_at=1.0) for key in before.keys))
    again = read_jwk_set(document(EC["b"], public_jwk("c")), uri=URI, fetched_at=NOW + 60)
    keys = fetched_keys(again, before, URI, may_add=True, now=NOW + 60)
    assert [(key.kid, key.added_at) for key in keys] == [("b", 1.0), ("c", None)]


def test_in_an_edit_with_a_mistake_nothing_is_added_and_what_was_withdrawn_goes() -> None:
    before = last(EC["a"], EC["b"])
    again = read_jwk_set(document(EC["b"], public_jwk("c")), uri=URI, fetched_at=NOW + 60)
    assert [key.kid for key in fetched_keys(again, before, URI, may_add=False, now=NOW + 60)] == ["b"]
