"""The snapshot: what changes, deletions, resets and compromised keys do to it."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.clients.state import ClientState
from keyturn.expressions import Subject
from keyturn.keys.plan import ensure, with_generated, withdraw
from keyturn.keys.ring import KeyRing
from keyturn.keys.state import KeyPhase
from keyturn.records import Kind, Record, Revocation, StoredRecord
from keyturn.rules.state import Condition, RouteState, RuleState
from keyturn.rules.table import RouteTable
from keyturn.snapshot import Snapshot
from keyturn.store.interface import Changes, Position
from tests.sample_keys import sample_key
from tests.unit.tokens.worlds import NOW, client_state

RING = with_generated(
    ensure(None, algorithm="RS256", size=2048, now=NOW),
    {KeyPhase.ACTIVE: sample_key(number=1), KeyPhase.NEXT: sample_key(number=2)},
    now=NOW,
)
ACTIVE, NEXT = sample_key(number=1).kid, sample_key(number=2).kid


def stored(kind: Kind, uid: str, body: Any, *, name: str = "keyturn", deleted: bool = False) -> StoredRecord:
    client_id = body.get("clientId") if kind is Kind.CLIENT else None
    return StoredRecord(Record(kind, uid, "team", name, 1, NOW, body, client_id), 1, deleted)


def a_client(uid: str = "c1", *, deleted: bool = False, **changes: Any) -> StoredRecord:
    body = {} if deleted else client_state(**changes).to_body()
    return stored(Kind.CLIENT, uid, body, deleted=deleted)


def a_rule(uid: str = "r1", *, path: str = "/open", deleted: bool = False, name: str | None = None) -> StoredRecord:
    rule = RuleState(routes=(RouteState(path, ("GET",), Condition(public=True)),))
    return stored(Kind.ACCESS_RULE, uid, {} if deleted else rule.to_body(), name=name or uid, deleted=deleted)


def an_unreadable_rule(uid: str = "r1", *, name: str | None = None) -> StoredRecord:
    return stored(Kind.ACCESS_RULE, uid, {"routes": [{"from": "the future"}]}, name=name or uid)


def a_ring(ring: KeyRing = RING, *, name: str = "keyturn", uid: str = "k1") -> StoredRecord:
    return stored(Kind.SIGNING_KEY, uid, ring.state().to_body(), name=name)


class Follow:
    """A snapshot with a store's numbering."""

    def __init__(self) -> None:
        self.snapshot = Snapshot("keyturn")
        self.revision = 0
        self.store_id = "one"

    def apply(
        self, *records: StoredRecord, reset: bool = False, revocations: tuple[Revocation, ...] = ()
    ) -> list[Revocation]:
        self.revision += 1
        position = Position(self.revision, f"tag-{self.revision}", self.store_id)
        changes = Changes(position, NOW - 50, records, revocations, reset or not self.snapshot.loaded)
        return self.snapshot.apply(self.snapshot.prepare(changes), now=NOW)

    def client(self, client_id: str = "team.app") -> ClientState | None:
        return self.snapshot.client_state(client_id)

    def allows(self, path: str) -> bool:
        assert self.snapshot.table is not None
        return self.snapshot.table.match("GET", path.encode(), None).evaluate(None).allowed


def test_before_the_first_read_it_knows_nothing_and_says_so() -> None:
    snapshot = Snapshot("keyturn")
    assert not snapshot.loaded
    assert snapshot.table is None
    assert snapshot.applied_revision == 0


def test_records_become_clients_keys_and_routes() -> None:
    follow = Follow()
    follow.apply(a_client(), a_ring(), a_rule())
    assert follow.client() == client_state()
    assert follow.snapshot.active_kid() == ACTIVE
    assert [key.kid for key in follow.snapshot.published_keys(NOW)] == [ACTIVE, NEXT]
    assert follow.allows("/open")
    assert follow.snapshot.applied_revision == 1
    assert follow.snapshot.born_at == NOW - 50


