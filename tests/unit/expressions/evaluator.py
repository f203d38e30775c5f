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


class Bad(Exception):
    """The text is no expression, or means nothing."""


TRUTH, TEXT, CONSTANT, ANY = "truth", "text", "constant text", "any"
WORDS = re.compile(
    r'[ \t\r\n]*(?:("(?:[^"\\\x00-\x1f\x7f]|\\["\\])*")|(&&|\|\||==|!=|[!()\[\],])|(\.\s*[A-Za-z_][\w-]*)|([A-Za-z_]\w*))'
)


def is_expression(text: str) -> bool:
    """Whether a text means something; by its own reading of the language, for texts within its bounds."""
    try:
        Checker(text).run()
    except Bad:
        return False
    return True


class Checker:
    def __init__(self, text: str) -> None:
        self.words: list[str] = []
        rest = text.rstrip(" \t\r\n")
        at = 0
        while at < len(rest):
            found = WORDS.match(rest, at)
            if found is None:
                raise Bad
            self.words.append(found.group().strip(" \t\r\n"))
            at = found.end()

    def run(self) -> None:
        self.condition(self.either())
        if self.words:
            raise Bad

    def word(self) -> str:
        return self.words[0] if self.words else ""

    def take(self, *wanted: str) -> bool:
        if self.word() in wanted and self.words:
            self.words.pop(0)
            return True
        return False

    @staticmethod
    def condition(kind: str) -> str:
        if kind == CONSTANT:
            raise Bad
        return TRUTH

    def joined(self, operator: str, part: Any) -> str:
        kind: str = part()
        while self.take(operator):
            self.condition(kind)
            kind = self.condition(part())
        return kind

    def either(self) -> str:
        return self.joined("||", self.both)

    def both(self) -> str:
        return self.joined("&&", self.compared)

    def compared(self) -> str:
        left = self.negated()
        while self.take("==", "!="):
            right = self.negated()
            sides = {"text" if kind == CONSTANT else kind for kind in (left, right)} - {ANY}
            if len(sides) > 1:
                raise Bad
            left = TRUTH
        return left

    def negated(self) -> str:
        if self.take("!"):
            return self.condition(self.negated())
        return self.operand()

    def operand(self) -> str:
        if self.take("("):
            kind = self.either()
            if not self.take(")"):
                raise Bad
            return kind
        if self.take("["):
            self.text()
            while self.take(","):
                self.text()
            if not self.take("]") or self.word() != "in":
                raise Bad
            return self.membership()
        if self.word().startswith('"'):
            self.words.pop(0)
            return self.membership() if self.word() == "in" else CONSTANT
        return self.named()

    def membership(self) -> str:
        self.words.pop(0)
        if not self.take("permissions", "groups"):
            raise Bad
        return TRUTH

    def named(self) -> str:
        kinds = {"true": TRUTH, "false": TRUTH, "isBackoffice": TRUTH, "clientType": TEXT}
        name = self.word()
        if name not in (*kinds, "permissions", "groups", "userProperties"):
            raise Bad
        self.words.pop(0)
        members = 0
        while self.words and (self.word().startswith(".") or self.word() == "["):
            if self.take("["):
                self.text()
                if not self.take("]"):
                    raise Bad
            else:
                self.words.pop(0)
            members += 1
        if name in kinds:
            if members:
                raise Bad
            return kinds[name]
        if name == "userProperties" and members:
            return ANY
        if name != "userProperties" and members == 1:
            return TRUTH
        raise Bad

    def text(self) -> None:
        if not self.word().startswith('"'):
            raise Bad
        self.words.pop(0)
