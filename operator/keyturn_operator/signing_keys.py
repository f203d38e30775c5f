"""SigningKey → the Secret with the signing keys, the row with their public halves and states, and the status."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyturn import __version__, reasons
from keyturn.keys.plan import ensure, with_generated
from keyturn.keys.ring import KeyRing
from keyturn.keys.state import InvalidState, KeyPhase, SigningKeyState
from keyturn.problems import Problem
from keyturn.records import StoredRecord
from keyturn.store.interface import Taken
from keyturn.timestamps import InvalidTimestamp, format_rfc3339, parse_rfc3339
from keyturn_operator import audit, conditions
from keyturn_operator.conditions import Verdict
from keyturn_operator.context import Context, created_at, is_paused
from keyturn_operator.key_maker import KeyMaker
from keyturn_operator.key_secret import Finding, KeySecret, inspect, manifest
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import Conflict, Forbidden, NamespaceTerminates, NotFound
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Done, Key
from keyturn_operator.references import SecretReferences
from keyturn_operator.rows import record_of
from keyturn_operator.settings import PAUSED_ANNOTATION

log = get_logger("signing_keys")

ALGORITHM = "RS256"
SIGNING_KEYS_LOST = "SigningKeysLost"
SIZES = (2048, 3072, 4096)
FIELDS = frozenset({"algorithm", "size", "secretName", "revokeTokensIssuedBefore"})


@dataclass(frozen=True, slots=True)
class SigningKeySpec:
    """A SigningKey's spec as read."""

    algorithm: str
    size: int
    secret_name: str
    revoke_before: float | None


def parse_spec(spec: Mapping[str, Any], *, name: str) -> tuple[SigningKeySpec, list[Problem]]:
    """The spec and what is wrong with it. What cannot be read has its default, for the key ring is never left without one."""
    problems: list[Problem] = []

    def report(reason: str, field: str, message: str) -> None:
        problems.append(Problem(reason, f"spec.{field}", message))

    given = {field: value for field, value in spec.items() if value is not None}
    for field in sorted(set(given) - FIELDS):
        report(reasons.UNSUPPORTED_FIELD, field, f"is not known to version {__version__} of the operator: take it out")
    algorithm = given.get("algorithm", ALGORITHM)
    if algorithm != ALGORITHM:
        report(reasons.UNSUPPORTED_FIELD, "algorithm", f"this version signs with {ALGORITHM} only")
    size = given.get("size", SIZES[0])
    if isinstance(size, bool) or size not in SIZES:
        report(reasons.INVALID_SPEC, "size", f"must be one of {', '.join(map(str, SIZES))}")
        size = SIZES[0]
    secret_name = given.get("secretName", name)
    if not isinstance(secret_name, str) or not secret_name:
        report(reasons.INVALID_SPEC, "secretName", "must be the name of a Secret")
        secret_name = name
    revoke_before = None
    if "revokeTokensIssuedBefore" in given:
        try:
            revoke_before = parse_rfc3339(given["revokeTokensIssuedBefore"])
        except InvalidTimestamp as error:
            report(reasons.INVALID_SPEC, "revokeTokensIssuedBefore", str(error))
    return SigningKeySpec(ALGORITHM, int(size), secret_name, revoke_before), problems


def last_state(row: StoredRecord | None) -> SigningKeyState | None:
    """What the store says of the keys, as far as it can be read."""
    if row is None:
        return None
    try:
        return SigningKeyState.from_body(row.record.body)
    except (InvalidState, KeyError, TypeError, ValueError):
        return None


def compromised_kids(last: SigningKeyState | None, status: Mapping[str, Any]) -> frozenset[str]:
    """Every kid that the store or the status calls compromised: no restored Secret brings one back."""
    kids = {key.kid for key in last.keys if key.phase is KeyPhase.COMPROMISED} if last is not None else set()
    listed = status.get("keys")
    for key in listed if isinstance(listed, list) else ():
        if isinstance(key, Mapping) and key.get("state") == KeyPhase.COMPROMISED.value:
            kids.add(str(key.get("kid")))
    return frozenset(kids)


