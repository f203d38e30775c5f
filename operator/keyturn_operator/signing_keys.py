"""SigningKey → the Secret with the signing keys, the row with their public halves and states, and the status."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from keyturn import reasons
from keyturn.keys import recovery
from keyturn.keys.plan import Fleet, RingPlan, Rotation, new_key, unconfirmed, with_generated
from keyturn.keys.recovery import Recalled, compromised_kids
from keyturn.keys.ring import KeyRing
from keyturn.keys.schedule import ceilings, first_after, next_rotation
from keyturn.keys.state import KeyPhase, SigningKeyState, refused_kids
from keyturn.records import Kind, StoredRecord
from keyturn.store.interface import Taken
from keyturn_operator import audit, conditions
from keyturn_operator import signing_key_status as shown
from keyturn_operator.conditions import Verdict
from keyturn_operator.context import Context, created_at, is_paused
from keyturn_operator.key_import import ImportRefused, read_import
from keyturn_operator.key_maker import KeyMaker
from keyturn_operator.key_secret import Finding, RingReader, change, inspect, manifest, wanted_owners
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import Conflict, Forbidden, KubeError, KubeUnavailable, NamespaceTerminates, NotFound
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Done, Key
from keyturn_operator.references import SecretReferences
from keyturn_operator.replicas import Wait
from keyturn_operator.rows import record_of
from keyturn_operator.signing_key_pass import Pass, read_state
from keyturn_operator.signing_key_spec import ImportSource, parse_spec, read_withdrawal

log = get_logger("signing_keys")

__all__ = ["KeyMaker", "SigningKeyReconciler"]

# The clock may be set: what is due far ahead is looked at again before.
_LONGEST_SLEEP = 3600.0
_SOON = 0.05


class _Stale(Exception):
    """The Secret was changed since it was read: read and decide again."""


class SigningKeyReconciler:
    """Reconciles SigningKeys: the one that the installation names; the others are told that they do not count."""

    def __init__(self, context: Context, references: SecretReferences, maker: KeyMaker) -> None:
        self._context = context
        self._references = references
        self._maker = maker
        self._read = RingReader()

    async def reconcile(self, key: Key, obj: Object) -> Done:
        """From the object as it is to its Secret, row and status."""
        settings = self._context.settings
        if (key.namespace, key.name) != (settings.home, settings.signing_key):
            self._references.set(key, None)
            await self._withdraw(key, obj["metadata"]["uid"], "it is not the installation's signing key")
            text = f"This installation signs with {settings.home}/{settings.signing_key} only."
            gone = {"keys": None, "nextRotationAt": None}
            await self._context.write_status(key, obj, [Verdict("False", reasons.NOT_USED, text)], gone)
            return Done()
        case = await self._gather(key, obj)
        if case.found.finding is Finding.LEAVING:
            return Done(again=1.0)
        refused = shown.refusal(case.found, case.spec.secret_name)
        recalled = case.recall()
        if refused is None and case.paused and (case.found.ring is None or recalled.older):
            # Someone may be restoring the Secret.
            refused = shown.held()
        if refused is not None:
            # What is in force stays: the replicas hold their keys until someone has put the Secret right.
            await self._restrict(case)
            await self._context.write_status(key, obj, self._with_withdrawal(case, [refused], KeyRing()))
            return Done()
        try:
            return await self._settle(case, recalled)
        except _Stale:
            return Done(again=0.2)
        except (KubeError, KubeUnavailable):
            # A withdrawal does not wait for the Kubernetes API: every replica acts on the store.
            await self._restrict(case)
            raise

    async def gone(self, key: Key, uids: set[str]) -> None:
        """The object is no more. Its Secret is retained, or follows its owner; the row goes, so the replicas stop signing."""
        for uid in sorted(uids):
            await self._context.withdraw(key, uid, "the object was deleted")
        self._references.set(key, None)
        if (key.namespace, key.name) == (self._context.settings.home, self._context.settings.signing_key):
            self._context.metrics.show_keys(KeyRing(), None)
        self._maker.forget(key)

    async def _gather(self, key: Key, obj: Object) -> Pass:
        context, settings = self._context, self._context.settings
        spec, problems = parse_spec(obj.get("spec") or {}, name=key.name)
        row = await context.rows.get(key, obj["metadata"]["uid"])
        # By name: an object that was deleted, or lost and restored, has left behind what must not come back with another uid.
        before = await context.rows.last_states(Kind.SIGNING_KEY)
        named = (one.body for one in before if (one.namespace, one.name) == (key.namespace, key.name))
        last = read_state(next(named, None) if row is None else row.record.body)
        known = shown.shown_keys(obj.get("status") or {})
        # Registered before the Secrets are read: a change in between is seen by the watch.
        source = spec.import_from
        self._references.set(key, spec.secret_name, None if source is None else source.secret_name)
        path = collection("v1", "secrets", key.namespace)
        found = inspect(await context.kube.get(f"{path}/{spec.secret_name}"), owner=key.name, read=self._read)
        now = context.now()
        limits = ceilings(
            last,
            fresh=found.ring is None and not known,
            publish_before=spec.policy.publish_before,
            token_life=settings.max_token_lifetime + settings.clock_skew_seconds,
            now=now,
        )
        remembered = frozenset[str]().union(*(refused_kids(one.body) for one in before))
        compromised = compromised_kids(last, known, remembered)
        asked = read_withdrawal(obj)
        return Pass(key, obj, spec, problems, found, row, last, known, compromised, asked, is_paused(obj), limits, now)

    async def _settle(self, case: Pass, recalled: Recalled) -> Done:
        """One pass: what needs no new key is written at once, then come those that have to be generated."""
        ring = recalled.ring
        if ring is None and (case.obj.get("spec") or {}).get("importFrom") is not None:
            try:
                ring = await self._import(case, case.spec.import_from)
            except ImportRefused as error:
                await self._context.write_status(case.key, case.obj, [error.verdict])
                return Done()
        plan = case.decide(case.noted(ring))
        ring = plan.ring
        signs = bool(ring.in_phase(KeyPhase.ACTIVE) or ring.in_phase(KeyPhase.NEXT))
        if case.found.ring is not None and (plan.changed or recalled.older or self._owners_differ(case)):
            ring = await self._write(case, ring)
            signs = True
        if signs and case.found.ring is not None:
            await self._publish(case, ring)
            plan = case.decide(ring, await self._fleet(case))
            ring = plan.ring
            if plan.changed:
                ring = await self._write(case, ring)
                await self._publish(case, ring)
                plan = replace(plan, ring=ring)
        else:
            await self._restrict(case)
        if plan.missing and not case.paused:
            generated = self._maker.collect(case.key, plan.missing, algorithm=plan.algorithm, size=plan.size)
            if generated is not None:
                ring = await self._write(case, with_generated(plan, generated, now=self._context.now()))
                self._maker.forget(case.key)
                await self._publish(case, ring)
                plan = replace(plan, missing=(), rotation=None)
        else:
            self._maker.forget(case.key)
        return await self._tell(case, ring, plan, lost=recalled.lost)

    async def _import(self, case: Pass, source: ImportSource | None) -> KeyRing:
        if source is None:
            raise ImportRefused(case.problems[0].reason, f"{case.problems[0].field}: {case.problems[0].message}")
        secret = await self._context.kube.get(f"{case.path}/{source.secret_name}")
        key = await asyncio.to_thread(read_import, source, secret, algorithm=case.spec.policy.algorithm)
        if key.kid in case.withdrawn:
            text = f"The key {key.kid} that importFrom names was withdrawn as compromised: it never counts again."
            raise ImportRefused(reasons.IMPORT_FAILED, text)
        active = new_key(key, KeyPhase.ACTIVE, now=case.now, imported=True)
        return KeyRing((active,), {key.kid: key}, handled_rotation=case.requested, owner=case.uid, imported=key.kid)

    # The Secret

    def _owners(self, case: Pass) -> list[Object]:
        return wanted_owners(case.found, name=case.key.name, uid=case.uid, delete=case.spec.delete_secret)

    def _owners_differ(self, case: Pass) -> bool:
        return self._owners(case) != list(case.found.owners)

    async def _write(self, case: Pass, ring: KeyRing) -> KeyRing:
        """Creates or changes the Secret, in one write. Raises _Stale when someone was first."""
        kube, name, key = self._context.kube, case.spec.secret_name, case.key
        ring = ring.written(self._context.now(), after=0 if case.last is None else case.last.serial)
        owners = self._owners(case)
        try:
            if case.found.finding is Finding.ABSENT:
                body = manifest(ring, namespace=key.namespace, name=name, owner=key.name, owners=owners)
                answer = await kube.create(case.path, body)
            else:
                answer = await kube.merge(
                    f"{case.path}/{name}", change(ring, case.found, owner=key.name, owners=owners)
                )
        except (Conflict, NotFound):
            raise _Stale from None
        except Forbidden as error:
            if error.terminating:
                # The namespace goes, and the keys with it: nothing is made anew.
                raise NamespaceTerminates from error
            raise
        before = case.found
        self._read.wrote(ring)
        case.found = inspect(answer, owner=key.name, read=self._read)
        told = {one.reason: one.at for one in (before.ring.incidents if before.ring is not None else ())}
        case.told += tuple(one.reason for one in ring.incidents if told.get(one.reason) != one.at)
        kids = {phase.value: [one.kid for one in ring.in_phase(phase)] for phase in KeyPhase if ring.in_phase(phase)}
        log.info("the Secret with the signing keys was written", object=str(key), secret=name, kids=kids)
        record = {"secret": {"old": before.finding.value, "new": name}, "kids": {"old": None, "new": kids}}
        audit.changed("grant_changed", obj=str(key), uid=case.uid, who=None, change=record)
        return ring

    # The row

    async def _publish(self, case: Pass, ring: KeyRing) -> None:
        state = ring.state(revoke_before=case.revoke_before)
        await self._put(case, replace(state, cache=case.limits.cache, tokens=case.limits.tokens))

    async def _restrict(self, case: Pass) -> None:
        """Without a Secret to follow, what is withdrawn or revoked is so all the same."""
        if case.last is None:
            return
        state = recovery.restricted(case.last, case.withdrawn, revoke_before=case.revoke_before)
        if case.row is None and state.refused == case.last.refused:
            # An object that begins has nothing in force yet.
            return
        if state != case.last:
            await self._put(case, state)

    async def _put(self, case: Pass, state: SigningKeyState) -> None:
        record = record_of(case.key, case.obj, created_at(case.obj), state.to_body())
        outcome = await self._context.write_row(case.key, case.obj, record, case.row)
        assert not isinstance(outcome, Taken), "a SigningKey has no client id"
        case.row = StoredRecord(record, outcome.revision)
        case.last = state
        case.revision = outcome.revision

    async def _fleet(self, case: Pass) -> Fleet:
        replicas = await self._context.replicas.live()
        return Fleet(
            applied=all(one.applied_revision >= case.revision for one in replicas),
            loaded=frozenset.intersection(*(frozenset(one.loaded_kids) for one in replicas)) if replicas else None,
        )

    # The status

    async def _tell(self, case: Pass, ring: KeyRing, plan: RingPlan, *, lost: bool) -> Done:
        """Writes the status, and says when to look again. The mount of a new key takes its time: the keys are shown before all have it."""
        context, key, obj = self._context, case.key, case.obj
        active = next((one.kid for one in ring.in_phase(KeyPhase.ACTIVE)), None)
        context.active_kid = active or conditions.ANY_KID
        wait: Done | None = None
        if case.problems:
            ready = conditions.of_problems(case.problems)
        elif plan.missing and not plan.rotates:
            ready = shown.held() if case.paused else shown.being_made(case.spec.secret_name, lost=lost)
        else:
            ready, wait = await context.propagation(key, case.revision, active)
        verdicts = [ready, *self._more_verdicts(case, ring, plan.rotation)]
        policy, limits = case.spec.policy, case.limits
        fields = shown.status_fields(ring, policy, limits, secret_name=case.spec.secret_name)
        if case.found.ring is None:
            fields = {}
        again = [verdict for verdict in verdicts if self._stands(case, verdict) and verdict.reason in case.told]
        await context.write_status(key, obj, verdicts, fields)
        for verdict in again:
            # It has happened once more while its condition still stood from the time before.
            await context.event(key, obj, verdict)
        rotates_at = next_rotation(ring, policy, limits)
        context.metrics.show_keys(ring, rotates_at)
        moments = [
            rotates_at,
            None if plan.rotation is None else plan.rotation.until,
            *(one.remove_at for one in ring.keys),
            *(limits.tokens.end(one.at) for one in ring.incidents),
        ]
        due = first_after(moments, case.now)
        sleep = _LONGEST_SLEEP if due is None else min(_LONGEST_SLEEP, due - case.now + _SOON)
        if wait is not None and wait.again is not None:
            sleep = min(sleep, wait.again)
        return Done(again=min(sleep, self._until_replicas(case, ring, plan.rotation, ready)))

    def _until_replicas(self, case: Pass, ring: KeyRing, rotation: Rotation | None, ready: Verdict) -> float:
        """Seconds until the ring is to be looked at again because of what replicas have yet to do; also waits for them by name."""
        following = next((one.kid for one in ring.in_phase(KeyPhase.NEXT)), None)
        if unconfirmed(ring) and not case.paused:
            if ready.status == "True":
                return _SOON
            # Before Ready: to act on the ring is less than to have loaded its key.
            self._context.replicas.wait_for(case.key, Wait(case.revision))
            return 1.0
        if rotation is not None and rotation.blocked == reasons.NEXT_NOT_LOADED and following is not None:
            self._context.replicas.wait_for(case.key, Wait(case.revision, following))
            return 1.0
        return _LONGEST_SLEEP

    def _more_verdicts(self, case: Pass, ring: KeyRing, rotation: Rotation | None) -> list[Verdict]:
        """The conditions beside Ready: those that hold, and those that did and do no more."""
        found = [shown.pending(rotation, ring), shown.incomplete(case.asked, ring)]
        if case.found.ring is not None:
            # What has happened is told with the keys that followed from it.
            found += [
                shown.invalidated(ring, case.limits, now=case.now),
                shown.restored(ring, case.limits, now=case.now),
            ]
        if case.spec.import_from is not None and ring.keys:
            found.append(shown.of_import(ring))
        return self._worth_telling(case, found)

    def _with_withdrawal(self, case: Pass, verdicts: list[Verdict], ring: KeyRing) -> list[Verdict]:
        return [*verdicts, *self._worth_telling(case, [shown.incomplete(case.asked, ring)])]

    @staticmethod
    def _worth_telling(case: Pass, found: list[Verdict]) -> list[Verdict]:
        listed = case.status.get("conditions")
        there = {one.get("type") for one in listed if isinstance(one, Mapping)} if isinstance(listed, list) else set()
        return [one for one in found if one.status == "True" or one.type in there or one.type == shown.IMPORTED]

    @staticmethod
    def _stands(case: Pass, verdict: Verdict) -> bool:
        listed = case.status.get("conditions")
        shown_already = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
        wanted = (verdict.type, verdict.reason, "True")
        return any((one.get("type"), one.get("reason"), one.get("status")) == wanted for one in shown_already)

    async def _withdraw(self, key: Key, uid: str, cause: str) -> None:
        known = self._context.rows.known(key)
        for one in {uid} | ({known.uid} if known is not None else set()):
            await self._context.withdraw(key, one, cause)
