"""Which clients a filter means, and the page that is shown."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn_cli.console.clients import PAGE_SIZE, Query, Row, holders_of, page_of, query_of, row_of

from .api_server import NOW, client, ready, registered


def rows() -> list[Row]:
    used = {"conditions": [ready()], "lastTokenIssuedAt": "2027-01-15T00:00:00Z"}
    soon = {**used, "keys": [{"kid": "a", "expiresAt": "2027-01-20T00:00:00Z"}]}
    old = {"conditions": [ready()], "lastTokenIssuedAt": "2026-11-01T00:00:00Z"}
    made = [
        client("used", "a", "b", status=used, clientName="Zebra"),
        client("soon", "a", status=soon, contacts=["ops@shop.example"]),
        client("old", status=old),
        client("stopped", status=used, suspended=True),
        registered("waiting", "a"),
    ]
    return [row_of(one) for one in made]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        pytest.param(Query(), ["used", "soon", "old", "stopped", "waiting"], id="all"),
        pytest.param(Query("waiting"), ["waiting"], id="waiting for approval"),
        pytest.param(Query("suspended"), ["stopped"], id="suspended"),
        pytest.param(Query("expiring"), ["soon"], id="keys expiring"),
        pytest.param(Query("unused"), ["old", "waiting"], id="unused for 30 days, or never used and as old"),
        pytest.param(Query(text="zEBRA"), ["used"], id="by its name for people"),
        pytest.param(Query(text="shop.old"), ["old"], id="by its client id"),
        pytest.param(Query(text="ops@"), ["soon"], id="by its contact"),
        pytest.param(Query("suspended", text="zebra"), [], id="a filter and a search"),
        pytest.param(Query(permission="a"), ["used", "soon"], id="by what is granted, not by what is asked for"),
        pytest.param(Query(page=99), ["used", "soon", "old", "stopped", "waiting"], id="a page that is not there"),
    ],
)
def test_a_question_means_these_clients(query: Query, names: list[str]) -> None:
    page = page_of(rows(), query, NOW)
    assert [row.client.name for row in page.rows] == names
    assert page.total == len(names)
    assert page.counts == {"all": 5, "waiting": 1, "suspended": 1, "expiring": 1, "unused": 2}


def test_pages_follow_one_another_without_a_gap() -> None:
    many = [row_of(client(f"c-{number:03}")) for number in range(2 * PAGE_SIZE + 1)]
    pages = [page_of(many, Query(page=number), NOW) for number in (1, 2, 3)]
    assert [row.client.name for page in pages for row in page.rows] == [row.client.name for row in many]
    assert {page.pages for page in pages} == {3}


@pytest.mark.parametrize(
    ("parameters", "query"),
    [
        ({}, Query()),
        ({"show": "suspended", "q": " a ", "page": "2"}, Query("suspended", "a", "", 2)),
        ({"show": "everything", "page": "-1"}, Query()),
        ({"page": "٣"}, Query()),
        ({"page": "9" * 400}, Query()),
        ({"q": "x" * 999}, Query(text="x" * 200)),
    ],
)
def test_an_address_is_read_generously(parameters: dict[str, str], query: Query) -> None:
    assert query_of(parameters) == query


def test_a_row_keeps_no_more_than_the_list_shows() -> None:
    huge: dict[str, Any] = client("huge", description="d" * 512, publicKeys=[{"pem": "p" * 4000}])
    row = row_of(huge)
    assert "dddd" not in repr(row)
    assert "pppp" not in repr(row)


def test_malformed_objects_are_rows_all_the_same() -> None:
    broken: list[dict[str, Any]] = [
        {},
        {"metadata": None, "spec": None},
        {"metadata": {"name": "x"}, "spec": {"permissions": 3}, "status": {"keys": [None], "conditions": "?"}},
    ]
    assert page_of([row_of(one) for one in broken], Query(), NOW).total == 3


def test_holders_are_found_by_permission() -> None:
    assert holders_of(rows()) == {"a": ["used", "soon"], "b": ["used"]}
