"""Generated keys and secrets of clients: looked at, decided on, announced to the replicas, handed out in a Secret.

A new one goes three ways in this order: its public half into the client's row, until every replica has applied that; its private half
into the Secret, with the record, in one write; and its predecessor's end into the row. So nobody is given what a replica would refuse,
and an operator that dies in between leaves the Secret and the row as either one can be gone on from.
"""

import contextlib
import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from keyturn import reasons
from keyturn.clients.credentials import Credential, SecretRecord, of_row
from keyturn.clients.rotation import (
    Known,
    RotationPlan,
    accepted_with,
    announced,
    decide,
    handed_out,
)
from keyturn.clients.secret import new_secret_id
from keyturn.clients.sources import CredentialKind, GenerateSpec
from keyturn.clients.state import ClientState
from keyturn.jose.algorithms import RS256
from keyturn.problems import Problem
from keyturn.secrets import hash_generated
from keyturn_operator import conditions, credential_events
from keyturn_operator.context import Context
from keyturn_operator.credential_secret import (
    CLIENT_SECRET,
    MATERIAL,
    CredentialSecret,
    Finding,
    beside,
    change,
    emptied,
    handed_over,
    inspect,
    key_members,
    manifest,
    record_of,
)
from keyturn_operator.key_maker import KeyMaker
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import Conflict, Forbidden, NamespaceTerminates, NotFound
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Done, Key
from keyturn_operator.replicas import Wait
from keyturn_operator.secret_material import members
from keyturn_operator.settings import ROTATE_ANNOTATION
from keyturn_operator.written_secrets import WrittenSecrets

log = get_logger("credentials")

SECRET_BYTES = 32
ANNOUNCE_PATIENCE = 10.0
"""Seconds after which a new credential is handed out although a replica has not applied it: that one is stuck, and holds up nobody else."""
SLOT = "client"