def revoke_before(wanted: float | None, last: SigningKeyState | None, *, valid: bool) -> float | None:
    """What revokes: in an invalid edit never less than before."""
    if valid or last is None or last.revoke_before is None:
        return wanted
    return last.revoke_before if wanted is None else max(wanted, last.revoke_before)


def status_keys(ring: KeyRing) -> list[dict[str, Any]]:
    """The keys as the status shows them."""
    shown = []
    for key in ring.keys:
        times = {
            "createdAt": key.created_at,
            "publishedAt": key.published_at,
            "activatedAt": key.activated_at,
            "retiredAt": key.retired_at,
            "removeAt": key.remove_at,
        }
        stamps = {name: format_rfc3339(time) for name, time in times.items() if time is not None}
        shown.append({"kid": key.kid, "state": key.phase.value, "algorithm": key.algorithm, "size": key.size, **stamps})
    return shown


def refusal(found: KeySecret, name: str) -> Verdict | None:
    """Why the Secret cannot be used; None when it can."""
    match found.finding:
        case Finding.CONFLICT:
            text = (
                f"Secret {name} holds members that this SigningKey did not write ({found.detail}) and is left as it is: "
                "take them out, or name another secretName."
            )
        case Finding.NOT_OPAQUE:
            text = (
                f"Secret {name} has the type {found.detail}: only Opaque Secrets are filled. Name another secretName."
            )
        case Finding.DAMAGED:
            text = (
                f"Secret {name} holds no usable key ring ({found.detail}): "
                "restore it from a backup, or delete it to have new keys made."
            )
            return Verdict("False", reasons.SECRET_INVALID, text)
        case _:
            return None
    return Verdict("False", reasons.SECRET_CONFLICT, text)


def being_made(secret: str, *, lost: bool) -> Verdict:
    """Ready while the first keys are made, or those that follow lost ones."""
    if lost:
        text = f"Secret {secret} with the signing keys is gone: new ones are being made, tokens of the old ones will be refused."
        return Verdict("False", SIGNING_KEYS_LOST, text)
    return Verdict("Unknown", reasons.PENDING, "The signing keys are being made.")


