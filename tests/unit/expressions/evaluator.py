"""A second evaluator of the expression language, by recursive descent, written apart from the compiler to be held against it."""

import re
from typing import Any

from keyturn.expressions import Subject

TOKENS = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|(&&|\|\||==|!=|[!()\[\],.])|([A-Za-z_][\w-]*))')


def evaluate(text: str, subject: Subject) -> bool:
    """The value of an expression that is known to be valid."""
    return bool(Descent(text, subject).run())


class Descent:
    def __init__(self, text: str, subject: Subject) -> None:
        self.tokens: list[str] = [next(filter(None, groups)) for groups in TOKENS.findall(text)]
        self.subject = subject

    def run(self) -> Any:
        value = self.disjunction()
        assert not self.tokens, self.tokens
        return value

    def take(self, token: str) -> bool:
        if self.tokens and self.tokens[0] == token:
            self.tokens.pop(0)
            return True
        return False

    def disjunction(self) -> Any:
        value = self.conjunction()
        while self.take("||"):
            right = self.conjunction()
            value = bool(value) or bool(right)
        return value

    def conjunction(self) -> Any:
        value = self.comparison()
        while self.take("&&"):
            right = self.comparison()
            value = bool(value) and bool(right)
        return value

    def comparison(self) -> Any:
        value = self.negation()
        while self.tokens and self.tokens[0] in ("==", "!="):
            operator = self.tokens.pop(0)
            right = self.negation()
            equal = value is not None and type(value) is type(right) and value == right
            value = equal if operator == "==" else not equal
        return value

    def negation(self) -> Any:
        if self.take("!"):
            return not self.negation()
        return self.operand()

    def operand(self) -> Any:
        if self.take("("):
            value = self.disjunction()
            assert self.take(")")
            return value
        if self.take("["):
            names = []
            while not self.take("]"):
                names.append(self.text())
                self.take(",")
            assert self.take("in")
            held = self.collection(self.tokens.pop(0))
            return any(name in held for name in names)
        if self.tokens[0].startswith('"'):
            text = self.text()
            if self.take("in"):
                return text in self.collection(self.tokens.pop(0))
            return text
        return self.name(self.tokens.pop(0))

    def name(self, name: str) -> Any:
        path = []
        while True:
            if self.take("."):
                path.append(self.tokens.pop(0))
            elif self.take("["):
                path.append(self.text())
                assert self.take("]")
            else:
                break
        match name:
            case "true" | "false":
                return name == "true"
            case "isBackoffice":
                return self.subject.is_backoffice
            case "clientType":
                return self.subject.client_type
            case "userProperties":
                value: Any = self.subject.user_properties
                for member in path:
                    value = value.get(member) if isinstance(value, dict) else None
                return value
        return path[0] in self.collection(name)

    def collection(self, name: str) -> frozenset[str]:
        return {"permissions": self.subject.permissions, "groups": self.subject.groups}[name]

    def text(self) -> str:
        return self.tokens.pop(0)[1:-1].replace('\\"', '"').replace("\\\\", "\\")