def test_a_change_replaces_and_a_tombstone_removes() -> None:
    follow = Follow()
    follow.apply(a_client(), a_rule())
    generation = follow.snapshot.generation
    follow.apply(a_client(permissions=()), a_rule(path="/other"))
    assert follow.snapshot.generation > generation
    changed = follow.client()
    assert changed is not None
    assert changed.permissions == ()
    assert not follow.allows("/open")
    assert follow.allows("/other")
    follow.apply(a_client(deleted=True), a_rule(deleted=True))
    assert follow.client() is None
    assert not follow.allows("/other")


def test_a_tombstone_never_removes_what_another_object_owns_by_now() -> None:
    follow = Follow()
    follow.apply(a_client("old"))
    follow.apply(a_client("old", deleted=True), a_client("new", permissions=("new",)))
    follow.apply(a_client("old", deleted=True))
    kept = follow.client()
    assert kept is not None
    assert kept.permissions == ("new",)


def test_a_client_whose_id_changed_leaves_nothing_behind() -> None:
    follow = Follow()
    follow.apply(a_client())
    follow.apply(a_client(client_id="other"))
    assert follow.client() is None
    assert follow.client("other") is not None


def test_rules_that_did_not_change_keep_their_table() -> None:
    follow = Follow()
    follow.apply(a_rule())
    table = follow.snapshot.table
    follow.apply(a_client())
    assert follow.snapshot.table is table


def test_preparing_a_change_touches_nothing() -> None:
    follow = Follow()
    follow.apply(a_client(), a_rule())
    before = (follow.snapshot.generation, dict(follow.snapshot.clients), follow.snapshot.table)
    changes = Changes(Position(9, "t", "one"), NOW, (a_client(deleted=True), a_rule(deleted=True)), (), reset=False)
    follow.snapshot.prepare(changes)
    assert (follow.snapshot.generation, dict(follow.snapshot.clients), follow.snapshot.table) == before


def test_a_restored_store_counts_as_born_when_the_replica_noticed() -> None:
    follow = Follow()
    follow.apply(a_client())
    assert follow.snapshot.born_at == NOW - 50
    follow.apply(a_client(), reset=True)
    assert follow.snapshot.born_at == NOW, "jtis used since the backup are unknown to it"
    follow.apply(a_client("c2", client_id="other"))
    assert follow.snapshot.born_at == NOW, "and stay so"


def test_after_a_reset_only_what_it_names_is_there() -> None:
    follow = Follow()
    follow.apply(a_client(), a_ring(), a_rule())
    follow.store_id = "two"
    follow.apply(a_client("c2", client_id="other"), reset=True)
    assert follow.client() is None
    assert follow.client("other") is not None
    assert follow.snapshot.active_kid() is None
    assert not follow.allows("/open")


def test_a_new_store_is_told_the_unexpired_revocations_that_it_lacks() -> None:
    follow = Follow()
    follow.apply(
        revocations=(Revocation("live", NOW + 60, 1), Revocation("over", NOW - 1, 1), Revocation("known", NOW + 60, 1))
    )
    follow.store_id = "two"
    owed = follow.apply(reset=True, revocations=(Revocation("known", NOW + 60, 1),))
    assert owed == [Revocation("live", NOW + 60)]
    assert follow.snapshot.is_revoked("live")
    assert follow.snapshot.is_revoked("known")


def test_a_revocation_of_this_process_holds_at_once_and_changes_what_was_derived() -> None:
    follow = Follow()
    follow.apply()
    before = follow.snapshot.generation
    follow.snapshot.revoke(Revocation("mine", NOW + 60))
    assert follow.snapshot.is_revoked("mine")
    assert follow.snapshot.generation > before


def test_expired_revocations_are_forgotten_however_many_come() -> None:
    follow = Follow()
    follow.apply()
    most = 0
    for batch in range(40):
        live = [Revocation(f"live-{batch}", NOW + 60)]
        over = [Revocation(f"over-{batch}-{number}", NOW - 1) for number in range(250)]
        follow.apply(revocations=(*live, *over))
        most = max(most, len(follow.snapshot.revocations))
    assert most <= 1000 + 251
    assert all(follow.snapshot.is_revoked(f"live-{batch}") for batch in range(40))


