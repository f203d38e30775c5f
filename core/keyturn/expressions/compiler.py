"""From an expression's text to a closure over a subject."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from keyturn.expressions.errors import ExpressionError
from keyturn.expressions.subject import Subject

MAX_LENGTH: Final = 2048
MAX_DEPTH: Final = 32

_GRAMMAR: Final = resources.files("keyturn.expressions").joinpath("grammar.lark").read_text(encoding="utf-8")
_PARSER: Final = Lark(_GRAMMAR, parser="lalr", lexer="basic", propagate_positions=True, maybe_placeholders=False)
_SETS: Final = ("permissions", "groups")
_PLAIN: Final = ("clientType", "isBackoffice", "true", "false")
_NAMES: Final = "permissions, groups, clientType, isBackoffice, userProperties, true, false"


class _Type(Enum):
    TRUTH = auto()
    TEXT = auto()
    ANY = auto()  # a user property: known at the request only


@dataclass(frozen=True, slots=True)
class _Operand:
    """A compiled part: what it is, how to get its value, and where it begins (a 1-based column)."""

    kind: _Type
    value: Callable[[Subject], Any]
    position: int
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """One elementary test of an expression, for telling people what each came to."""

    text: str
    position: int
    test: Callable[[Subject], bool] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. Equal texts compile to equal expressions."""

    text: str
    terms: tuple[Term, ...] = field(repr=False, compare=False)
    _test: Callable[[Subject], bool] = field(repr=False, compare=False)

    def evaluate(self, subject: Subject) -> bool:
        """Whether the subject passes; it never raises, whatever the user properties hold."""
        return self._test(subject)


