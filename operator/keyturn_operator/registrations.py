"""Self-registered clients: the hashes that the API leaves in Secrets, and the Secrets that a later one has replaced."""

import asyncio
import random
from dataclasses import dataclass
from typing import Any, Final

from keyturn.clients.registration import SECRET_TYPE, read_registration
from keyturn.clients.registration_secret import kept_registration, secret_of, with_registration
from keyturn.clients.state import ClientState
from keyturn.problems import Problem
from keyturn.records import Kind
from keyturn.store.interface import StoreError
from keyturn.timestamps import InvalidTimestamp, parse_rfc3339
from keyturn_operator.context import Context
from keyturn_operator.credential_secret import KIND, owner_reference
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import Conflict, KubeError, KubeUnavailable, NotFound
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Key
from keyturn_operator.references import SecretReferences
from keyturn_operator.secret_material import read_secret

log = get_logger("registrations")

SELECTOR: Final = f"type={SECRET_TYPE}"
"""The field selector of the Secrets that hold hashes of registrations, and of no others."""
GRACE: Final = 600.0
"""Seconds for which a Secret that another has replaced stays: the API may still take the replacement back."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The state with its registration. `unread`: why the Secret was not read or given its owner, to be raised after the row is written."""

    state: ClientState
    problems: list[Problem]
    unread: KubeError | KubeUnavailable | None = None


class Registrations:
    """Reads what belongs to a registration while its object is reconciled. `references`: who looks at which Secret."""

    def __init__(self, context: Context, references: SecretReferences) -> None:
        self._context = context
        self._references = references

    async def resolve(
        self, key: Key, obj: Object, state: ClientState, last: ClientState | None, *, valid: bool
    ) -> Resolved:
        """The state with what the object's registration says and its Secret holds."""
        registration = read_registration(obj.get("spec") or {}, obj["metadata"].get("labels") or {})
        name = secret_of(registration)
        # Before the Secret is read: it is made after its owner, and a change in between is seen by the watch.
        self._references.set(key, name)
        if registration is None:
            return Resolved(state, [])
        secret: Object | None = None
        if name is not None:
            try:
                secret = await self._context.kube.get(f"{collection('v1', 'secrets', key.namespace)}/{name}")
            except (KubeError, KubeUnavailable) as error:
                return Resolved(kept_registration(state, registration, last), [], error)
        material = read_secret(name or "", secret)
        kind = None if secret is None else secret.get("type")
        state, problems = with_registration(
            state,
            registration,
            kind=kind,
            data=material.data,
            origin=material.origin,
            last=last,
            valid=valid,
            own_secret="clientSecret" not in (obj.get("spec") or {}),
        )
        stuck = None if secret is None else await self._adopt(key, obj, secret)
        return Resolved(state, problems, stuck)

    async def _adopt(self, key: Key, obj: Object, secret: Object) -> KubeError | KubeUnavailable | None:
        patch = adoption(secret, obj)
        if patch is None:
            return None
        name = secret["metadata"]["name"]
        try:
            await self._context.kube.merge(f"{collection('v1', 'secrets', key.namespace)}/{name}", patch)
        except (NotFound, Conflict):
            # It has changed meanwhile: the watch brings the next look.
            return None
        except (KubeError, KubeUnavailable) as error:
            return error
        log.info("a restored Secret follows its client again", namespace=key.namespace, secret=name)
        return None

    def gone(self, key: Key) -> None:
        """The object is no more."""
        self._references.set(key, None)


def adoption(secret: Object, client: Object) -> Object | None:
    """The merge patch by which a restored Secret follows its client again; None where it does, or is another's.

    A backup cannot keep the owner, which comes back as another object (kubectl strips no references, and the garbage collector removes what
    refers to an object that is gone). Only a Secret that was made for a client of this name is taken, and only from its predecessor.
    """
    metadata, own = secret["metadata"], client["metadata"]
    made_for_it = secret.get("type") == SECRET_TYPE and metadata["name"].startswith(f"{own['name']}-")
    if not made_for_it or metadata.get("deletionTimestamp"):
        return None
    for reference in metadata.get("ownerReferences") or ():
        is_predecessor = (reference.get("kind"), reference.get("name")) == (KIND, own["name"])
        if not is_predecessor or reference.get("uid") == own["uid"]:
            return None
    named = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    return {"metadata": {**named, "ownerReferences": [owner_reference(client)]}}


class ReplacedSecrets:
    """Deletes the Secrets of registrations whose token has been replaced since: nobody else does as long as their owner lives."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Looks at every sweep's interval, until cancelled."""
        interval = self._context.settings.sweep_interval
        while True:
            await asyncio.sleep(interval * random.uniform(0.9, 1.1))  # noqa: S311
            try:
                # Registered clients are made in the release's namespace alone.
                await self.clean(self._context.settings.home)
            except (KubeError, KubeUnavailable, StoreError) as error:
                log.warning("replaced Secrets stay for now", cause=str(error))

    async def clean(self, namespace: str) -> None:
        """Deletes what is older than the grace and no longer named by its owner's row."""
        path = collection("v1", "secrets", namespace)
        secrets, _ = await self._context.kube.list_metadata(path, field_selector=SELECTOR)
        for secret in secrets:
            metadata = secret["metadata"]
            if self._age(metadata) > GRACE and await self._is_replaced(namespace, metadata):
                try:
                    await self._context.kube.remove(f"{path}/{metadata['name']}", uid=metadata["uid"])
                except NotFound:
                    continue
                log.info("a replaced Secret is deleted", namespace=namespace, secret=metadata["name"])

    def _age(self, metadata: dict[str, Any]) -> float:
        try:
            return self._context.now() - parse_rfc3339(metadata.get("creationTimestamp"))
        except InvalidTimestamp:
            return 0.0

    async def _is_replaced(self, namespace: str, metadata: dict[str, Any]) -> bool:
        for owner in metadata.get("ownerReferences") or ():
            row = await self._context.rows.get(
                Key(Kind.CLIENT, namespace, str(owner.get("name"))), str(owner.get("uid"))
            )
            # An owner without a row is gone, or not reconciled yet: the garbage collector, or a later look, decides.
            if row is not None:
                registration = row.record.body.get("registration") or {}
                return registration.get("secretName") not in (None, metadata["name"])
        return False