def test_many_revocations_that_hold_are_looked_through_seldom() -> None:
    follow = Follow()
    follow.apply(revocations=tuple(Revocation(f"live-{number}", NOW + 60) for number in range(2000)))
    held = follow.snapshot.revocations
    for number in range(100):
        follow.apply(revocations=(Revocation(f"more-{number}", NOW + 60),))
    assert follow.snapshot.revocations is held
    assert len(held) == 2100


def test_only_the_named_signing_key_counts() -> None:
    follow = Follow()
    follow.apply(a_ring(name="another"))
    assert follow.snapshot.signing is None


def test_a_compromised_key_stays_so_whatever_an_older_store_says() -> None:
    follow = Follow()
    follow.apply(a_ring())
    follow.apply(a_ring(withdraw(RING, {ACTIVE})))
    assert follow.snapshot.verification_key(ACTIVE, NOW) is None
    follow.apply(a_ring(), reset=True)
    assert follow.snapshot.verification_key(ACTIVE, NOW) is None
    assert follow.snapshot.active_kid() is None


def test_keys_that_the_mounted_secret_withdraws_are_refused_at_once() -> None:
    follow = Follow()
    follow.apply(a_ring())
    generation = follow.snapshot.generation
    follow.snapshot.withdraw([ACTIVE])
    assert follow.snapshot.verification_key(ACTIVE, NOW) is None
    assert follow.snapshot.verification_key(NEXT, NOW) is not None
    assert follow.snapshot.generation > generation


def test_a_retired_key_ends_by_the_clock() -> None:
    keys = tuple(
        replace(key, phase=KeyPhase.RETIRED, remove_at=NOW + 5) if key.kid == ACTIVE else key for key in RING.keys
    )
    follow = Follow()
    follow.apply(a_ring(replace(RING, keys=keys)))
    assert follow.snapshot.verification_key(ACTIVE, NOW + 4) is not None
    assert follow.snapshot.verification_key(ACTIVE, NOW + 5) is None
    assert [key.kid for key in follow.snapshot.published_keys(NOW + 5)] == [NEXT]


@pytest.mark.parametrize("kind", [Kind.CLIENT, Kind.SIGNING_KEY])
def test_a_client_or_key_record_that_cannot_be_read_counts_as_absent(kind: Kind) -> None:
    follow = Follow()
    follow.apply(a_client(), a_ring())
    uid = "c1" if kind is Kind.CLIENT else "k1"
    follow.apply(stored(kind, uid, {"from": "the future"}))
    assert (follow.client() is None) == (kind is Kind.CLIENT)
    assert (follow.snapshot.signing is None) == (kind is Kind.SIGNING_KEY)


def test_a_rule_record_that_cannot_be_read_keeps_its_last_form() -> None:
    follow = Follow()
    follow.apply(a_rule())
    follow.apply(an_unreadable_rule())
    assert follow.allows("/open")
    # Also where everything is read anew: without it a broader rule could allow what it forbids.
    follow.apply(an_unreadable_rule(), reset=True)
    assert follow.allows("/open")
    follow.apply(reset=True)
    assert not follow.allows("/open")


def test_a_rule_record_that_nobody_could_ever_read_has_no_routes() -> None:
    follow = Follow()
    follow.apply(an_unreadable_rule())
    assert not follow.allows("/open")


def test_of_an_object_that_was_made_again_only_the_new_form_stays() -> None:
    follow = Follow()
    follow.apply(a_rule("old", name="shop"))
    # One change, one revision: the tombstone of the former object comes first.
    follow.apply(a_rule("old", name="shop", deleted=True), a_rule("new", name="shop", path="/new"))
    assert (follow.allows("/open"), follow.allows("/new")) == (False, True)
    # A tombstone that comes once more has nothing left to remove.
    table = follow.snapshot.table
    follow.apply(a_rule("old", name="shop", deleted=True))
    assert follow.snapshot.table is table
    assert follow.allows("/new")


