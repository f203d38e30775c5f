"""Path tricks with the decision that each must get, for the table and for every gateway in front of it."""

import ast
from dataclasses import dataclass
from pathlib import Path

from keyturn.rules.state import Condition, RouteState, RuleState

PUBLIC = Condition(public=True)
SECRET = Condition(all_of=("secret",))
RULE = RuleState(
    routes=tuple(
        RouteState(path, ("ALL",), condition)
        for path, condition in (("/info", PUBLIC), ("/private", SECRET), ("/api", SECRET), ("/api/public", PUBLIC))
    )
)


@dataclass(frozen=True)
class Line:
    """A target and what it comes to: `allow`, `login` or `denied`."""

    text: str
    target: bytes
    anonymous: str
    permitted: str


def lines() -> list[Line]:
    """Every line of the corpus."""
    found = []
    for line in Path(__file__).with_name("paths.txt").read_text(encoding="ascii").splitlines():
        if line and not line.startswith("# "):
            text, anonymous, permitted = line.split()
            found.append(Line(text, ast.literal_eval(f'b"{text}"'), anonymous, permitted))
    return found
