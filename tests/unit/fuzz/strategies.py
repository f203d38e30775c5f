"""What people who try things send: near misses of what is right, and anything else."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# The same examples in every run, and no memory of former ones: a failure is repeated by running the test again.
FUZZED = settings(
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
# For what costs more.
FEWER = settings(FUZZED, max_examples=80)

# Surrogates, which no UTF-8 has, controls, and what is long for its bytes.
TEXT = st.text(st.characters(codec=None), max_size=40)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(2**52, 2**80),
    st.floats(),
    st.sampled_from([0, -1, 1_800_000_000, 1e308, -1e308, 10**400]),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)


def members(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that hold some of these names, with any value."""
    return st.dictionaries(st.one_of(st.sampled_from(names), TEXT), JSON, max_size=6)


def encoded(value: Any) -> bytes:
    """JSON as loose programs write it, NaN and lone surrogates included."""
    return json.dumps(value).encode()


def segment(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def mutations(good: bytes) -> st.SearchStrategy[bytes]:
    """One edit of what is right: a byte changed, a piece taken out, doubled, or something put in."""

    def edited(place: int, length: int, piece: bytes, kind: str) -> bytes:
        at = place % (len(good) + 1)
        if kind == "cut":
            return good[:at] + good[at + length :]
        if kind == "doubled":
            return good[: at + length] + good[at:]
        return good[:at] + piece + good[at + (length if kind == "replaced" else 0) :]

    kinds = st.sampled_from(["cut", "doubled", "replaced", "added"])
    return st.builds(edited, st.integers(0, len(good)), st.integers(1, 30), st.binary(max_size=30), kinds)
