"""Makes registered clients in the cluster, and sees to it that they are in force before anybody is told of them, or not there at all."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from keyturn.clients.state import ClientState
from keyturn.snapshot import Client, Snapshot
from keyturn.store.interface import ReplicaRegistry, StoreUnavailable
from keyturn_api.errors import ApiError, unavailable
from keyturn_api.kubernetes import API_VERSION, Kubernetes, KubernetesError, Object, Refused, Unreachable, path
from keyturn_api.logs import get_logger
from keyturn_api.registered_objects import hashes, registration_secret
from keyturn_api.registration_request import invalid_metadata
from keyturn_api.snapshot_changes import SnapshotChanges

_log = get_logger("registration")
_PLURAL: Final = "clientcredentials"
_TAKE_BACK_TRIES: Final = 3
_TAKE_BACK_PAUSE: Final = 0.5
_RETRY_AFTER: Final = 10
# How long the other replicas are waited for: mostly they are as far a second later. One that has just died is waited for in vain.
_OTHERS: Final = 3.0
_LOOK_EVERY: Final = 0.1
_SEEN: Final = 30.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """The hashes that go into a client's Secret, and the Secret's name."""

    secret_name: str
    client_secret_hash: str | None = field(repr=False)
    registration_token_hash: str | None = field(repr=False)

    def are_in_force(self, client: Client) -> bool:
        """Whether the client's state holds them."""
        registration = client.state.registration
        token = self.registration_token_hash
        secret = self.client_secret_hash
        return (token is None or (registration is not None and registration.token_hash == token)) and (
            secret is None or any(one.hash == secret for one in client.state.secrets)
        )