class SigningKeyReconciler:
    """Reconciles SigningKeys: the one that the installation names; the others are told that they do not count."""

    def __init__(self, context: Context, references: SecretReferences, maker: KeyMaker) -> None:
        self._context = context
        self._references = references
        self._maker = maker

    async def reconcile(self, key: Key, obj: Object) -> Done:
        """From the object as it is to its Secret, row and status."""
        context = self._context
        settings = context.settings
        uid = obj["metadata"]["uid"]
        if (key.namespace, key.name) != (settings.home, settings.signing_key):
            self._references.set(key, None)
            await self._withdraw(key, uid, "it is not the installation's signing key")
            text = f"This installation signs with {settings.home}/{settings.signing_key} only."
            await context.write_status(key, obj, [Verdict("False", reasons.NOT_USED, text)], {"keys": None})
            return Done()

        spec, problems = parse_spec(obj.get("spec") or {}, name=key.name)
        row = await context.rows.get(key, uid)
        last = last_state(row)
        status: Mapping[str, Any] = obj.get("status") or {}
        self._references.set(key, spec.secret_name)
        path = collection("v1", "secrets", key.namespace)
        found = inspect(await context.kube.get(f"{path}/{spec.secret_name}"), owner=key.name)
        if found.finding is Finding.LEAVING:
            return Done(again=1.0)
        refused = refusal(found, spec.secret_name)
        if refused is not None:
            # What is in force stays: the replicas hold their keys until someone has put the Secret right.
            await context.write_status(key, obj, [refused])
            return Done()

        plan = ensure(
            found.ring,
            algorithm=spec.algorithm,
            size=spec.size,
            now=context.now(),
            compromised=compromised_kids(last, status),
        )
        if plan.settled:
            self._maker.forget(key)
            return await self._publish(key, obj, spec, plan.ring, row, problems)
        lost = found.ring is None and last is not None and bool(last.keys)
        if is_paused(obj):
            # A withdrawal restricts, so it is published; new keys wait (someone may be restoring the Secret).
            text = f"The annotation {PAUSED_ANNOTATION} holds the signing keys as they are."
            held = Verdict("False", reasons.PAUSED, text)
            if found.ring is not None:
                return await self._publish(key, obj, spec, plan.ring, row, problems, held=held)
            await context.write_status(key, obj, [held])
            return Done()
        generated = self._maker.collect(key, plan.missing, algorithm=plan.algorithm, size=plan.size)
        if generated is None:
            if found.ring is not None and plan.changed:
                # What is withdrawn is withdrawn now, whether or not its successor is made already.
                return await self._publish(key, obj, spec, plan.ring, row, problems)
            if found.ring is None:
                await context.write_status(key, obj, [being_made(spec.secret_name, lost=lost)])
            return Done()
        ring = with_generated(plan, generated, now=context.now())
        if not await self._write(key, obj, found, ring, spec.secret_name):
            return Done(again=0.2)
        self._maker.forget(key)
        if lost:
            await self._tell_of_loss(key, obj, spec.secret_name)
        return await self._publish(key, obj, spec, ring, row, problems)

    async def gone(self, key: Key, uids: set[str]) -> None:
        """The object is no more. Its Secret is retained; the row goes, so the replicas stop signing."""
        for uid in sorted(uids):
            await self._context.withdraw(key, uid, "the object was deleted")
        self._references.set(key, None)
        self._maker.forget(key)

    async def _publish(
        self,
        key: Key,
        obj: Object,
        spec: SigningKeySpec,
        ring: KeyRing,
        row: StoredRecord | None,
        problems: list[Problem],
        *,
        held: Verdict | None = None,
    ) -> Done:
        context = self._context
        state = ring.state(revoke_before=revoke_before(spec.revoke_before, last_state(row), valid=not problems))
        outcome = await context.write_row(key, obj, record_of(key, obj, created_at(obj), state.to_body()), row)
        assert not isinstance(outcome, Taken), "a SigningKey has no client id"
        wait: Done | None = None
        if problems:
            verdict = conditions.of_problems(problems)
        elif held is not None:
            verdict = held
        else:
            active = next((one.kid for one in ring.in_phase(KeyPhase.ACTIVE)), None)
            context.active_kid = active or conditions.ANY_KID
            verdict, wait = await context.propagation(key, outcome.revision, active)
        # The mount of a new key takes its time: the keys are shown before all replicas have it.
        await context.write_status(
            key, obj, [verdict], {"keys": status_keys(ring) or None, "secretName": spec.secret_name}
        )
        return wait or Done()

    async def _write(self, key: Key, obj: Object, found: KeySecret, ring: KeyRing, name: str) -> bool:
        """Creates or changes the Secret. False: someone was first, so read and decide again."""
        kube = self._context.kube
        path = collection("v1", "secrets", key.namespace)
        try:
            if found.finding is Finding.ABSENT:
                await kube.create(path, manifest(ring, namespace=key.namespace, name=name, owner=key.name))
            else:
                body = manifest(
                    ring, namespace=key.namespace, name=name, owner=key.name, resource_version=found.resource_version
                )
                await kube.apply(f"{path}/{name}", body)
        except (Conflict, NotFound):
            return False
        except Forbidden as error:
            if error.terminating:
                # The namespace goes, and the keys with it: nothing is made anew.
                raise NamespaceTerminates from error
            raise
        kids = {phase.value: [one.kid for one in ring.in_phase(phase)] for phase in KeyPhase if ring.in_phase(phase)}
        log.info("the Secret with the signing keys was written", object=str(key), secret=name, kids=kids)
        change = {"secret": {"old": found.finding.value, "new": name}, "kids": {"old": None, "new": kids}}
        audit.changed("grant_changed", obj=str(key), uid=obj["metadata"]["uid"], who=None, change=change)
        return True

    async def _tell_of_loss(self, key: Key, obj: Object, secret: str) -> None:
        text = f"Secret {secret} with the signing keys was gone: new keys were made, and the tokens that the old ones signed are refused."
        log.warning("the signing keys were lost and made anew", object=str(key), secret=secret)
        await self._context.event(key, obj, Verdict("False", SIGNING_KEYS_LOST, text))

    async def _withdraw(self, key: Key, uid: str, cause: str) -> None:
        known = self._context.rows.known(key)
        for one in {uid} | ({known.uid} if known is not None else set()):
            await self._context.withdraw(key, one, cause)
