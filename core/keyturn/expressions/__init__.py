"""The language in which a route says who may pass: parsed, checked, and compiled to closures; nothing is ever evaluated as code.

    permissions.read && (groups["ops team"] || ["a:b", "c:d"] in permissions) && clientType != "bot"

- `groups.x`, `groups["x"]`, `"x" in groups`, `["x", "y"] in groups` (any of them), and the same with `permissions`;
- `clientType`, `isBackoffice`, `userProperties.a.b` (also `userProperties["a"]`), `"text"`, `true`, `false`;
- `==` and `!=` between texts, truth values and user properties; `!`, `&&`, `||`, parentheses.

`!` binds tightest, then `==` and `!=`, then `&&`, then `||`; an `in` test is one operand (`!"x" in groups` negates the test).
"""

from keyturn.expressions.compiler import Expression, compile_expression
from keyturn.expressions.errors import ExpressionError
from keyturn.expressions.subject import Subject

__all__ = ["Expression", "ExpressionError", "Subject", "compile_expression"]