@dataclass
class Minted:
    """A credential that exists in this process only, until it is handed out."""

    kind: CredentialKind
    size: int
    fresh: Credential
    material: Mapping[str, bytes] = field(repr=False)
    revision: int | None = None
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the generated credentials come to this time. `making`: the first one is being made."""

    wish: GenerateSpec | None = None
    found: CredentialSecret | None = None
    plan: RotationPlan | None = None
    accepted: tuple[Credential, ...] = ()
    problems: tuple[Problem, ...] = ()
    minted: Minted | None = field(default=None, repr=False)
    making: bool = False
    asked: str | None = None
    client_id: str = ""
    may_write: bool = False
    moved_from: str | None = None

    @property
    def serial(self) -> int:
        """How many were made for the client."""
        return self.plan.serial if self.plan is not None else 0


@dataclass(frozen=True, slots=True)
class HandedOut:
    """What came of handing out: what is accepted now and the serial, or when to look again (`wait`)."""

    accepted: tuple[Credential, ...]
    serial: int
    wait: Done | None = None


class Credentials:
    """The generated credentials of all clients."""

    def __init__(self, context: Context, maker: KeyMaker, written: WrittenSecrets) -> None:
        self._context = context
        self._maker = maker
        self._written = written
        self._minted: dict[Key, Minted] = {}
        self._postponed: set[Key] = set()

    async def look(
        self, key: Key, obj: Object, wish: GenerateSpec, last: ClientState | None, *, client_id: str, may_make: bool
    ) -> Outlook:
        """Reads the Secret and decides; makes what is to be made, and writes nothing. Raises what the Kubernetes API raises."""
        context = self._context
        now = context.now()
        metadata = obj["metadata"]
        path = f"{collection('v1', 'secrets', key.namespace)}/{wish.secret_name}"
        found = inspect(await context.kube.get(path), uid=metadata["uid"], name=key.name)
        asked = (metadata.get("annotations") or {}).get(ROTATE_ANNOTATION)
        record = found.whole if found.record is not None and found.record.kind is wish.kind else None
        known = _known(last, wish.kind, found, uid=metadata["uid"])
        plan = decide(wish, record, known, asked=asked, now=now)
        former = last.generated if last is not None else None
        moved_from = former.secret_name if former is not None and former.secret_name != wish.secret_name else None
        outlook = Outlook(
            wish,
            found,
            plan,
            plan.accepted,
            asked=asked,
            client_id=client_id,
            may_write=may_make,
            moved_from=moved_from,
        )
        if found.finding is Finding.CONFLICT:
            fault = (
                f"Secret {wish.secret_name} {found.detail} and is left as it is: name another secretName, or take that out of it, "
                "and the operator makes its own"
            )
            problem = Problem(reasons.SECRET_CONFLICT, f"{wish.field}.secretName", fault)
            self.forget(key)
            return dataclasses.replace(outlook, problems=(problem,))
        if plan.make is None or not may_make or found.finding is Finding.LEAVING:
            self.forget(key)
            return outlook
        minted = self._mint(key, wish, now)
        if minted is None:
            return dataclasses.replace(outlook, making=True)
        return dataclasses.replace(outlook, minted=minted, accepted=announced(plan, minted.fresh))

    def unread(self, wish: GenerateSpec, last: ClientState | None) -> Outlook:
        """While the Secret cannot be read: what the row accepts, with the ends that the spec asks for. Nothing is made."""
        known = _known(last, wish.kind, None, uid="")
        plan = decide(wish, None, known, asked=None, now=self._context.now())
        return Outlook(wish, None, plan, plan.accepted)

    async def hand_out(self, key: Key, obj: Object, outlook: Outlook, revision: int, *, retain: bool) -> HandedOut:
        """Writes the Secret, once every replica has applied the row (`revision`) that announces what it will hold.

        Where there is nothing new, what others changed beside is put right.
        """
        wish, found, plan = outlook.wish, outlook.found, outlook.plan
        as_it_is = HandedOut(outlook.accepted, outlook.serial)
        if wish is None or found is None or plan is None or not outlook.may_write or outlook.problems:
            return as_it_is
        if found.finding is Finding.LEAVING:
            return dataclasses.replace(as_it_is, wait=Done(again=1.0))
        await self._tell_of_postponement(key, obj, plan)
        uid = obj["metadata"]["uid"]
        now = self._context.now()
        minted = outlook.minted
        if minted is None:
            if plan.record is None or found.secret is None or outlook.making:
                return as_it_is
            record = dataclasses.replace(plan.record, uid=uid, retain=retain)
            present = members(found.secret)
            material = {name: present[name] for name in MATERIAL[wish.kind]}
            tidied = await self._write(key, obj, found, record, material, outlook)
            return as_it_is if tidied else dataclasses.replace(as_it_is, wait=Done(again=0.2))
        if (wait := await self._not_applied(key, minted, revision)) is not None:
            return dataclasses.replace(as_it_is, wait=wait)
        record = dataclasses.replace(
            handed_out(plan, minted.fresh, wish, uid=uid, asked=outlook.asked, now=now), retain=retain
        )
        if not await self._write(key, obj, found, record, minted.material, outlook):
            return dataclasses.replace(as_it_is, wait=Done(again=0.2))
        self.forget(key)
        await self._tell(key, obj, outlook, record)
        return HandedOut(accepted_with(record, plan), record.serial)

    async def leave(self, key: Key, keep: str | None, *, provided: str | None = None, gone: bool = False) -> None:
        """Takes what was written for the object out of all Secrets but `keep`.

        `provided`: a Secret that is its author's own from now on. `gone`: there is no such object any more; a Secret that we created for it
        follows it by owner reference then, or was to be retained.
        """
        kube = self._context.kube
        for name in sorted(self._written.of(key) - {keep}):
            path = f"{collection('v1', 'secrets', key.namespace)}/{name}"
            secret = await kube.get(path)
            record = None if secret is None else record_of(secret["metadata"])
            if secret is None or record is None or secret["metadata"].get("deletionTimestamp"):
                self._written.forget(key.namespace, name)
                continue
            if name != provided and record.created and (record.retain or gone):
                continue
            with contextlib.suppress(NotFound):
                await kube.merge(path, handed_over(secret) if name == provided else emptied(secret, record))
            self._written.forget(key.namespace, name)
            log.info("what was written was taken out of a Secret", object=str(key), secret=name, gone=gone)

    def forget(self, key: Key) -> None:
        """What was made for the object and not handed out is not wanted."""
        self._minted.pop(key, None)
        self._maker.forget(key)

    def gone(self, key: Key) -> None:
        """There is no such object any more."""
        self.forget(key)
        self._postponed.discard(key)

    def _mint(self, key: Key, wish: GenerateSpec, now: float) -> Minted | None:
        minted = self._minted.get(key)
        if minted is not None and (minted.kind, minted.size) == (wish.kind, wish.size):
            return minted
        if wish.kind is CredentialKind.SECRET:
            value = secrets.token_urlsafe(SECRET_BYTES).encode("ascii")
            fresh = Credential(new_secret_id(), now, hash=hash_generated(value))
            minted = Minted(wish.kind, wish.size, fresh, {CLIENT_SECRET: value})
        else:
            made = self._maker.collect(key, (SLOT,), algorithm=RS256, size=wish.size)
            if made is None:
                return None
            private = made[SLOT]
            fresh = Credential(private.kid, now, jwk=private.public.jwk)
            minted = Minted(wish.kind, wish.size, fresh, key_members(private))
        self._minted[key] = minted
        return minted

    async def _not_applied(self, key: Key, minted: Minted, revision: int) -> Done | None:
        """When to look again, while replicas do not accept the new one yet."""
        context = self._context
        if minted.revision is None:
            minted.since = context.clock()
        minted.revision = revision
        verdict = conditions.of_propagation(await context.replicas.live(), revision)
        if verdict.reason != reasons.PROPAGATING:
            return None
        left = minted.since + ANNOUNCE_PATIENCE - context.clock()
        if left <= 0:
            log.warning("handed out before every replica has applied it", object=str(key), replicas=verdict.message)
            return None
        context.replicas.wait_for(key, Wait(revision))
        return Done(again=left + 0.01)

    async def _write(
        self,
        key: Key,
        obj: Object,
        found: CredentialSecret,
        record: SecretRecord,
        material: Mapping[str, bytes],
        outlook: Outlook,
    ) -> bool:
        """Creates or changes the Secret. False: someone was first, so read and decide again."""
        assert outlook.wish is not None
        kube = self._context.kube
        name = outlook.wish.secret_name
        path = collection("v1", "secrets", key.namespace)
        data = {**material, **beside(record, outlook.client_id, self._context.settings)}
        try:
            if found.secret is None:
                await kube.create(path, manifest(record, data, namespace=key.namespace, name=name, owner=obj))
            else:
                body = change(found, record, data, owner=obj)
                if body is None:
                    return True
                await kube.merge(f"{path}/{name}", body)
                if outlook.minted is None and "data" in body:
                    await self._tell_of_repair(key, obj, name, sorted(body["data"]))
        except (Conflict, NotFound):
            return False
        except Forbidden as error:
            if error.terminating:
                raise NamespaceTerminates from error
            raise
        self._written.note(key, name)
        return True

    async def _tell(self, key: Key, obj: Object, outlook: Outlook, record: SecretRecord) -> None:
        assert outlook.wish is not None
        assert outlook.plan is not None
        name, cause = outlook.wish.secret_name, outlook.plan.make
        log.info(
            "a client's credential was made",
            object=str(key),
            secret=name,
            kind=outlook.wish.kind.value,
            id=record.current.id,
            cause=None if cause is None else cause.value,
            serial=record.serial,
        )
        verdict = credential_events.handed_out(outlook.wish, record, cause, moved=outlook.moved_from is not None)
        if verdict is not None:
            await self._context.event(key, obj, verdict)

    async def _tell_of_postponement(self, key: Key, obj: Object, plan: RotationPlan) -> None:
        """Once, when a rotation that is due has to wait."""
        if not plan.postponed:
            self._postponed.discard(key)
        elif key not in self._postponed:
            self._postponed.add(key)
            await self._context.event(key, obj, credential_events.postponed())

    async def _tell_of_repair(self, key: Key, obj: Object, name: str, changed: list[str]) -> None:
        log.warning("members of a Secret were put right", object=str(key), secret=name, members=", ".join(changed))
        await self._context.event(key, obj, credential_events.put_right(name, changed))


def _known(last: ClientState | None, kind: CredentialKind, found: CredentialSecret | None, *, uid: str) -> Known:
    """What was made and counts, by the row; by the record of a Secret that lost its key, where the row knows less."""
    serial = last.generated.serial if last is not None and last.generated is not None else None
    known = Known(serial, of_row(last, kind))
    record = found.record if found is not None else None
    unusable = found is not None and found.finding in (Finding.INCOMPLETE, Finding.CONFLICT)
    if record is not None and unusable and record.uid == uid and record.kind is kind and record.serial > (serial or 0):
        return Known(record.serial, (record.current, *record.previous))
    return known
