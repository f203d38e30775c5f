"""No sequence of ticks, crashes, restores and edits leads to a state that refuses a token it should accept, or the other way round."""

from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from keyturn.durations import parse_duration
from keyturn.keys.state import KeyPhase
from keyturn_operator.settings import PAUSED_ANNOTATION
from keyturn_operator.signing_key_spec import COMPROMISED_ANNOTATION, ROTATE_ANNOTATION
from tests.unit.operator.key_model import OBJECT, SECRET, TOKEN_LIFE, Model, Token, Verifier

ACTIVE, NEXT, RETIRED = KeyPhase.ACTIVE, KeyPhase.NEXT, KeyPhase.RETIRED
MOST_COMPROMISES = 6  # the status shows no more than sixteen kids of such keys
DURATIONS = st.sampled_from(["2s", "10s", "30s"])
SCHEDULES = st.sampled_from(["0s", "40s", "120s"])


class SigningKeys(RuleBasedStateMachine):
    """The model, with what must be so in each of its states."""

    backups = Bundle("backups")
    store_backups = Bundle("store_backups")

    @initialize(publish_before=DURATIONS, rotate_every=SCHEDULES)
    def begin(self, publish_before: str, rotate_every: str) -> None:
        self.model = Model(publishBefore=publish_before, rotateEvery=rotate_every)
        self.verifiers = [Verifier(0), Verifier(1), Verifier(0)]
        self.tokens: dict[str, Token] = {}
        self.void: set[str] = set()  # kids whose tokens may be refused: their keys were lost
        self.withdrawn: set[str] = set()
        self.withdrawing: frozenset[str] = frozenset()
        self.published_everywhere: dict[str, float] = {}
        self.active: str | None = None
        self.requests = self.rotations = self.compromises = 0
        self.scheduled = rotate_every != "0s"
        self.store_ok = True
        self.emergency = True
        self.paused = False
        self.model.observe = self.observe
        self.model.start_operator()
        self.rest()

    def teardown(self) -> None:
        if hasattr(self, "model"):
            self.model.close()

    # What must be so whenever anybody looks

    def observe(self) -> None:
        model = self.model
        row, ring = model.row(), model.ring()
        for keys in ((row.keys if row is not None else ()), (ring.keys if ring is not None else ())):
            assert sum(key.phase is ACTIVE for key in keys) <= 1
            assert sum(key.phase is NEXT for key in keys) <= 1
        self.watch_promotion()
        if not self.store_ok:
            return
        refused = row.refused if row is not None else frozenset()
        self.withdrawn |= refused
        # The Secret says so already, the store not yet: both answers are right.
        self.withdrawing = ring.refused if ring is not None else frozenset()
        shown = [api.published()[0] for api in model.apis]
        for kid in frozenset.intersection(*shown):
            self.published_everywhere.setdefault(kid, model.now)
        for api, kids in zip(model.apis, shown, strict=True):
            signs = api.signing_kid()
            if signs is not None:
                assert signs in kids, "a replica signs with a key that its own JWKS does not have"
                self.tokens[signs] = Token(signs, model.now + TOKEN_LIFE)
            if not api.lags:
                assert not kids & self.withdrawn, "a withdrawn key came back into a JWKS"
                assert signs not in self.withdrawn
        self.look_at_private_halves()
        self.tokens = {kid: token for kid, token in self.tokens.items() if token.expires_at > model.now}
        for kid in self.tokens:
            self.look_at(kid)

    def look_at(self, kid: str) -> None:
        model = self.model
        if kid in self.withdrawn:
            assert not any(model.accepted(api, kid) for api in model.apis if not api.lags)
        elif kid not in self.void and kid not in self.withdrawing:
            for api in model.apis:
                if not (self.emergency and api.lags):
                    assert model.accepted(api, kid), "a replica refuses a good token"
            if not self.emergency:
                for verifier in self.verifiers:
                    assert verifier.knows(kid, model.apis, model.now), (
                        "a verifier that keeps the JWKS does not know the key"
                    )

    def watch_promotion(self) -> None:
        """A planned rotation was asked for or due, and its key was published for its time."""
        active, ring = self.model.kid(ACTIVE), self.model.ring()
        before, self.active = self.active, active or self.active
        if active is None or before is None or active == before or self.emergency or ring is None:
            return
        if any(key.kid == before and key.phase is RETIRED for key in ring.keys):
            self.rotations += 1
            lead = parse_duration(self.model.spec["publishBefore"])
            assert self.model.now - self.published_everywhere[active] >= lead - 0.001, "a key signs too early"
            if not self.scheduled:
                assert self.rotations <= self.requests, "a rotation that nobody has asked for"

    def look_at_private_halves(self) -> None:
        ring = self.model.ring()
        if ring is not None and not self.paused:
            for key in ring.keys:
                kept = key.kid in ring.private
                if key.phase in (ACTIVE, NEXT):
                    assert kept
                elif key.phase is RETIRED and key.remove_at is not None:
                    assert not kept, "a private half that is not needed any more"

    # What happens

    @rule(seconds=st.sampled_from([0.3, 1.0, 3.0, 7.0, 15.0, 31.0, 70.0, 150.0]))
    def time_goes_by(self, seconds: float) -> None:
        # A replica that lags behind for longer than this is not live any more, or is ended by its probes.
        if any(api.lags for api in self.model.apis):
            seconds = min(seconds, 15.0)
        self.model.wait(seconds)

    @rule()
    def a_rotation_is_asked_for(self) -> None:
        self.requests += 1
        self.model.annotate(ROTATE_ANNOTATION, f"request-{self.requests}")

    @precondition(lambda self: self.compromises < MOST_COMPROMISES)
    @rule(which=st.sampled_from(["active", "next", "both", "retired", "unknown"]))
    def keys_are_compromised(self, which: str) -> None:
        phases = {"active": [ACTIVE], "next": [NEXT], "both": [ACTIVE, NEXT], "retired": [RETIRED], "unknown": []}[
            which
        ]
        ring = self.model.ring()
        kids = [key.kid for key in (ring.keys if ring is not None else ()) if key.phase in phases]
        self.compromises += 1
        self.emergency = True
        self.model.annotate(COMPROMISED_ANNOTATION, ",".join(kids) if phases else f"never-seen-{self.compromises}")
        row = self.model.row()
        if self.model.alive and row is not None:
            assert set(kids) <= row.refused
            if which == "both" and ring is not None and not self.paused:
                assert set(ring.private) <= row.refused, "what lay in the Secret with them counts on"

    @rule()
    def the_annotations_are_taken_away(self) -> None:
        self.model.annotate(COMPROMISED_ANNOTATION, None)
        self.model.annotate(ROTATE_ANNOTATION, None)

    @rule(value=DURATIONS)
    def the_lead_time_is_edited(self, value: str) -> None:
        self.model.edit(publishBefore=value)

    @rule(value=SCHEDULES)
    def the_schedule_is_edited(self, value: str) -> None:
        self.scheduled = self.scheduled or value != "0s"
        self.model.edit(rotateEvery=value)

    @rule(value=st.sampled_from(["0s", "20s", "90s"]))
    def the_retention_is_edited(self, value: str) -> None:
        self.model.edit(retainAfter=value)

    @rule(mistake=st.sampled_from([("deletionPolicy", "Perhaps"), ("size", "big"), ("retainAfter", "for ever")]))
    def the_spec_is_edited_wrongly(self, mistake: tuple[str, str]) -> None:
        self.model.edit(**dict([mistake]))

    def mend_the_spec(self) -> None:
        self.model.edit(deletionPolicy="Retain", size=None, retainAfter="0s")

    @rule(writes=st.integers(0, 9))
    def the_operator_will_be_killed(self, writes: int) -> None:
        self.model.fuse.left = writes

    @rule()
    def the_operator_starts(self) -> None:
        self.model.fuse.left = None
        self.model.start_operator()
        self.model.touch()
        self.note_recovery()

    @rule(number=st.integers(0, 1), mount=st.booleans())
    def a_replica_lags(self, number: int, mount: bool) -> None:
        if mount:
            self.model.apis[number].mount_lags = True
        else:
            self.model.apis[number].lags = True

    @rule()
    def the_replicas_catch_up(self) -> None:
        for api in self.model.apis:
            api.lags = api.mount_lags = False
        self.model.touch()

    @precondition(lambda self: self.store_ok)
    @rule(number=st.integers(0, 1))
    def a_replica_restarts(self, number: int) -> None:
        api = self.model.apis[number]
        if not api.lags and not api.mount_lags:
            api.restart()
            self.model.touch()

    @rule()
    def the_object_is_paused(self) -> None:
        self.paused = True
        self.model.annotate(PAUSED_ANNOTATION, "true")

    @rule()
    def the_object_goes_on(self) -> None:
        self.paused = False
        self.model.annotate(PAUSED_ANNOTATION, None)

    # Losses and restores

    def everything_is_void(self) -> None:
        row, ring = self.model.row(), self.model.ring()
        for keys in ((row.keys if row is not None else ()), (ring.keys if ring is not None else ())):
            self.void |= {key.kid for key in keys}
        self.void |= set(self.tokens)

    def is_told_of_all_withdrawn(self) -> bool:
        """Whether the status knows what must never come back, should Secret and store be lost both."""
        listed = (self.model.kube.objects[OBJECT].get("status") or {}).get("keys") or []
        return self.withdrawn <= {one["kid"] for one in listed if one["state"] == "Compromised"}

    @precondition(lambda self: self.is_told_of_all_withdrawn())
    @rule()
    def the_secret_is_deleted(self) -> None:
        self.emergency = True
        self.everything_is_void()
        self.model.kube.objects.pop(SECRET, None)
        self.model.touch()

    @rule(target=backups)
    def the_secret_is_backed_up(self) -> Any:
        return self.model.secret_backup()

    @precondition(lambda self: self.is_told_of_all_withdrawn())
    @rule(backup=backups)
    def the_secret_is_restored(self, backup: Any) -> None:
        if backup is None:
            return
        self.emergency = True
        row = self.model.row()
        if not self.store_ok or row is None or self.model.kube.objects.get(SECRET) is None:
            self.everything_is_void()
        else:
            # Nothing that only the Secret knew of yet can count.
            ring = self.model.ring()
            self.void |= {key.kid for key in (ring.keys if ring is not None else ())} - {key.kid for key in row.keys}
        self.model.restore_secret(backup)

    @precondition(lambda self: self.is_told_of_all_withdrawn())
    @rule()
    def the_store_is_lost(self) -> None:
        self.lose(lambda: self.model.store.lose_everything())

    @rule(target=store_backups)
    def the_store_is_backed_up(self) -> Any:
        return self.model.store.backup() if self.store_ok else None

    @precondition(lambda self: self.is_told_of_all_withdrawn())
    @rule(backup=store_backups)
    def the_store_is_restored(self, backup: Any) -> None:
        if backup is not None:
            self.lose(lambda: self.model.store.restore(backup))

    def the_store_knows_all_withdrawn(self) -> bool:
        row = self.model.row()
        return self.store_ok and row is not None and self.withdrawn <= row.refused

    @precondition(lambda self: self.the_store_knows_all_withdrawn())
    @rule(backup=st.one_of(st.none(), backups))
    def the_object_is_lost_and_restored(self, backup: Any) -> None:
        """Another object of the same name, without a status; its Secret is the one that is there, or an older one."""
        self.emergency = True
        self.everything_is_void()
        self.paused = False
        self.model.remake_object(backup)
        self.note_recovery()

    def lose(self, act: Any) -> None:
        self.emergency = True
        if self.model.kube.objects.get(SECRET) is None or not self.secret_is_the_latest():
            self.everything_is_void()
        self.store_ok = False
        act()
        self.model.touch()
        self.note_recovery()

    def secret_is_the_latest(self) -> bool:
        row, ring = self.model.row(), self.model.ring()
        return row is not None and ring is not None and ring.serial >= row.serial

    def note_recovery(self) -> None:
        """The store holds what counts once an operator has put it there."""
        row, ring = self.model.row(), self.model.ring()
        if self.model.alive and row is not None and ring is not None and ring.state().keys == row.keys and row.keys:
            self.store_ok = True

    @rule()
    def rest(self) -> None:
        """Everything that was out of order is put in order: from here on nothing excuses a refusal."""
        model = self.model
        model.fuse.left = None
        for api in model.apis:
            api.lags = api.mount_lags = False
        if not model.alive:
            model.start_operator()
        self.paused = False
        model.annotate(PAUSED_ANNOTATION, None)
        self.mend_the_spec()
        model.wait(2.5)
        self.note_recovery()
        assert self.store_ok, "the store was not rebuilt"
        model.touch()
        assert model.condition("Ready")["status"] == "True"
        for api in model.apis:
            assert api.signing_kid() is not None, "a replica cannot sign although nothing is wrong"
        if self.emergency:
            self.emergency = False
            for verifier in self.verifiers:
                verifier.kids = None
        model.touch()


@pytest.fixture
def quiet() -> Any:
    """Thousands of log lines help nobody."""

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[drop])
    yield
    structlog.configure(processors=before)


@pytest.mark.usefixtures("quiet")
def test_no_sequence_of_events_refuses_a_good_token_or_accepts_a_bad_one() -> None:
    run_state_machine_as_test(
        SigningKeys,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
