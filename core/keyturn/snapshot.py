"""Everything that an API replica answers from, in memory: clients, signing keys, revocations and the route table.

A snapshot is read and changed on one event loop only. A change is first *prepared*, which may take long and touches nothing (a thread
may do it), and then *applied* between two requests, so that none sees half of it. `generation` grows with each: what was derived from
a snapshot holds exactly as long as both are the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from keyturn.clients.state import SOURCE_GENERATE_KEY, ClientKey, ClientState
from keyturn.jose.keys import KeyRejected, PublicKey, load
from keyturn.keys.schedule import MAX_JWKS_AGE
from keyturn.keys.state import KeyPhase, RingKey, SigningKeyState
from keyturn.records import Kind, Revocation, StoredRecord
from keyturn.rules.state import RuleState
from keyturn.rules.table import RouteTable
from keyturn.store.interface import Changes, Position

_log = structlog.get_logger("keyturn.snapshot")
# Expired revocations are swept out whenever there are twice as many as were left, but not for a few. One that stays a while
# longer refuses only a token that has expired too.
_SWEEP_FROM: Final = 1000


class Client:
    """A client with its keys prepared at their first use: ten thousand clients cost no key parsing at the start."""

    __slots__ = ("_keys", "ref", "state", "uid")

    def __init__(self, uid: str, state: ClientState, ref: str = "") -> None:
        self.uid = uid
        self.ref = ref  # namespace/name of its object
        self.state = state
        self._keys: dict[str, PublicKey | None] = {}

    def candidates(self, kid: str | None, now: float) -> list[PublicKey]:
        """The keys that count now and may have signed an assertion with this kid: one at most.

        RFC 7523 prescribes no kid. Without one it is the only registered key; and each of the generated ones where there are no others,
        so that a client which names none is not refused while the key that its Secret holds is being replaced.
        """
        keys = self.state.keys
        if kid is not None:
            named = [key for key in keys if key.kid == kid][:1]
        elif len(keys) == 1 or all(key.source == SOURCE_GENERATE_KEY for key in keys):
            named = list(keys)
        else:
            named = []
        found = (self._prepared(key) for key in named if key.is_current(now))
        return [key for key in found if key is not None]

    def _prepared(self, registered: ClientKey) -> PublicKey | None:
        if registered.kid not in self._keys:
            self._keys[registered.kid] = _prepare(registered.jwk, registered.algorithm)
        return self._keys[registered.kid]


def _prepare(jwk: Any, algorithm: str) -> PublicKey | None:
    try:
        key = load(jwk)
    except (KeyRejected, KeyError, ValueError) as error:
        _log.error("key_unusable", cause=type(error).__name__)
        return None
    return key if key.algorithm == algorithm else None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A change worked out, not applied yet."""

    position: Position
    born_at: float
    reset: bool
    removed: tuple[tuple[Kind, str], ...]
    clients: tuple[Client, ...]
    signing_keys: tuple[tuple[str, str, SigningKeyState], ...]  # uid, name, state
    rules: dict[str, tuple[str, RuleState]] | None  # by uid; None: unchanged
    table: RouteTable | None
    revocations: tuple[Revocation, ...]


