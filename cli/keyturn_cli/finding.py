"""What a check of `keyturn doctor` finds, and how it is worded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .facts import Facts


MORE_RIGHTS: Final = "Ask with more rights."


class Outcome(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """`todo` is empty where nothing is to be done."""

    check: str
    outcome: Outcome
    message: str
    todo: str = ""

    def to_body(self) -> dict[str, str]:
        return {"check": self.check, "outcome": str(self.outcome), "message": self.message, "todo": self.todo}


def unknown(facts: Facts, check: str, name: str, else_said: str = "It could not be read.") -> Finding:
    """What could not be read is not in order, nor is it wrong: with the cause under `name`, if there is one."""
    cause = facts.unread.get(name)
    return Finding(check, Outcome.UNKNOWN, cause or else_said, MORE_RIGHTS if cause else "")


def every(facts: Facts) -> Iterable[Mapping[str, Any]]:
    return (*(facts.signing_keys or ()), *(facts.clients or ()), *(facts.rules or ()))


def names(objects: Iterable[Mapping[str, Any]]) -> str:
    return some([f"{one.get('kind', '')} {one['metadata']['name']}" for one in objects])


def some(texts: list[str]) -> str:
    return "; ".join(texts[:5]) + (f"; and {len(texts) - 5} more" if len(texts) > 5 else "")