class Registrar:
    """Creates, changes and deletes ClientCredentials, each within `seconds` of waiting for this process's own snapshot.

    Each method raises `ApiError` 503 when that does not happen, having taken back what can be taken back.
    """

    def __init__(
        self,
        kubernetes: Kubernetes,
        snapshot: Snapshot,
        changes: SnapshotChanges,
        replicas: ReplicaRegistry,
        *,
        replica_id: str,
        seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kubernetes = kubernetes
        self._snapshot = snapshot
        self._changes = changes
        self._replicas = replicas
        self._replica_id = replica_id
        self._seconds = seconds
        self._clock = clock
        self.namespace = kubernetes.namespace

    def client_id(self, name: str) -> str:
        """The id of the client that an object of this name is."""
        return f"{self.namespace}.{name}"

    async def create(self, obj: Object, credentials: Credentials | None) -> Client:
        """Makes the object and its Secret and returns the client once it is in force."""
        name = obj["metadata"]["name"]
        try:
            made = await self._kubernetes.create(path(API_VERSION, _PLURAL, namespace=self.namespace), obj)
        except Unreachable as error:
            # It may have been made all the same.
            await self._take_back(name, None)
            raise _unavailable(error) from None
        except Refused as error:
            raise _refused(error) from None
        uid = str(made["metadata"]["uid"])
        try:
            if credentials is not None:
                await self.create_secret(made, credentials)
            return await self._in_force(self.client_id(name), uid, credentials, obj["spec"])
        except BaseException:
            # The Secret follows its owner.
            await asyncio.shield(self._take_back(name, uid))
            raise

    async def create_secret(self, owner: Object, credentials: Credentials) -> None:
        """Makes the Secret from which the operator takes these hashes."""
        members = hashes(
            client_secret=credentials.client_secret_hash, registration_token=credentials.registration_token_hash
        )
        try:
            await self._kubernetes.create(
                path("v1", "secrets", namespace=self.namespace),
                registration_secret(credentials.secret_name, owner, members),
            )
        except KubernetesError as error:
            raise _unavailable(error) from None

    async def read(self, name: str, uid: str) -> Object | None:
        """The object as it is, by a patch that changes nothing: this service may patch and not get. None where it is gone."""
        return await self.patch(name, {"metadata": {"uid": uid}})

    async def patch(self, name: str, change: Object) -> Object | None:
        """Merge-patches the object; None where it is gone, or another one or another version than the change names."""
        try:
            return await self._kubernetes.patch(self._path(name), change)
        except Refused as error:
            if error.status in (404, 409):
                return None
            raise _refused(error) from None
        except KubernetesError as error:
            raise _unavailable(error) from None

    async def update(self, before: Object, spec: Object, credentials: Credentials) -> Client | None:
        """Changes the object from `before`, as just read, and returns the client once that is in force.

        None where somebody else has changed the object since.
        """
        name, metadata = before["metadata"]["name"], before["metadata"]
        guard = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        after = await self.patch(name, {"metadata": guard, "spec": spec})
        if after is None:
            return None
        try:
            return await self._in_force(self.client_id(name), str(metadata["uid"]), credentials)
        except BaseException:
            former = {member: _former(before["spec"].get(member), value) for member, value in spec.items()}
            await asyncio.shield(self._put_back(after, former))
            raise

    async def delete(self, name: str, uid: str, *, resource_version: str | None = None) -> bool:
        """Deletes exactly this object (of this version); whether that was the one that was there."""
        try:
            return await self._kubernetes.delete(self._path(name), uid=uid, resource_version=resource_version)
        except Refused as error:
            if error.status == 409:
                return False
            raise _refused(error) from None
        except KubernetesError as error:
            raise _unavailable(error) from None

    async def wait_gone(self, client_id: str, uid: str) -> None:
        """Returns once the client is in force no more."""

        def gone() -> bool:
            client = self._snapshot.client(client_id)
            return client is None or client.uid != uid

        if not await self._changes.wait_until(gone, self._seconds):
            raise unavailable(
                "the client is deleted, which is not in force yet", reason="not_in_force", retry_after=_RETRY_AFTER
            )
        await self._wait_for_others()

    async def _in_force(
        self, client_id: str, uid: str, credentials: Credentials | None, sent: Object | None = None
    ) -> Client:
        """The client once it has these credentials, and all of the spec that was `sent`."""

        def current() -> Client | None:
            client = self._snapshot.client(client_id)
            if client is None or client.uid != uid or (credentials and not credentials.are_in_force(client)):
                return None
            return client if sent is None or _holds(client.state, sent) else None

        await self._changes.wait_until(lambda: current() is not None, self._seconds)
        client = current()
        if client is None:
            _log.warning("registration_not_in_force", client_id=client_id, seconds=self._seconds)
            raise unavailable(
                "nothing was registered: the operator did not act in time",
                reason="not_in_force",
                retry_after=_RETRY_AFTER,
            )
        await self._wait_for_others()
        return client

    async def _wait_for_others(self) -> None:
        """The next request may reach another replica: they are given a moment, and no more than that."""
        revision, deadline = self._snapshot.applied_revision, self._clock() + _OTHERS
        while True:
            try:
                replicas = await self._replicas.replicas(seen_since=self._clock() - _SEEN)
            except StoreUnavailable:
                return
            if all(one.applied_revision >= revision or one.id == self._replica_id for one in replicas):
                return
            if self._clock() >= deadline:
                return
            await asyncio.sleep(_LOOK_EVERY)

    async def _take_back(self, name: str, uid: str | None) -> None:
        for _ in range(_TAKE_BACK_TRIES):
            try:
                await self._kubernetes.delete(self._path(name), uid=uid)
                return
            except Refused as error:
                cause = str(error)
                break
            except KubernetesError as error:
                cause = str(error)
                await asyncio.sleep(_TAKE_BACK_PAUSE)
        # Nobody knows its credentials: it grants nothing and is removed like any other that nobody approves.
        _log.error("registration_left_over", object=f"{self.namespace}/{name}", cause=cause)

    async def _put_back(self, after: Object, former: Object) -> None:
        metadata = after["metadata"]
        cause = "somebody else has changed the object since"
        for _ in range(_TAKE_BACK_TRIES):
            guard = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
            try:
                if await self.patch(metadata["name"], {"metadata": guard, "spec": former}) is not None:
                    return
                # A status that was written meanwhile is no reason to leave the update in place; an edit of the spec is.
                now = await self.read(metadata["name"], str(metadata["uid"]))
                if now is None or now["metadata"].get("generation") != metadata.get("generation"):
                    break
                metadata = now["metadata"]
            except ApiError as error:
                cause = error.cause
                await asyncio.sleep(_TAKE_BACK_PAUSE)
        _log.error("update_left_over", object=f"{self.namespace}/{metadata['name']}", cause=cause)

    def _path(self, name: str) -> str:
        return path(API_VERSION, _PLURAL, namespace=self.namespace, name=name)


def _holds(state: ClientState, spec: Object) -> bool:
    """Whether the client has what the spec gives it. More is no fault: somebody may have approved it already."""
    keys = {key.kid for key in state.keys}
    return (
        all(one["jwk"]["kid"] in keys for one in spec.get("publicKeys", ()))
        and set(spec.get("permissions", ())) <= set(state.permissions)
        and set(spec.get("audiences", ())) <= set(state.audiences)
        and set(spec.get("allowedCustomClaims", ())) <= set(state.allowed_custom_claims)
        and (state.suspended or not spec.get("suspended"))
    )


def _former(before: object, change: object) -> object:
    """What a merge patch must say to undo a change of one member (RFC 7396)."""
    if isinstance(before, dict) and isinstance(change, dict):
        return {name: _former(before.get(name), value) for name, value in change.items()}
    return before


def _unavailable(error: KubernetesError) -> ApiError:
    _log.warning("kubernetes_failed", cause=str(error))
    return unavailable("Kubernetes does not answer", reason="kubernetes", retry_after=_RETRY_AFTER, cause=str(error))


def _refused(error: Refused) -> ApiError:
    if error.status in (400, 422):
        # What the schema refuses and was not found here. Its message may repeat what was sent.
        _log.info("kubernetes_refused", cause=str(error))
        return invalid_metadata(
            "the client cannot be kept as it is: too much, or in a form that is not allowed", reason="invalid"
        )
    # No right, a quota, a namespace that goes: nothing that the caller can mend.
    _log.error("kubernetes_refused", cause=str(error))
    return unavailable("clients cannot be kept now", reason="kubernetes", retry_after=_RETRY_AFTER, cause=str(error))
