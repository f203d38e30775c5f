"""How a request's path is read: each trick of the corpus, the bounds, and servers that were written apart from the reader."""

import itertools
import posixpath
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyturn.expressions import Subject
from keyturn.rules import decision, paths
from keyturn.rules.decision import Outcome, decide
from keyturn.rules.paths import PathReadings, Refused, readings
from keyturn.rules.table import RouteTable
from tests.unit.rules import corpus

TABLE = RouteTable.build([("shop/corpus", corpus.RULE)])
PERMITTED = Subject(permissions=frozenset({"secret"}))
NAMES = {
    Outcome.ALLOW: "allow",
    Outcome.UNAUTHENTICATED: "login",
    Outcome.FORBIDDEN: "denied",
    Outcome.UNKNOWN_ROUTE: "denied",
}


@pytest.mark.parametrize("line", [pytest.param(line, id=line.text) for line in corpus.lines()])
def test_the_strictest_reading_decides(line: corpus.Line) -> None:
    came_to = [
        NAMES[decide(TABLE, method="GET", target=line.target, host="shop.example", subject=subject).outcome]
        for subject in (None, PERMITTED)
    ]
    assert came_to == [line.anonymous, line.permitted]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(b"/a/b", {("a", "b")}, id="a plain path"),
        pytest.param(b"/a/b/?q=/../x", {("a", "b")}, id="the query is not part of it"),
        pytest.param(b"/", {()}, id="the root"),
        pytest.param(b"/%61/%2D", {("a", "-")}, id="unreserved characters decoded"),
        pytest.param(b"/a%20b", {("a b",)}, id="a harmless escape decoded"),
        pytest.param(b"/a%2Fb", {("a/b",), ("a", "b")}, id="an encoded slash is a separator or a letter"),
        pytest.param(b"/a\\b", {("a\\b",), ("a", "b")}, id="a backslash is a separator or a letter"),
        pytest.param(b"/a;x/b", {("a;x", "b"), ("a", "b")}, id="parameters kept or cut"),
        pytest.param(b"/a/../b", {("a", "..", "b"), ("b",)}, id="dots kept or removed"),
        pytest.param(b"/a//../b", {("a", "..", "b"), ("a", "b"), ("b",)}, id="an empty segment counts for dots or not"),
        pytest.param(b"/%2561", {("%61",), ("a",)}, id="decoded once or twice"),
        pytest.param(b"/a%3Fb", {("a?b",), ("a",)}, id="an encoded question mark cuts or not"),
        pytest.param(
            b"/a%2Fb%2561",
            {("a/b%61",), ("a", "b%61"), ("a/ba",), ("a", "ba")},
            id="an encoded slash separates before the rest is decoded again",
        ),
        pytest.param(
            b"/a%5Cb%2561",
            {("a\\b%61",), ("a", "b%61"), ("a\\ba",), ("a", "ba")},
            id="so does an encoded backslash",
        ),
        pytest.param(
            b"/a%3Bx/%2561",
            {("a;x", "%61"), ("a", "%61"), ("a;x", "a"), ("a", "a")},
            id="and parameters are cut before it",
        ),
        pytest.param(b"/50%25", {("50%",)}, id="a percent sign that begins nothing"),
    ],
)
def test_an_unclear_path_has_every_reading(target: bytes, expected: set[tuple[str, ...]]) -> None:
    read = readings(target)
    assert isinstance(read, PathReadings)
    assert (set(read.readings), len(read.readings)) == (expected, len(expected))


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"?x", id="a query only"),
        pytest.param(b"/" + b"a" * paths.MAX_TARGET_LENGTH, id="too long"),
        pytest.param(b"/.." * (paths.MAX_UNCLEAR_SEGMENTS + 1), id="unclear and many segments"),
        pytest.param(b"/;" + b"a" * paths.MAX_UNCLEAR_LENGTH, id="unclear and long"),
        pytest.param(b"/..;%2f..%5c%252f//%3f;\\../%25252e" * 3, id="too many readings"),
    ],
)
def test_what_is_too_much_or_nothing_is_refused(target: bytes) -> None:
    assert isinstance(readings(target), Refused)
    decided = decide(TABLE, method="GET", target=target, host=None, subject=PERMITTED)
    assert (decided.outcome, decided.reason) == (Outcome.FORBIDDEN, decision.PATH_REFUSED)


def test_a_plain_path_may_be_as_long_as_a_target() -> None:
    read = readings(b"/a" * (paths.MAX_TARGET_LENGTH // 2))
    assert isinstance(read, PathReadings)
    assert len(read.readings) == 1


def test_an_absolute_target_gives_the_host() -> None:
    assert readings(b"http://shop.example:8080/a") == PathReadings((("a",),), "shop.example:8080")


def server(
    raw: bytes, *, decodings: int, dots_first: bool, backslash: bool, parameters: bool, dots: bool
) -> str | None:
    """The path that one imagined server serves, with the standard library's own tools; None where it refuses."""
    text = raw.partition(b"?")[0]
    if dots_first:
        text = normalized(text)
    for _ in range(decodings):
        text = unquote_to_bytes(text)
    if backslash:
        text = text.replace(b"\\", b"/")
    if not parameters:
        text = b"/".join(segment.partition(b";")[0] for segment in text.split(b"/"))
    if dots:
        text = normalized(text)
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def normalized(path: bytes) -> bytes:
    return b"/" + posixpath.normpath(path).lstrip(b"/")


def naive(path: str) -> str:
    """The longest prefix among the corpus's paths decides."""
    merged = "/".join(["", *filter(None, path.split("/"))]) + "/"
    for prefix, answer in (("/api/public/", "allow"), ("/api/", "login"), ("/private/", "login"), ("/info/", "allow")):
        if merged.startswith(prefix):
            return answer
    return "denied"


PIECES = (
    *(
        b"/",
        b"//",
        b"info",
        b"private",
        b"api",
        b"public",
        b"x",
        b".",
        b"..",
        b"/..",
        b"/../",
        b"%2e",
        b"%2E%2e",
        b"%252e",
    ),
    *(b"%2f", b"%2F", b"%252f", b"\\", b"%5c", b"%255C", b";", b";v=1", b"%3b", b"%253b", b"%3f", b"?", b"%25", b"%69"),
)
SERVERS = [
    dict(zip(("dots_first", "backslash", "parameters", "dots"), choices, strict=True))
    for choices in itertools.product((False, True), repeat=4)
]
STRICTNESS = {"allow": 0, "login": 1, "denied": 2}


@given(
    st.sampled_from([b"/", b"/info/", b"/private/", b"/api/"]),
    st.lists(st.sampled_from(PIECES), max_size=9).map(b"".join),
)
@example(b"/info/", b"x%2f..%2f..%2fprivate")
@example(b"/api/", b"public/..%5c..%252fprivate")
def test_no_server_would_serve_more_than_what_was_decided(start: bytes, rest: bytes) -> None:
    target = start + rest
    decided = NAMES[decide(TABLE, method="GET", target=target, host="shop.example").outcome]
    for choices in SERVERS:
        for decodings in (1, 2, 3):
            path = server(target, decodings=decodings, **choices)
            if path is not None:
                assert STRICTNESS[naive(path)] <= STRICTNESS[decided], (choices, decodings, path)


@given(st.binary(max_size=60).map(lambda rest: b"/" + rest))
def test_any_bytes_are_read_or_refused(target: bytes) -> None:
    read = readings(target)
    assert isinstance(read, Refused) or 1 <= len(read.readings) <= paths.MAX_READINGS
