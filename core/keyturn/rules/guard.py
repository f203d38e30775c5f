"""A condition made ready to be asked: sets for permissions, a compiled expression at its first use."""

from dataclasses import dataclass
from typing import Final

from keyturn.expressions import Expression, ExpressionError, Subject, compile_expression
from keyturn.rules.state import Condition

MISSING_PERMISSION: Final = "MissingPermission"
EXPRESSION_FALSE: Final = "ExpressionFalse"
ROUTE_CLOSED: Final = "RouteClosed"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a caller does not meet a condition; the description names what is missing, for the log."""

    reason: str
    description: str


class Guard:
    """Tests callers against one condition. The cost does not grow with the caller's permissions."""

    __slots__ = ("_all_of", "_also", "_any_of", "_expression", "condition", "open")

    def __init__(self, condition: Condition) -> None:
        self.condition: Final = condition
        self.open: Final = condition.open
        self._any_of: Final = frozenset(condition.any_of)
        self._all_of: Final = frozenset(condition.all_of)
        self._also: Final = tuple(Guard(other) for other in condition.also)
        self._expression: Expression | None = None

    def failure(self, subject: Subject) -> Failure | None:
        """None if the subject passes."""
        condition = self.condition
        if condition.deny is not None:
            return Failure(ROUTE_CLOSED, f"The route is closed: {condition.deny}")
        for other in self._also:
            if (failure := other.failure(subject)) is not None:
                return failure
        if condition.public:
            return None
        if not self._all_of and not self._any_of and condition.expression is None:
            return Failure(ROUTE_CLOSED, "The route has no condition")
        if not self._all_of <= subject.permissions:
            missing = sorted(self._all_of - subject.permissions)
            return Failure(MISSING_PERMISSION, f"Missing: {', '.join(missing)}")
        if self._any_of and self._any_of.isdisjoint(subject.permissions):
            return Failure(MISSING_PERMISSION, f"Missing, one of: {', '.join(condition.any_of)}")
        return self._expression_failure(subject)

    def _expression_failure(self, subject: Subject) -> Failure | None:
        text = self.condition.expression
        if text is None:
            return None
        if self._expression is None:
            try:
                self._expression = compile_expression(text)
            except ExpressionError as error:
                # The operator checked it; a language that changed since must not open anything.
                return Failure(ROUTE_CLOSED, f"The expression cannot be read: {error}")
        if self._expression.evaluate(subject):
            return None
        return Failure(EXPRESSION_FALSE, "The expression is false for this caller")
