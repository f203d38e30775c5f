"""Cases for `keyturn test`: requests with the decision that is expected of the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .errors import CommandError, Exit
from .explanation import OUTCOMES
from .question import NoRequest, Question, parse_request
from .rule_files import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_CASES: Final = 100_000
EXPECTATIONS: Final = tuple(OUTCOMES.values())

_LISTS: Final = ("permissions", "groups", "audiences")
_FLAGS: Final = ("backoffice", "anonymous")
_MEMBERS: Final = ("name", "request", "clientType", "userProperties", "expect", *_LISTS, *_FLAGS)
_CALLER: Final = ("permissions", "groups", "audiences", "userProperties")


@dataclass(frozen=True, slots=True)
class Case:
    """One case; `number` counts from 1, `request` is as written, `expect` one of EXPECTATIONS."""

    number: int
    name: str
    request: str
    question: Question
    expect: str


class _BadCase(ValueError):
    pass


def read_cases(path: Path) -> list[Case]:
    """Raises CommandError, which names the case, where anything in the file is not understood: a misspelt case tests nothing."""
    listed = read_yaml(path)
    if isinstance(listed, dict) and list(listed) == ["cases"]:
        listed = listed["cases"]
    if not isinstance(listed, list) or not listed or len(listed) > MAX_CASES:
        raise CommandError(
            f"{path} can't be used: it must hold a list of 1 to {MAX_CASES} cases.",
            "See the examples in the documentation of access rules.",
            Exit.USAGE,
        )
    cases: list[Case] = []
    for number, case in enumerate(listed, start=1):
        try:
            cases.append(_case(number, case))
        except _BadCase as error:
            raise CommandError(f"{path}, case {number}: {error}.", "", Exit.USAGE) from None
    return cases


def _case(number: int, case: Any) -> Case:
    if not isinstance(case, dict):
        raise _BadCase("a case is an object with request and expect")
    for member in case:
        if member not in _MEMBERS:
            raise _BadCase(f"{str(member)[:64]!r} is not known; the members are {', '.join(_MEMBERS)}")
    request, expect = case.get("request"), case.get("expect")
    if not isinstance(request, str) or len(request.split()) < 2:
        raise _BadCase('request must be a text such as "GET https://shop.example/orders/7"')
    if not isinstance(expect, str) or expect not in EXPECTATIONS:
        raise _BadCase(f"expect must be one of {', '.join(EXPECTATIONS)}")
    method, url = request.strip().split(maxsplit=1)
    try:
        asked = parse_request(method, url)
    except NoRequest as error:
        raise _BadCase(str(error)) from None
    lists = {name: _texts(case, name) for name in _LISTS}
    flags = {name: _flag(case, name) for name in _FLAGS}
    if flags["anonymous"] and any(case.get(name) for name in _CALLER):
        raise _BadCase("an anonymous caller has no permissions, groups, audiences or userProperties")
    question = Question(
        *asked,
        permissions=frozenset(lists["permissions"]),
        groups=frozenset(lists["groups"]),
        audiences=lists["audiences"],
        client_type=_text(case, "clientType"),
        backoffice=flags["backoffice"],
        anonymous=flags["anonymous"],
        user_properties=_properties(case),
    )
    return Case(number, _text(case, "name"), request, question, expect)


def _texts(case: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = case.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _BadCase(f"{name} must be a list of texts")
    return tuple(value)


def _flag(case: Mapping[str, Any], name: str) -> bool:
    value = case.get(name, False)
    if not isinstance(value, bool):
        raise _BadCase(f"{name} must be true or false")
    return value


def _text(case: Mapping[str, Any], name: str) -> str:
    value = case.get(name, "")
    if not isinstance(value, str):
        raise _BadCase(f"{name} must be a text")
    return value


def _properties(case: Mapping[str, Any]) -> dict[str, Any]:
    value = case.get("userProperties", {})
    if not isinstance(value, dict):
        raise _BadCase("userProperties must be an object")
    return value
