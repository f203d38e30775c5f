"""When generated credentials are made, what they replace and until when that counts: by table, and by a model of everything that can
happen.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keyturn.clients.credentials import Credential, RecordDamaged, SecretRecord
from keyturn.clients.rotation import (
    GRACE,
    MAX_PREVIOUS,
    Cause,
    Known,
    RotationPlan,
    accepted_with,
    announced,
    decide,
    handed_out,
    rotation_due,
)
from keyturn.clients.sources import CredentialKind, GenerateSpec
from tests.manifests import public_jwk

NOW = 1_800_000_000.0
DAY = 86_400.0
UID = "uid-a"


def wish(**changes: Any) -> GenerateSpec:
    return GenerateSpec(**{"kind": CredentialKind.SECRET, "secret_name": "s", "keep_previous": 3600, **changes})


def made(name: str, at: float = NOW - DAY, **changes: Any) -> Credential:
    return Credential(name, at, hash=f"hash of {name}", **changes)


def old(name: str, replaced_at: float, not_after: float, **changes: Any) -> Credential:
    return made(name, replaced_at=replaced_at, not_after=not_after, **changes)


def record(current: Credential, *previous: Credential, serial: int = 1, handled: str | None = None) -> SecretRecord:
    return SecretRecord(UID, CredentialKind.SECRET, serial, current, previous, handled)


def ids(credentials: tuple[Credential, ...]) -> list[str]:
    return [one.id for one in credentials]


NOTHING = Known(None)


@pytest.mark.parametrize(
    ("found", "known", "cause"),
    [
        pytest.param(None, NOTHING, Cause.FIRST, id="nothing is there"),
        pytest.param(None, Known(0), Cause.FIRST, id="the first was announced and never handed out"),
        pytest.param(None, Known(None, (made("own"),)), Cause.FIRST, id="somebody else's secret was used until now"),
        pytest.param(None, Known(3, (made("c"),)), Cause.LOST, id="the Secret is gone"),
        pytest.param(
            record(made("a"), serial=1), Known(2, (made("b"),)), Cause.RESTORED, id="the Secret is an older copy"
        ),
        pytest.param(
            record(made("a"), serial=2),
            Known(2, (made("b"),)),
            Cause.RESTORED,
            id="the Secret is a copy of another history",
        ),
        pytest.param(record(made("a")), Known(1, (made("a"),)), None, id="all is as it was"),
        pytest.param(record(made("a")), NOTHING, None, id="the store was lost"),
        pytest.param(record(made("b"), serial=2), Known(1, (made("a"),)), None, id="the row is behind the Secret"),
    ],
)
def test_something_new_is_made_only_where_something_is_missing(
    found: SecretRecord | None, known: Known, cause: Cause | None
) -> None:
    assert decide(wish(), found, known, asked=None, now=NOW).make is cause


@pytest.mark.parametrize(
    ("asked", "handled", "cause"),
    [
        pytest.param(None, None, None, id="nobody asks"),
        pytest.param("1", None, Cause.ASKED, id="somebody asks"),
        pytest.param("1", "1", None, id="it was heeded"),
        pytest.param("2", "1", Cause.ASKED, id="somebody asks again"),
        pytest.param(None, "1", None, id="the annotation was taken off"),
        pytest.param("", "1", Cause.ASKED, id="an empty value is a value"),
    ],
)
def test_the_annotation_asks_for_one_rotation(asked: str | None, handled: str | None, cause: Cause | None) -> None:
    found = record(made("a"), handled=handled)
    assert decide(wish(), found, Known(1, (made("a"),)), asked=asked, now=NOW).make is cause


def test_an_annotation_that_is_there_at_the_first_time_rotates_nothing() -> None:
    plan = decide(wish(), None, NOTHING, asked="1", now=NOW)
    first = handed_out(plan, made("a", NOW), wish(), uid=UID, asked="1", now=NOW)
    assert first.handled == "1"
    assert decide(wish(), first, Known(1, accepted_with(first, plan)), asked="1", now=NOW).make is None


def test_the_schedule_rotates_up_to_a_tenth_earlier_and_always_at_the_same_time() -> None:
    found = record(made("a", NOW))
    due = rotation_due(found, 1000)
    assert NOW + 900 <= due <= NOW + 1000
    assert rotation_due(record(made("a", NOW)), 1000) == due
    spread = {rotation_due(dataclasses.replace(found, uid=f"uid-{n}"), 1000) for n in range(50)}
    assert len(spread) == 50
    known = Known(1, (made("a", NOW),))
    scheduled = wish(rotate_every=1000)
    before = decide(scheduled, found, known, asked=None, now=due - 1)
    assert (before.make, before.due) == (None, due)
    assert decide(scheduled, found, known, asked=None, now=due).make is Cause.SCHEDULED


def test_a_new_one_is_accepted_before_it_is_handed_out_and_its_predecessor_after() -> None:
    found = record(made("a"))
    plan = decide(wish(), found, Known(1, (made("a"),)), asked="1", now=NOW)
    fresh = made("b", NOW)
    first = announced(plan, fresh)
    assert [(one.id, one.announced, one.not_after) for one in first] == [("a", False, None), ("b", True, None)]
    after = handed_out(plan, fresh, wish(), uid=UID, asked="1", now=NOW + 1)
    assert (after.serial, after.current.id, after.handled) == (2, "b", "1")
    assert [(one.id, one.not_after) for one in accepted_with(after, plan)] == [("b", None), ("a", NOW + 1 + 3600)]


def test_without_an_overlap_the_predecessor_ends_as_the_new_one_is_handed_out() -> None:
    now = decide(wish(keep_previous=0), record(made("a")), Known(1, (made("a"),)), asked="1", now=NOW)
    after = handed_out(now, made("b", NOW), wish(keep_previous=0), uid=UID, asked="1", now=NOW)
    assert after.previous == ()


@pytest.mark.parametrize(
    ("keep", "end"),
    [
        pytest.param(3600, NOW + 1800, id="as promised"),
        pytest.param(7200, NOW + 1800, id="a longer one promises nothing for what was replaced already"),
        pytest.param(2000, NOW + 200, id="a shorter one counts at once"),
        pytest.param(0, None, id="none ends it"),
    ],
)
def test_the_overlap_of_what_was_replaced_is_only_ever_shortened(keep: int, end: float | None) -> None:
    previous = old("a", NOW - 1800, NOW + 1800)
    found, known = record(made("b"), previous, serial=2), Known(2, (made("b"), previous))
    plan = decide(wish(keep_previous=keep), found, known, asked=None, now=NOW)
    assert [one.not_after for one in plan.accepted[1:]] == ([] if end is None else [end])
    assert plan.record is not None
    assert plan.record.previous == plan.accepted[1:]


def test_what_has_ended_does_not_come_back_with_an_older_copy_of_the_same_secret() -> None:
    previous = old("a", NOW - 10, NOW + 3590)
    older_copy = record(made("b"), previous, serial=2)
    known = Known(2, (made("b"),))
    assert ids(decide(wish(), older_copy, known, asked=None, now=NOW).accepted) == ["b"]


def test_a_restored_secret_is_replaced_and_what_is_in_it_counts_no_longer_than_it_did() -> None:
    copy = record(made("a"), serial=1)
    known = Known(3, (made("c"), old("b", NOW - 10, NOW + 3590)))
    plan = decide(wish(), copy, known, asked=None, now=NOW)
    assert ids(plan.accepted) == ["c", "b"]
    after = handed_out(plan, made("d", NOW), wish(), uid=UID, asked=None, now=NOW)
    assert (after.serial, ids(after.previous)) == (4, ["c", "b"])


def test_a_lost_secret_leaves_what_clients_hold_valid_for_the_overlap() -> None:
    plan = decide(wish(), None, Known(1, (made("a"),)), asked=None, now=NOW)
    assert [(one.id, one.not_after) for one in plan.accepted] == [("a", None)]
    after = handed_out(plan, made("b", NOW), wish(), uid=UID, asked=None, now=NOW)
    assert [(one.id, one.not_after) for one in after.previous] == [("a", NOW + 3600)]


@pytest.mark.parametrize(
    ("keep", "end"),
    [pytest.param(0, GRACE, id="after a moment"), pytest.param(3600, 3600, id="or as late as what is replaced")],
)
def test_what_was_announced_and_is_not_in_the_secret_is_dropped(keep: int, end: float) -> None:
    found = record(made("a"))
    orphan = made("b", NOW, announced=True)
    plan = decide(wish(keep_previous=keep), found, Known(1, (made("a"), orphan)), asked=None, now=NOW)
    assert [(one.id, one.not_after) for one in plan.accepted] == [("a", None), ("b", NOW + end)]
    later = decide(wish(keep_previous=keep), found, Known(1, plan.accepted), asked=None, now=NOW + end)
    assert ids(later.accepted) == ["a"]


def test_a_rotation_waits_while_too_many_replaced_ones_count() -> None:
    previous = tuple(old(f"p{n}", NOW - 100, NOW + 100 + n) for n in range(MAX_PREVIOUS))
    found, known = record(made("c"), *previous, serial=20), Known(20, (made("c"), *previous))
    plan = decide(wish(), found, known, asked="1", now=NOW)
    assert (plan.make, plan.postponed, plan.due) == (None, True, NOW + 100)
    later = decide(wish(), found, known, asked="1", now=NOW + 100)
    assert (later.make, later.postponed) == (Cause.ASKED, False)


def test_a_record_is_read_back_as_it_was_written_and_holds_no_private_member() -> None:
    jwk = {**public_jwk("k"), "alg": "RS256", "use": "sig"}
    current = Credential("k", NOW, jwk=jwk)
    whole = SecretRecord(
        UID,
        CredentialKind.KEY,
        2,
        current,
        (dataclasses.replace(current, replaced_at=NOW, not_after=NOW + 60),),
        "1",
        created=True,
        members={"key_id": "digest"},
    )
    text = whole.to_text()
    assert SecretRecord.from_text(text) == whole
    assert not any(f'"{member}"' in text for member in ("d", "p", "q", "dp", "dq", "qi", "k_"))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("[]", id="a list"),
        pytest.param('{"format": 2}', id="a newer format"),
        pytest.param('{"format": 1}', id="no members"),
        pytest.param(record(made("a")).to_text().replace('"secret"', '"other"'), id="an unknown kind"),
        pytest.param(
            record(made("b"), dataclasses.replace(made("a"), replaced_at=None)).to_text(),
            id="a replaced one without end",
        ),
        pytest.param("[" * 100_000, id="too deep"),
        *(
            pytest.param(record(made("a")).to_text().replace(before, after), id=words)
            for before, after, words in (
                ('"serial":1', '"serial":Infinity', "an endless serial"),
                ('"serial":1', '"serial":NaN', "a serial that is no number"),
                ('"serial":1', f'"serial":{2**63}', "a serial that no database holds"),
                ('"serial":1', '"serial":-1', "a serial below zero"),
                ('"madeAt":', f'"madeAt":1{"0" * 400},"x":', "a time that no float holds"),
                ('"madeAt":', '"madeAt":NaN,"x":', "a time that is no number"),
                ('"madeAt":', '"madeAt":-1,"x":', "a time before the first"),
            )
        ),
    ],
)
def test_a_damaged_record_is_told(text: str) -> None:
    assert text != record(made("a")).to_text()
    with pytest.raises(RecordDamaged):
        SecretRecord.from_text(text)


@dataclass
class Held:
    """A secret that was handed out, and until when its holders were promised that it counts (None: until something replaces it)."""

    name: str
    replaced_at: float | None = None
    until: float | None = None
    orphan: bool = False

    def replace(self, now: float, keep: int) -> None:
        if self.replaced_at is None:
            self.replaced_at, self.until = now, now + keep

    def shorten(self, keep: int) -> None:
        if self.replaced_at is not None and self.until is not None and not self.orphan:
            self.until = min(self.until, self.replaced_at + keep)

    def stands(self, now: float) -> bool:
        return self.until is None or now < self.until


class Rotations(RuleBasedStateMachine):
    """The Secret, the row and an operator that may stop after each step, against what holders of secrets were promised.

    What nobody was ever handed, and what has ended, is never accepted (but for the moment of an announcement); what was handed out is
    accepted until its overlap has ended, whatever was interrupted, lost or restored in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.count = 0
        self.keep = 100
        self.every: int | None = None
        self.asked: str | None = None
        self.secret: SecretRecord | None = None
        self.row: Known = NOTHING
        self.copies: list[SecretRecord] = []
        self.held: dict[str, Held] = {}
        self.minted: Credential | None = None

    @property
    def wish(self) -> GenerateSpec:
        return wish(keep_previous=self.keep, rotate_every=self.every)

    def plan(self) -> RotationPlan:
        return decide(self.wish, self.secret, self.row, asked=self.asked, now=self.now)

    def write_row(self, serial: int, accepted: tuple[Credential, ...]) -> None:
        self.row = Known(serial, accepted)

    @initialize()
    def begin(self) -> None:
        self.operate(3)

    @rule(steps=st.integers(min_value=1, max_value=3))
    def operate(self, steps: int) -> None:
        """One pass of the operator that stops after 1 (the announcement), 2 (the Secret) or 3 steps; each is one write."""
        plan = self.plan()
        for one in plan.accepted:
            if one.announced and one.id in self.held and (self.minted is None or one.id != self.minted.id):
                # Handed out just before the operator stopped, and not in the Secret any more: it counts like something replaced.
                orphan = self.held[one.id]
                orphan.replace(self.now, max(self.keep, int(GRACE)))
                orphan.until = min(orphan.until or self.now, self.now + max(self.keep, int(GRACE)))
                orphan.orphan = True
        if plan.make is None:
            self.minted = None
            self.write_row(plan.serial, plan.accepted)
            if steps > 1 and plan.record is not None:
                self.secret = plan.record
            return
        if self.minted is None:
            self.count += 1
            self.minted = made(f"s{self.count}", self.now)
        fresh = self.minted
        self.write_row(plan.serial, announced(plan, fresh))
        if steps == 1:
            return
        before = {one.id for one in plan.accepted if not one.is_previous and not one.announced}
        self.secret = handed_out(plan, fresh, self.wish, uid=UID, asked=self.asked, now=self.now)
        self.minted = None
        for name in before & self.held.keys():
            self.held[name].replace(self.now, self.keep)
        self.held[fresh.id] = Held(fresh.id)
        if steps == 3:
            self.write_row(self.secret.serial, accepted_with(self.secret, plan))

    @rule()
    def restart(self) -> None:
        """What was minted and not handed out is gone with the process."""
        self.minted = None

    @rule(seconds=st.integers(min_value=1, max_value=300))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(value=st.sampled_from(["1", "2", "3"]))
    def somebody_asks(self, value: str) -> None:
        self.asked = value

    @rule(every=st.sampled_from([None, 50, 500]))
    def the_schedule_changes(self, every: int | None) -> None:
        self.every = every

    @rule(keep=st.sampled_from([0, 20, 100, 400]))
    def the_overlap_changes(self, keep: int) -> None:
        """A shorter overlap ends what was replaced earlier than promised; that is what it is for."""
        for one in self.held.values():
            one.shorten(keep)
        self.keep = keep
        self.operate(3)

    @rule()
    def somebody_copies_the_secret(self) -> None:
        if self.secret is not None:
            self.copies.append(self.secret)

    @rule(data=st.data())
    def somebody_restores_a_copy(self, data: st.DataObject) -> None:
        if self.copies and self.row != NOTHING:
            self.secret = data.draw(st.sampled_from(self.copies))
            if self.secret.serial <= (self.row.serial or 0):
                self.row_is_all_that_is_known()

    def row_is_all_that_is_known(self) -> None:
        """An end that only the lost Secret told of, since the operator stopped before it reached the row, is not known any more."""
        for one in self.row.credentials:
            held = self.held.get(one.id)
            if held is not None and not one.is_previous and not one.announced:
                held.replaced_at = held.until = None

    @rule()
    def somebody_deletes_the_secret(self) -> None:
        """While the store is there: with both gone nothing knows what was, and all begins anew."""
        if self.row != NOTHING:
            self.secret = None
            self.row_is_all_that_is_known()

    @rule()
    def the_store_is_lost(self) -> None:
        """The Secret must be the newest then, for nothing else knows what was after an older copy."""
        newest = max((int(name[1:]) for name in self.held), default=0)
        if self.secret is not None and self.secret.current.id == f"s{newest}":
            self.row = NOTHING
            # Only the row knew of what was handed out in the operator's last moment and is in no Secret any more.
            self.held = {name: one for name, one in self.held.items() if not one.orphan}

    @rule()
    def all_settles(self) -> None:
        """Nothing is interrupted for a while: what readers accept is exactly what is current, and what is in its overlap."""
        for _ in range(4):
            self.operate(3)
        assert self.secret is not None
        accepted = {one.id: one for one in self.row.credentials if not one.has_ended(self.now)}
        assert not accepted[self.secret.current.id].is_previous
        for one in self.held.values():
            assert (one.name in accepted) == one.stands(self.now), f"{one} at {self.now}"
        # What nobody was handed counts for the moment only in which its handing out may still be on its way.
        strangers = [one for name, one in accepted.items() if name not in self.held]
        assert all(one.announced and one.not_after is not None for one in strangers)
        assert len([one for one in accepted.values() if one.is_previous]) <= MAX_PREVIOUS

    @invariant()
    def whoever_was_promised_something_is_accepted_at_any_instant(self) -> None:
        if self.row == NOTHING:
            return  # the store was lost just now: nobody is accepted until the operator has looked
        accepted = {one.id for one in self.row.credentials if not one.has_ended(self.now)}
        refused = [one for one in self.held.values() if one.stands(self.now) and one.name not in accepted]
        assert not refused, f"at {self.now}"


TestRotations = Rotations.TestCase
TestRotations.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
