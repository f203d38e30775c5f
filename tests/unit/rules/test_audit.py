"""Rules under Audit: they decide nothing, and what they would deny is what they do deny once they are in force."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.expressions import Subject
from keyturn.rules.decision import Outcome, decide, would_deny
from keyturn.rules.explain import explain
from keyturn.rules.parse import parse_rule
from keyturn.rules.state import AUDIT, ENFORCE, Condition, RouteState, RuleState
from keyturn.rules.table import RouteTable, enforced
from tests.unit.rules.test_explain import RULES, TARGETS

ANYBODY = Condition(public=True)
ONE_A = Condition(any_of=("a",))


def rule(path: str, condition: Condition, *, mode: str = ENFORCE, methods: tuple[str, ...] = ("ALL",)) -> RuleState:
    return RuleState(mode=mode, routes=(RouteState(path, methods, condition),))


MODES = st.sampled_from([ENFORCE, AUDIT])
MIXED = st.lists(st.builds(lambda rule, mode: replace(rule, mode=mode), RULES, MODES), max_size=5)
SUBJECTS = st.none() | st.builds(Subject, permissions=st.frozensets(st.sampled_from("pq")))


@settings(max_examples=400, deadline=None)
@given(
    MIXED,
    st.sampled_from(["GET", "POST", "TRACE"]),
    st.sampled_from(TARGETS),
    st.sampled_from([None, "shop.example", "other"]),
    SUBJECTS,
    st.booleans(),
)
def test_what_a_rule_would_deny_is_what_it_denies_when_it_alone_is_put_in_force(
    rules: list[RuleState], method: str, target: bytes, host: str | None, subject: Subject | None, backoffice: bool
) -> None:
    named = {f"default/rule-{index}": rule for index, rule in enumerate(rules)}
    in_force = {ref: rule for ref, rule in named.items() if rule.mode == ENFORCE}
    mixed = RouteTable.build(named.items())
    without = RouteTable.build(in_force.items())
    more = {"method": method, "target": target, "host": host, "is_backoffice": backoffice, "subject": subject}

    actual = decide(mixed, **more)  # type: ignore[arg-type]
    assert actual == decide(without, **more)  # type: ignore[arg-type]

    match = mixed.match(method, target, host, is_backoffice=backoffice)
    told = dict(would_deny(match, subject)) if actual.allowed else {}
    explained = {audit.rule: audit.decision for audit in explain(mixed, **more).audits}  # type: ignore[arg-type]
    for ref in named.keys() - in_force.keys():
        changed = decide(RouteTable.build([*in_force.items(), (ref, enforced(named[ref]))]), **more)  # type: ignore[arg-type]
        assert explained.get(ref, actual) == changed
        if actual.allowed:
            assert told.get(ref) == (None if changed.allowed else changed)


@given(st.lists(st.tuples(st.sampled_from(["a/x", "a/y", "b/x"]), st.none() | MODES, RULES), max_size=8))
def test_a_table_changed_step_by_step_is_the_one_built_at_once(
    steps: list[tuple[str, str | None, RuleState]],
) -> None:
    table, named = RouteTable.build([]), dict[str, RuleState]()
    for ref, mode, state in steps:
        if mode is None:
            named.pop(ref, None)
        else:
            named[ref] = replace(state, mode=mode)
        table = table.updated({ref: [named[ref]] if ref in named else []})
    built = RouteTable.build(named.items())
    assert table.rules == built.rules
    for target in TARGETS:
        for host in (None, "shop.example"):
            explained = [explain(one, method="GET", target=target, host=host) for one in (table, built)]
            assert explained[0] == explained[1]


def test_a_path_that_only_rules_under_audit_know_stays_unknown() -> None:
    table = RouteTable.build([("n/tried", rule("/new", ANYBODY, mode=AUDIT))])
    match = table.match("GET", b"/new", None)
    assert match.evaluate(None).outcome is Outcome.UNKNOWN_ROUTE
    assert explain(table, method="GET", target=b"/new", host=None).audits[0].decision.allowed


def test_a_rule_under_audit_hides_none_that_is_in_force() -> None:
    table = RouteTable.build([("n/whole", rule("/", ONE_A)), ("n/tried", rule("/x", ANYBODY, mode=AUDIT))])
    assert table.match("GET", b"/x", None).evaluate(Subject()).outcome is Outcome.FORBIDDEN


def test_a_method_that_the_tried_rule_leaves_out_would_be_denied() -> None:
    tried = rule("/x", ANYBODY, mode=AUDIT, methods=("GET",))
    table = RouteTable.build([("n/whole", rule("/", ANYBODY)), ("n/tried", tried)])
    (found,) = would_deny(table.match("POST", b"/x/y", None), None)
    assert (found[0], found[1].outcome) == ("n/tried", Outcome.UNKNOWN_ROUTE)


def test_rules_under_audit_do_not_count_for_one_another() -> None:
    table = RouteTable.build(
        [
            ("n/whole", rule("/", ANYBODY)),
            ("n/strict", rule("/x", Condition(deny="tried"), mode=AUDIT)),
            ("n/loose", rule("/x/y", ANYBODY, mode=AUDIT)),
        ]
    )
    assert [ref for ref, _ in would_deny(table.match("GET", b"/x/y", None), None)] == ["n/strict"]


def test_without_rules_under_audit_nothing_is_looked_for() -> None:
    table = RouteTable.build([("n/whole", rule("/", ANYBODY)), ("n/tried", rule("/x", ONE_A, mode=AUDIT))])
    assert table.match("GET", b"/x", None).audits
    left = table.updated({"n/tried": []})
    assert left.match("GET", b"/x", None).audits == ()
    assert left._audited is None


SPEC = {"routes": [{"path": "/x", "permissions": {"anyOf": ["a"]}}]}


@pytest.mark.parametrize(
    ("last", "mode", "valid", "expected"),
    [
        pytest.param(None, None, True, ENFORCE, id="no mode"),
        pytest.param(None, "Audit", True, AUDIT, id="a new rule under Audit"),
        pytest.param(None, "Audit", False, AUDIT, id="a new one with a mistake denies nothing either"),
        pytest.param(None, "Warn", False, ENFORCE, id="a mode that cannot be read is in force"),
        pytest.param("Audit", "Audit", False, AUDIT, id="a mistake while tried"),
        pytest.param("Audit", "Enforce", False, ENFORCE, id="a mistake while put in force"),
        pytest.param("Enforce", "Audit", False, ENFORCE, id="a mistake while taken out of force"),
        pytest.param("Audit", "Warn", False, AUDIT, id="an unreadable mode while tried"),
        pytest.param("Enforce", "Audit", True, AUDIT, id="taken out of force"),
    ],
)
def test_of_two_modes_the_one_in_force_holds_while_an_edit_has_a_mistake(
    last: str | None, mode: str | None, valid: bool, expected: str
) -> None:
    before = None if last is None else parse_rule({**SPEC, "mode": last}, None)[0]
    spec = {**SPEC, **({} if mode is None else {"mode": mode})}
    if not valid:
        spec["routes"] = [*SPEC["routes"], {"path": "/y", "expression": "("}]
    state, problems = parse_rule(spec, before)
    assert (state.mode, not problems) == (expected, valid)
    assert parse_rule(spec, state)[0] == state