def compile_expression(text: str) -> Expression:
    """Parse, check and compile; raises ExpressionError with the 1-based column of the mistake."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"An expression has at most {MAX_LENGTH} characters", MAX_LENGTH + 1)
    if not text.strip():
        raise ExpressionError("The expression is empty", 1)
    return _compile(text)


@lru_cache(maxsize=1024)
def _compile(text: str) -> Expression:
    tree = _parse(text)
    compiler = _Compiler(text)
    test = compiler.truth(compiler.operand(tree))
    return Expression(text, tuple(compiler.terms), test)


def _parse(text: str) -> Tree[Token]:
    try:
        _check_depth(text)
        tree = _PARSER.parse(text)
    except UnexpectedInput as error:
        raise _readable(error, text) from None
    return tree


def _readable(error: UnexpectedInput, text: str) -> ExpressionError:
    """The parser's complaint in our own words: its own lists the grammar's token names."""
    if isinstance(error, UnexpectedToken):
        token = error.token
        if token.type == "$END":
            return ExpressionError("The expression ends too early", len(text) + 1)
        return ExpressionError(f"Unexpected {token.value}", _start(token))
    at: int = getattr(error, "pos_in_stream", None) or 0
    unfinished = isinstance(error, UnexpectedCharacters) and text[at] == '"'
    return ExpressionError(
        "A text that does not end, or holds a bad escape" if unfinished else "An unexpected character", at + 1
    )


def _check_depth(text: str) -> None:
    """Bounds nesting before the parser builds anything: the tree is walked, and later run, by recursion."""
    open_levels: list[int] = []
    depth = negations = 0
    for token in _PARSER.lex(text):
        if token.type == "NOT":
            negations += 1
        elif token.value == "(":
            open_levels.append(negations + 1)
            depth += negations + 1
            negations = 0
        else:
            if token.value == ")" and open_levels:
                depth -= open_levels.pop()
            negations = 0
        if depth + negations > MAX_DEPTH:
            raise ExpressionError(f"An expression nests at most {MAX_DEPTH} levels deep", (token.start_pos or 0) + 1)


class _Compiler:
    """Walks the tree once, checks what each part means, and builds the closures."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.terms: list[Term] = []

    def operand(self, tree: Tree[Token]) -> _Operand:
        handler: Callable[[Tree[Token]], _Operand] = getattr(self, f"_{tree.data}")
        return handler(tree)

    def truth(self, part: _Operand) -> Callable[[Subject], bool]:
        """The part as a test. A text alone is no test; `clientType` and user properties are by whether they hold anything."""
        if part.kind is _Type.TEXT and part.constant:
            raise ExpressionError("A text is not a condition; compare it with something", part.position)
        if part.kind is _Type.TRUTH:
            return part.value
        value = part.value
        return lambda subject: bool(value(subject))

    def _disjunction(self, tree: Tree[Token]) -> _Operand:
        tests = self._tests(tree)
        return _Operand(_Type.TRUTH, lambda subject: any(test(subject) for test in tests), _column(tree))

    def _conjunction(self, tree: Tree[Token]) -> _Operand:
        tests = self._tests(tree)
        return _Operand(_Type.TRUTH, lambda subject: all(test(subject) for test in tests), _column(tree))

    def _tests(self, tree: Tree[Token]) -> tuple[Callable[[Subject], bool], ...]:
        return tuple(self.truth(self.operand(child)) for child in tree.children if isinstance(child, Tree))

    def _negated(self, tree: Tree[Token]) -> _Operand:
        (test,) = self._tests(tree)
        return _Operand(_Type.TRUTH, lambda subject: not test(subject), _column(tree))

    def _comparison(self, tree: Tree[Token]) -> _Operand:
        children = tree.children
        first = children[0]
        assert isinstance(first, Tree)
        left = self.operand(first)
        for operator, child in zip(children[1::2], children[2::2], strict=True):
            assert isinstance(operator, Token)
            assert isinstance(child, Tree)
            left = self._compared(left, operator, self.operand(child), child)
        return left

    def _compared(self, left: _Operand, operator: Token, right: _Operand, child: Tree[Token]) -> _Operand:
        if left.kind is not right.kind and _Type.ANY not in (left.kind, right.kind):
            raise ExpressionError("A text and a truth value are never equal", (operator.start_pos or 0) + 1)
        one, other, negated = left.value, right.value, operator.value == "!="

        def test(subject: Subject) -> bool:
            return _equal(one(subject), other(subject)) is not negated

        self._term(left.position, child.meta.end_pos, test)
        return _Operand(_Type.TRUTH, test, left.position)

    def _membership(self, tree: Tree[Token]) -> _Operand:
        wanted, _, name = tree.children
        assert isinstance(name, Token)
        if name.value not in _SETS:
            raise ExpressionError(f"`in` looks into permissions or groups, not into {name.value}", _start(name))
        tokens = wanted.children[1:] if isinstance(wanted, Tree) else [wanted]
        return self._held(tree, name.value, frozenset(_string(token) for token in tokens))

    def _text(self, tree: Tree[Token]) -> _Operand:
        text = _string(tree.children[0])
        return _Operand(_Type.TEXT, lambda _: text, _column(tree), constant=True)

    def _name(self, tree: Tree[Token]) -> _Operand:
        name, *members = tree.children
        assert isinstance(name, Token)
        path = [(_member(member), _column(member)) for member in members if isinstance(member, Tree)]
        match name.value:
            case "permissions" | "groups":
                if not path:
                    raise ExpressionError(f"{name.value} needs a name, as in {name.value}.x", _start(name))
                if len(path) > 1:
                    raise ExpressionError(f'A name with dots is written {name.value}["a.b"]', path[1][1])
                return self._held(tree, name.value, frozenset((path[0][0],)))
            case "userProperties":
                if not path:
                    raise ExpressionError("userProperties needs a name: userProperties.x", _start(name))
                return self._property(tree, tuple(member for member, _ in path))
        if path and name.value in _PLAIN:
            raise ExpressionError(f"{name.value} has no members", path[0][1])
        position = _start(name)
        match name.value:
            case "true" | "false":
                constant = name.value == "true"
                return _Operand(_Type.TRUTH, lambda _: constant, position, constant=True)
            case "isBackoffice":
                self._term(position, tree.meta.end_pos, lambda subject: subject.is_backoffice)
                return _Operand(_Type.TRUTH, lambda subject: subject.is_backoffice, position)
            case "clientType":
                return _Operand(_Type.TEXT, lambda subject: subject.client_type, position)
        raise ExpressionError(f"Unknown name {name.value}; the names are {_NAMES}", position)

    def _held(self, tree: Tree[Token], collection: str, wanted: frozenset[str]) -> _Operand:
        # `isdisjoint` of two sets looks at the smaller one: the cost does not grow with what the caller holds.
        test: Callable[[Subject], bool]
        if collection == "permissions":
            if len(wanted) == 1:
                (single,) = wanted
                test = lambda subject: single in subject.permissions  # noqa: E731
            else:
                test = lambda subject: not wanted.isdisjoint(subject.permissions)  # noqa: E731
        else:
            test = lambda subject: not wanted.isdisjoint(subject.groups)  # noqa: E731
        self._term(_column(tree), tree.meta.end_pos, test)
        return _Operand(_Type.TRUTH, test, _column(tree))

    def _property(self, tree: Tree[Token], path: tuple[str, ...]) -> _Operand:
        def value(subject: Subject) -> Any:
            found: Any = subject.user_properties
            for member in path:
                if not isinstance(found, Mapping):
                    return None
                found = found.get(member)
            return found

        self._term(_column(tree), tree.meta.end_pos, lambda subject: bool(value(subject)))
        return _Operand(_Type.ANY, value, _column(tree))

    def _term(self, position: int, end: int, test: Callable[[Subject], bool]) -> None:
        self.terms.append(Term(self.text[position - 1 : end], position, test))


def _equal(one: Any, other: Any) -> bool:
    """Equal scalars of one type. What is absent equals nothing, and 1 is not true."""
    if isinstance(one, str | bool) or isinstance(other, str | bool):
        return type(one) is type(other) and bool(one == other)
    return isinstance(one, int | float) and isinstance(other, int | float) and one == other


def _member(tree: Tree[Token]) -> str:
    token = tree.children[0]
    return _string(token) if tree.data == "bracket" else str(token)[1:].strip()


def _string(token: Any) -> str:
    return re.sub(r"\\(.)", r"\1", str(token)[1:-1])


def _start(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _column(tree: Tree[Token]) -> int:
    return tree.meta.start_pos + 1
