"""The expression language: what each form means, what binds tighter, and what is refused where."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.expressions import ExpressionError, Subject, compile_expression
from keyturn.expressions.compiler import MAX_DEPTH, MAX_LENGTH
from tests.unit.expressions.evaluator import evaluate, is_expression

SUBJECT = Subject(
    permissions=frozenset({"read", "a:b", "x-y", "in"}),
    groups=frozenset({"ops", "night shift"}),
    client_type="mobile",
    is_backoffice=True,
    user_properties={"plan": "gold", "admin": True, "level": 1, "org": {"name": "acme", "tags": []}, 'q"\\': "x"},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("permissions.read", True, id="a permission by dot"),
        pytest.param("permissions.write", False, id="a permission by dot that is not held"),
        pytest.param("permissions.x-y", True, id="a hyphen in a name"),
        pytest.param("permissions.in", True, id="a word of the language as a name"),
        pytest.param('permissions["a:b"]', True, id="a permission by bracket"),
        pytest.param('permissions["a"]', False, id="no part of a permission counts"),
        pytest.param('"a:b" in permissions', True, id="a permission by in"),
        pytest.param('["nope", "a:b"] in permissions', True, id="any of a list"),
        pytest.param('["nope", "neither"] in permissions', False, id="none of a list"),
        pytest.param("groups.ops", True, id="a group by dot"),
        pytest.param('groups["night shift"]', True, id="a group by bracket"),
        pytest.param('"read" in groups', False, id="a permission is no group"),
        pytest.param('["read", "ops"] in groups', True, id="any of a list of groups"),
        pytest.param('clientType == "mobile"', True, id="client type equal"),
        pytest.param('clientType != "mobile"', False, id="client type unequal"),
        pytest.param('"mobile" == clientType', True, id="equality the other way round"),
        pytest.param("clientType", True, id="any client type at all"),
        pytest.param("isBackoffice", True, id="backoffice"),
        pytest.param("isBackoffice == false", False, id="backoffice compared"),
        pytest.param('userProperties.org.name == "acme"', True, id="a nested property"),
        pytest.param('userProperties["org"].name == "acme"', True, id="a property by bracket"),
        pytest.param('userProperties["q\\"\\\\"] == "x"', True, id="escapes in a text"),
        pytest.param("userProperties.plan", True, id="a property that holds something"),
        pytest.param("userProperties.org.tags", False, id="an empty list holds nothing"),
        pytest.param("userProperties.nothing.at.all", False, id="an absent property"),
        pytest.param("userProperties.plan.deeper", False, id="a member of a text"),
        pytest.param("userProperties.admin == true", True, id="a true property"),
        pytest.param("userProperties.level == true", False, id="the number one is not true"),
        pytest.param("userProperties.none == userProperties.nil", False, id="two absent properties are not equal"),
        pytest.param("true || false && false", True, id="and before or"),
        pytest.param("(true || false) && false", False, id="parentheses first"),
        pytest.param("!false && false", False, id="not before and"),
        pytest.param('!"read" in permissions', False, id="not takes the whole in test"),
        pytest.param("!true == false", True, id="not before equals"),
        pytest.param("true && false == false", True, id="equals before and"),
        pytest.param("!!isBackoffice", True, id="not twice"),
        pytest.param("\n permissions . read\t&&\r\n true ", True, id="white space and lines"),
    ],
)
def test_each_form_means_what_it_says(text: str, expected: bool) -> None:
    assert compile_expression(text).evaluate(SUBJECT) is expected


@pytest.mark.parametrize(
    ("text", "position", "part"),
    [
        pytest.param("", 1, "empty", id="nothing"),
        pytest.param("  ", 1, "empty", id="blanks"),
        pytest.param("permissions", 1, "needs a name", id="all permissions"),
        pytest.param("true && roles.x", 9, "Unknown name roles", id="an unknown name"),
        pytest.param("Permissions.x", 1, "Unknown name", id="a name in other case"),
        pytest.param("permissions.a.b", 14, 'permissions["a.b"]', id="a name with dots"),
        pytest.param("clientType.x", 11, "no members", id="a member of a text"),
        pytest.param('"x" in clientType', 8, "permissions or groups", id="in something else"),
        pytest.param("clientType == true", 12, "never equal", id="a text against a truth value"),
        pytest.param('true || "x"', 9, "not a condition", id="a text as condition"),
        pytest.param("(true", 6, "too early", id="an open parenthesis"),
        pytest.param("true)", 5, "Unexpected )", id="a closing parenthesis too many"),
        pytest.param("true & false", 6, "unexpected character", id="one ampersand"),
        pytest.param('clientType == "x', 15, "does not end", id="an open text"),
        pytest.param('clientType == "\\n"', 15, "bad escape", id="an escape that is none"),
        pytest.param("clientType == 'x'", 15, "unexpected character", id="single quotes"),
        pytest.param("true false", 6, "Unexpected false", id="no operator between"),
        pytest.param("[] in permissions", 2, "Unexpected ]", id="an empty list"),
        pytest.param("userProperties.__class__()", 25, "Unexpected (", id="a call"),
        pytest.param("(" * 33 + "true" + ")" * 33, 33, "levels deep", id="too many parentheses"),
        pytest.param("!" * 2000 + "true", 33, "levels deep", id="too many negations"),
        pytest.param("!(" * 17 + "true" + ")" * 17, 33, "levels deep", id="both mixed"),
        pytest.param("true ||" * 400 + "true", MAX_LENGTH + 1, "at most", id="too long"),
    ],
)
def test_a_mistake_is_refused_at_its_column(text: str, position: int, part: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    assert (caught.value.position, part in caught.value.description) == (position, True), caught.value


def test_the_bounds_themselves_are_allowed() -> None:
    deep = "(" * MAX_DEPTH + "true" + ")" * MAX_DEPTH
    long = "true".ljust(MAX_LENGTH)
    wide = "||".join(["(true)"] * 200)
    assert all(compile_expression(text).evaluate(Subject()) for text in (deep, long, wide))


def test_terms_tell_each_elementary_test_with_its_place() -> None:
    expression = compile_expression('permissions.write || clientType == "mobile"')
    assert [(term.text, term.position, term.test(SUBJECT)) for term in expression.terms] == [
        ("permissions.write", 1, False),
        ('clientType == "mobile"', 22, True),
    ]


NAMES = ["read", "a:b", "ops", "acme", 'q"\\']
TEXTS = st.sampled_from(NAMES).map(lambda name: '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"')
SETS = st.sampled_from(["permissions", "groups"])
PROPERTIES = st.sampled_from(
    ["userProperties.org.name", "userProperties.a", 'userProperties["a"].b', "userProperties.read"]
)
OPERATORS = st.sampled_from(["==", "!="])
LEAVES = st.one_of(
    st.sampled_from(["true", "false", "isBackoffice", "clientType", "permissions.read", "groups.ops"]),
    st.builds("{}[{}]".format, SETS, TEXTS),
    st.builds("{} in {}".format, TEXTS, SETS),
    st.builds(lambda names, held: f"[{', '.join(names)}] in {held}", st.lists(TEXTS, min_size=1, max_size=3), SETS),
    st.builds("{} {} {}".format, st.one_of(TEXTS, PROPERTIES, st.just("clientType")), OPERATORS, TEXTS),
    st.builds("{}{}isBackoffice".format, PROPERTIES, OPERATORS),
    PROPERTIES,
)
# Not all of them in parentheses: what binds tighter is what this is about.
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from(["&&", "||"]), inner),
        st.builds("({})".format, inner),
        st.builds("!{}".format, inner.filter(lambda text: "=" not in text and "clientType" not in text)),
        st.builds("({}) {} ({} && true)".format, st.just("true"), OPERATORS, inner),
    ),
    max_leaves=12,
)
VALUES = st.one_of(st.sampled_from([*NAMES, "", True, False, None, 1, 0]), st.lists(st.just("x"), max_size=1))
SUBJECTS = st.builds(
    Subject,
    permissions=st.frozensets(st.sampled_from(NAMES)),
    groups=st.frozensets(st.sampled_from(NAMES)),
    client_type=st.sampled_from(["", *NAMES]),
    is_backoffice=st.booleans(),
    user_properties=st.dictionaries(
        st.sampled_from(["org", "a", "read"]),
        st.one_of(VALUES, st.dictionaries(st.sampled_from(["name", "b"]), VALUES, max_size=2)),
        max_size=3,
    ),
)


@given(EXPRESSIONS, SUBJECTS)
def test_an_evaluator_written_apart_agrees(text: str, subject: Subject) -> None:
    assert compile_expression(text).evaluate(subject) is evaluate(text, subject)


@given(st.text(alphabet=list('()[]!&|="\\., \npermissions.groupsclientTypexin'), max_size=60))
def test_any_text_compiles_or_is_refused_within_itself(text: str) -> None:
    try:
        compile_expression(text).evaluate(SUBJECT)
    except ExpressionError as error:
        assert 1 <= error.position <= len(text) + 1  # noqa: PT017


WORDS = [
    *("permissions", "groups", "userProperties", "clientType", "isBackoffice", "true", "false", "roles", "in"),
    *(".x", ".in", ". y-z", '"x"', '"a\\"b"', '"open', "[", "]", "(", ")", ",", "!", "==", "!=", "&&", "||", "&", "7"),
]
NEARLY = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join),
    # A valid one with one word more, less, or another.
    st.builds(
        lambda text, at, word: " ".join(
            [*(parts := text.split(" "))[: at % len(parts)], word, *parts[at % len(parts) + 1 :]]
        ),
        EXPRESSIONS,
        st.integers(0, 30),
        st.sampled_from([*WORDS, ""]),
    ),
)


@settings(max_examples=1000)
@given(NEARLY)
def test_a_checker_written_apart_agrees_about_what_is_an_expression(text: str) -> None:
    try:
        compile_expression(text)
    except ExpressionError:
        assert not is_expression(text)
    else:
        assert is_expression(text)


def test_the_checker_finds_both() -> None:
    assert is_expression('permissions.a && ["b"] in groups')
    assert not is_expression("permissions")
