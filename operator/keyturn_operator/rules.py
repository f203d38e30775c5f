"""AccessRule → its rows of the route table, its status, and the contradictions between rules."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keyturn import reasons
from keyturn.grants import bound_rule
from keyturn.records import StoredRecord
from keyturn.rules.conflicts import Conflict, find_conflicts
from keyturn.rules.parse import parse_rule
from keyturn.rules.state import RuleState
from keyturn.store.interface import Taken
from keyturn_operator import conditions, paused
from keyturn_operator.conditions import Verdict
from keyturn_operator.context import Context, created_at, is_paused
from keyturn_operator.kube.client import Object
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Done, Key, Priority
from keyturn_operator.rows import key_of, record_of

log = get_logger("rules")

SETTLE = 0.2
MAX_NAMED = 5


def last_state(row: StoredRecord | None) -> RuleState | None:
    """What was in force before, as far as it can be read."""
    if row is None:
        return None
    try:
        return RuleState.from_body(row.record.body)
    except (KeyError, TypeError, ValueError):
        return None


def of_conflicts(conflicts: Sequence[Conflict]) -> Verdict:
    """Conflicting, naming the other rules and where they contradict."""
    if not conflicts:
        text = "No other rule decides the same host, path and method differently."
        return Verdict("False", reasons.NO_CONTRADICTION, text, reasons.CONFLICTING)
    named = [describe(one) for one in conflicts[:MAX_NAMED]]
    if len(conflicts) > MAX_NAMED:
        named.append(f"and {len(conflicts) - MAX_NAMED} more")
    text = f"Contradicts {'; '.join(named)}. Until one of them is changed, a request must satisfy all."
    return Verdict("True", reasons.CONTRADICTION, conditions.shorten(text), reasons.CONFLICTING)


def describe(conflict: Conflict) -> str:
    """One contradiction, for people."""
    host = f" on {conflict.host}" if conflict.host else ""
    others = ", ".join(conflict.others[:MAX_NAMED]) + (", …" if len(conflict.others) > MAX_NAMED else "")
    return f"{others} at {conflict.method} {conflict.path}{host}"


class Conflicts:
    """The contradictions among all rules, computed off the event loop a moment after the last change."""

    def __init__(self, enqueue: Callable[[Key, Priority], None]) -> None:
        self._enqueue = enqueue
        self._rules: dict[Key, RuleState] = {}
        self._found: dict[Key, tuple[Conflict, ...]] = {}
        self._asked: set[Key] = set()
        self._dirty = False
        self._wake = asyncio.Event()

    def set(self, key: Key, state: RuleState | None) -> None:
        """Says what is in force of a rule (None: nothing)."""
        if self._rules.get(key) == state:
            return
        if state is None:
            del self._rules[key]
        else:
            self._rules[key] = state
        self._dirty = True
        self._wake.set()

    def of(self, key: Key) -> tuple[Conflict, ...] | None:
        """The rule's contradictions; None when that is being found out: the key is queued again then."""
        if self._dirty:
            self._asked.add(key)
            return None
        return self._found.get(key, ())

    async def run(self) -> None:
        """Computes whenever something has changed, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.compute()
            await asyncio.sleep(SETTLE)

    async def compute(self) -> None:
        """Finds the contradictions anew and queues every rule whose have changed, or that has asked."""
        by_ref = {key.ref: key for key in self._rules}
        rules: Mapping[str, RuleState] = {ref: self._rules[key] for ref, key in by_ref.items()}
        self._dirty = False
        raw = await asyncio.to_thread(find_conflicts, rules)
        found = {by_ref[ref]: tuple(conflicts) for ref, conflicts in raw.items() if conflicts}
        changed = {key for key in {*found, *self._found} if found.get(key) != self._found.get(key)}
        self._found = found
        asked, self._asked = self._asked, set()
        for key in sorted((changed | asked) & self._rules.keys()):
            self._enqueue(key, Priority.CHANGE)


class RuleReconciler:
    """Reconciles one AccessRule at a time."""

    def __init__(self, context: Context, conflicts: Conflicts) -> None:
        self._context = context
        self._conflicts = conflicts

    def found(self, rows: list[StoredRecord]) -> None:
        """Takes note of the rules in the store, so that contradictions are known before each is reconciled."""
        for row in rows:
            state = last_state(row)
            if state is not None:
                self._conflicts.set(key_of(row.record), state)

    async def reconcile(self, key: Key, obj: Object) -> Done:
        """From the object as it is to its row and status."""
        context = self._context
        spec: Mapping[str, Any] = obj.get("spec") or {}
        row = await context.rows.get(key, obj["metadata"]["uid"])
        last = last_state(row)
        state, problems = parse_rule(spec, last)
        wanted, _ = bound_rule(state, context.grants.of(key.namespace))
        held = is_paused(obj) and wanted != last
        if held:
            state, problems = paused.rule_in_force(spec, last)
        state, outside = bound_rule(state, context.grants.of(key.namespace))
        problems = [*problems, *outside]
        outcome = await context.write_row(key, obj, record_of(key, obj, created_at(obj), state.to_body()), row)
        assert not isinstance(outcome, Taken), "an AccessRule has no client id"
        self._conflicts.set(key, state)

        wait: Done | None = None
        if problems:
            ready = conditions.of_problems(problems, paused.NOTE if held else "")
        elif held:
            ready = Verdict("False", reasons.PAUSED, paused.NOTE)
        else:
            ready, wait = await context.propagation(key, outcome.revision)
        conflicts = self._conflicts.of(key)
        if wait is not None:
            return wait
        verdicts = [ready] if conflicts is None else [ready, of_conflicts(conflicts)]
        await context.write_status(key, obj, verdicts, {"routes": len(state.routes)})
        return Done()

    async def gone(self, key: Key, uids: set[str]) -> None:
        """The rule is no more: its routes are unknown from now on."""
        for uid in sorted(uids):
            await self._context.withdraw(key, uid, "the object was deleted")
        self._conflicts.set(key, None)