def test_while_two_objects_of_one_name_are_there_both_hold() -> None:
    follow = Follow()
    follow.apply(a_rule("old", name="shop"))
    follow.apply(a_rule("new", name="shop", path="/new"))
    assert (follow.allows("/open"), follow.allows("/new")) == (True, True)
    follow.apply(a_rule("old", name="shop", deleted=True))
    assert (follow.allows("/open"), follow.allows("/new")) == (False, True)


def test_an_edit_shares_with_the_former_table_what_it_did_not_change() -> None:
    follow = Follow()
    follow.apply(a_rule("r1", path="/a"), a_rule("r2", path="/b"))
    before = follow.snapshot.table
    assert before is not None
    follow.apply(a_rule("r2", path="/c"))
    after = follow.snapshot.table
    assert after is not None
    assert after._root.literals["a"] is before._root.literals["a"]
    assert (follow.allows("/a"), follow.allows("/b"), follow.allows("/c")) == (True, False, True)
    assert before.match("GET", b"/b", None).evaluate(None).allowed


READER = Subject(frozenset({"read"}))
PATHS = ["/a", "/a/b", "/a/:x", "/a/*", "/:x", "/b"]
CONDITIONS = [Condition(public=True), Condition(any_of=("read",)), Condition(deny="shut")]
ROUTES = st.builds(
    RouteState,
    st.sampled_from(PATHS),
    st.sampled_from([("GET",), ("POST",), ("ALL",)]),
    st.sampled_from(CONDITIONS),
    st.sampled_from([None, *CONDITIONS]),
)
STATES = st.builds(
    RuleState,
    routes=st.lists(ROUTES, min_size=1, max_size=3, unique_by=lambda route: (route.path, route.methods)).map(tuple),
    hosts=st.sampled_from([(), ("shop.example",), ("*.example",)]),
)
# Few uids and fewer names: objects that are edited, deleted, made again, and two of one name.
ROWS = st.tuples(st.sampled_from("uvwxy"), st.sampled_from(["one", "two"]), STATES | st.sampled_from(["deleted", "?"]))


def a_row(uid: str, name: str, state: RuleState | str) -> StoredRecord:
    if isinstance(state, RuleState):
        return stored(Kind.ACCESS_RULE, uid, state.to_body(), name=name)
    if state == "deleted":
        return stored(Kind.ACCESS_RULE, uid, {}, name=name, deleted=True)
    return an_unreadable_rule(uid, name=name)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(ROWS, max_size=4)), max_size=8))
def test_a_table_changed_step_by_step_decides_like_one_built_at_once(
    steps: list[tuple[bool, list[tuple[str, str, RuleState | str]]]],
) -> None:
    follow = Follow()
    expected: dict[str, tuple[str, RuleState]] = {}
    for reset, rows in steps:
        former = expected
        again = reset or not follow.snapshot.loaded
        if again:
            expected = {}
        for uid, name, state in rows:
            if state == "?" and again and uid in former:
                expected.setdefault(uid, former[uid])
            if isinstance(state, RuleState):
                expected[uid] = (f"team/{name}", state)
            elif state == "deleted":
                expected.pop(uid, None)
        follow.apply(*(a_row(*row) for row in rows), reset=reset)
        rebuilt = RouteTable.build(expected.values())
        table = follow.snapshot.table
        assert table is not None
        for method, path, host, is_backoffice in product(
            ("GET", "POST"), (b"/", b"/a", b"/a/b", b"/a/c/d", b"/b"), (None, "shop.example"), (False, True)
        ):
            found, wanted = (t.match(method, path, host, is_backoffice=is_backoffice) for t in (table, rebuilt))
            for subject in (None, READER):
                assert found.evaluate(subject) == wanted.evaluate(subject)