@dataclass
class Snapshot:
    """The state of the world as this replica knows it. `signing_key_name`: the SigningKey that counts."""

    signing_key_name: str
    generation: int = 0
    position: Position | None = None
    born_at: float = 0.0
    clients: dict[str, Client] = field(default_factory=dict)
    signing: SigningKeyState | None = None
    table: RouteTable | None = None
    revocations: dict[str, float] = field(default_factory=dict)
    _client_ids: dict[str, str] = field(default_factory=dict)  # by uid
    _rules: dict[str, tuple[str, RuleState]] = field(default_factory=dict)
    _signing_uid: str | None = None
    _verification: dict[str, tuple[RingKey, PublicKey]] = field(default_factory=dict)
    _compromised: set[str] = field(default_factory=set)
    _distrusted_before: float = 0.0
    _sweep_above: int = _SWEEP_FROM

    @property
    def loaded(self) -> bool:
        """Whether the store's state has been read at least once."""
        return self.position is not None

    @property
    def applied_revision(self) -> int:
        return self.position.revision if self.position is not None else 0

    # What decisions read

    def client(self, client_id: str) -> Client | None:
        return self.clients.get(client_id)

    def client_state(self, client_id: str) -> ClientState | None:
        known = self.clients.get(client_id)
        return None if known is None else known.state

    def is_revoked(self, token_hash: str) -> bool:
        return token_hash in self.revocations

    @property
    def revoke_before(self) -> float | None:
        """Tokens of the whole installation issued before this moment count no more."""
        return None if self.signing is None else self.signing.revoke_before

    def verification_key(self, kid: str, now: float) -> PublicKey | None:
        """The signing key that tokens of this kid are verified with: published, not withdrawn, not past its removal."""
        found = self._verification.get(kid)
        if found is None:
            return None
        ring_key, key = found
        if ring_key.remove_at is not None and now >= ring_key.remove_at:
            return None
        return key

    def knows_kid(self, kid: str) -> bool:
        """Whether this is a signing key of ours, also one that has been withdrawn."""
        return kid in self._verification or kid in self._compromised

    def key_removed_at(self, kid: str) -> float | None:
        found = self._verification.get(kid)
        return None if found is None else found[0].remove_at

    def publishes(self, kid: str) -> bool:
        """Whether the JWKS has the key, for as long as it does."""
        return kid in self._verification

    def key_imported(self, kid: str) -> bool:
        """Whether the key signed elsewhere before it came here."""
        found = self._verification.get(kid)
        return found is not None and found[0].imported

    @property
    def jwks_max_age(self) -> int:
        """For how many seconds others may keep the JWKS."""
        cache = None if self.signing is None else self.signing.cache
        return MAX_JWKS_AGE if cache is None else min(MAX_JWKS_AGE, int(cache.now))

    @property
    def signing_serial(self) -> int:
        """The serial of the Secret that the store's signing keys follow; 0 while there are none."""
        return 0 if self.signing is None else self.signing.serial

    def published_keys(self, now: float) -> list[PublicKey]:
        """The keys of the JWKS, in the store's order."""
        return [key for kid in self._verification if (key := self.verification_key(kid, now)) is not None]

    def active_kid(self) -> str | None:
        """The key that signs. One that is not published never does."""
        if self.signing is None:
            return None
        for key in self.signing.keys:
            if key.phase is KeyPhase.ACTIVE and key.kid in self._verification:
                return key.kid
        return None

    # Changes

    def prepare(self, changes: Changes) -> Prepared:
        """Works a change out without touching the snapshot.

        A client or key that cannot be read is logged and counts as absent, which denies. A rule keeps its last readable form: without it
        a broader rule could allow what it forbade.
        """
        removed: list[tuple[Kind, str]] = []
        clients: list[Client] = []
        signing_keys: list[tuple[str, str, SigningKeyState]] = []
        rules = {} if changes.reset else self._rules
        changed_refs: set[str] = set()
        for stored in changes.records:
            record = stored.record
            # A row replaces whatever the same object had before, also where the new one cannot be read.
            removed.append((record.kind, record.uid))
            state = None if stored.deleted else _read(stored)
            if isinstance(state, ClientState):
                clients.append(Client(record.uid, state, f"{record.namespace}/{record.name}"))
            elif isinstance(state, SigningKeyState):
                signing_keys.append((record.uid, record.name, state))
            elif record.kind is Kind.ACCESS_RULE and (stored.deleted or isinstance(state, RuleState)):
                if rules is self._rules:
                    rules = dict(rules)
                if (former := rules.get(record.uid)) is not None:
                    changed_refs.add(former[0])
                if isinstance(state, RuleState):
                    ref = f"{record.namespace}/{record.name}"
                    rules[record.uid] = (ref, state)
                    changed_refs.add(ref)
                else:
                    rules.pop(record.uid, None)
            elif record.kind is Kind.ACCESS_RULE and changes.reset and record.uid in self._rules:
                # The store is another one, the object is the same: its last readable form still forbids what a broader rule allows.
                rules.setdefault(record.uid, self._rules[record.uid])
        table = None
        if changes.reset or self.table is None:
            table = RouteTable.build(rules.values())
        elif changed_refs:
            table = self.table.updated(_by_ref(rules.values(), changed_refs))
        return Prepared(
            position=changes.position,
            born_at=changes.born_at,
            reset=changes.reset,
            removed=tuple(removed),
            clients=tuple(clients),
            signing_keys=tuple(signing_keys),
            rules=None if table is None else rules,
            table=table,
            revocations=changes.revocations,
        )

    def apply(self, prepared: Prepared, *, now: float) -> list[Revocation]:
        """Makes a prepared change the truth. Returns the unexpired revocations that this replica held and a new store lacks."""
        unknown: list[Revocation] = []
        if prepared.reset:
            self.clients, self._client_ids = {}, {}
            self._set_signing(None, None)
            if self.loaded:
                # A store restored from a backup has its old birth, but not the jtis used since: what was signed before is not trusted.
                self._distrusted_before = now
                there = {revocation.token_hash for revocation in prepared.revocations}
                unknown = [
                    Revocation(token_hash, expires_at)
                    for token_hash, expires_at in self.revocations.items()
                    if expires_at > now and token_hash not in there
                ]
        for kind, uid in prepared.removed:
            self._remove(kind, uid)
        for client in prepared.clients:
            self.clients[client.state.client_id] = client
            self._client_ids[client.uid] = client.state.client_id
        for uid, name, signing in prepared.signing_keys:
            if name == self.signing_key_name:
                self._set_signing(uid, signing)
        if prepared.rules is not None:
            self._rules, self.table = prepared.rules, prepared.table
        for revocation in prepared.revocations:
            self.revocations[revocation.token_hash] = revocation.expires_at
        self.position = prepared.position
        self.born_at = max(prepared.born_at, self._distrusted_before)
        self.generation += 1
        if len(self.revocations) > self._sweep_above:
            self.revocations = {token: end for token, end in self.revocations.items() if end > now}
            self._sweep_above = max(_SWEEP_FROM, 2 * len(self.revocations))
        return unknown

    def revoke(self, revocation: Revocation) -> None:
        """One that this process has written into the store: it holds here at once."""
        self.revocations[revocation.token_hash] = revocation.expires_at
        self.generation += 1

    def withdraw(self, kids: Iterable[str]) -> None:
        """Keys that the mounted Secret calls compromised: that holds here too, from then on, whatever the store says."""
        new = set(kids) - self._compromised
        if new:
            self._compromised |= new
            self._set_signing(self._signing_uid, self.signing)
            self.generation += 1

    def _remove(self, kind: Kind, uid: str) -> None:
        if kind is Kind.CLIENT:
            client_id = self._client_ids.pop(uid, None)
            known = self.clients.get(client_id) if client_id is not None else None
            if known is not None and known.uid == uid:
                del self.clients[known.state.client_id]
        elif kind is Kind.SIGNING_KEY and uid == self._signing_uid:
            self._set_signing(None, None)

    def _set_signing(self, uid: str | None, state: SigningKeyState | None) -> None:
        self._signing_uid, self.signing = uid, state
        keys = () if state is None else state.keys
        # Once compromised, always: a store restored from a backup brings no such key back.
        self._compromised |= frozenset() if state is None else state.refused
        self._verification = {
            key.kid: (key, prepared)
            for key in keys
            if key.kid not in self._compromised and (prepared := _prepare(key.jwk, key.algorithm)) is not None
        }


def _by_ref(rules: Iterable[tuple[str, RuleState]], refs: set[str]) -> dict[str, list[RuleState]]:
    """What is in force of these rules: nothing, one state, or those of an object and the one made in its place."""
    states: dict[str, list[RuleState]] = {ref: [] for ref in refs}
    for ref, state in rules:
        if ref in refs:
            states[ref].append(state)
    return states


def _read(stored: StoredRecord) -> ClientState | SigningKeyState | RuleState | None:
    record = stored.record
    try:
        if record.kind is Kind.CLIENT:
            return ClientState.from_body(record.body)
        if record.kind is Kind.SIGNING_KEY:
            return SigningKeyState.from_body(record.body)
        return RuleState.from_body(record.body)
    except (KeyError, TypeError, ValueError) as error:
        _log.error(
            "record_unreadable",
            kind=record.kind,
            object=f"{record.namespace}/{record.name}",
            cause=type(error).__name__,
        )
        return None
