"""What a SigningKey's status says, and what is read back from it."""

from collections.abc import Mapping
from typing import Any, Final

from keyturn import reasons
from keyturn.keys.plan import Rotation
from keyturn.keys.recovery import ShownKey
from keyturn.keys.ring import KeyRing
from keyturn.keys.schedule import Ceilings, Policy, next_rotation
from keyturn.keys.state import KeyPhase, RingKey
from keyturn.timestamps import InvalidTimestamp, format_rfc3339, parse_rfc3339
from keyturn_operator.conditions import Verdict
from keyturn_operator.key_secret import Finding, KeySecret
from keyturn_operator.settings import PAUSED_ANNOTATION
from keyturn_operator.signing_key_spec import COMPROMISED_ANNOTATION, Withdrawal

MAX_KEYS: Final = 32
IMPORTED: Final = "Imported"
KEYS_EXIST: Final = "KeysExist"


def shown_keys(status: Mapping[str, Any]) -> tuple[ShownKey, ...]:
    """The keys that the status shows, as far as they can be read."""
    listed = status.get("keys")
    shown = []
    for key in listed if isinstance(listed, list) else ():
        if not isinstance(key, Mapping) or key.get("state") not in set(KeyPhase):
            continue
        phase = KeyPhase(str(key["state"]))
        shown.append(ShownKey(str(key.get("kid")), phase, _time(key.get("createdAt")), _time(key.get("removeAt"))))
    return tuple(shown)


def _time(text: object) -> float | None:
    try:
        return None if text is None else parse_rfc3339(text)
    except InvalidTimestamp:
        return None


def status_fields(ring: KeyRing, policy: Policy, limits: Ceilings, *, secret_name: str) -> dict[str, Any]:
    """The status beside its conditions. Of many keys the ones that sign, the withdrawn ones and the latest retired ones are shown."""
    due = next_rotation(ring, policy, limits)
    signing = [status_key(key) for key in ring.keys if key.phase in (KeyPhase.ACTIVE, KeyPhase.NEXT)]
    refused = [{"kid": kid, "state": KeyPhase.COMPROMISED.value} for kid in ring.withdrawn]
    refused = [*refused, *map(status_key, ring.in_phase(KeyPhase.COMPROMISED))][-MAX_KEYS // 2 :]
    retired = [status_key(key) for key in ring.in_phase(KeyPhase.RETIRED)][-(MAX_KEYS - len(signing) - len(refused)) :]
    shown = [*signing, *retired, *refused]
    return {
        "keys": shown or None,
        "secretName": secret_name,
        "nextRotationAt": None if due is None else format_rfc3339(due),
    }


def status_key(key: RingKey) -> dict[str, Any]:
    """One key as the status shows it."""
    times = {
        "createdAt": key.created_at,
        "publishedAt": key.published_at,
        "activatedAt": key.activated_at,
        "retiredAt": key.retired_at,
        "removeAt": key.remove_at,
    }
    stamps = {name: format_rfc3339(time) for name, time in times.items() if time is not None}
    shown = {"kid": key.kid, "state": key.phase.value, "algorithm": key.algorithm, "size": key.size, **stamps}
    return {**shown, "imported": True} if key.imported else shown


def refusal(found: KeySecret, name: str) -> Verdict | None:
    """Why the Secret cannot be used; None when it can."""
    match found.finding:
        case Finding.CONFLICT:
            text = f"Secret {name} is left as it is, for {found.detail}: take that out, or name another secretName."
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
        return Verdict("False", reasons.SIGNING_KEYS_LOST, text)
    return Verdict("Unknown", reasons.PENDING, "The signing keys are being made.")


def held() -> Verdict:
    """Ready while the object is paused and new keys would be due."""
    text = f"The annotation {PAUSED_ANNOTATION} holds the signing keys as they are."
    return Verdict("False", reasons.PAUSED, text)


def pending(rotation: Rotation | None, ring: KeyRing) -> Verdict:
    """RotationPending: whether a rotation waits, for what, and until when."""
    if rotation is None or rotation.blocked is None:
        return Verdict("False", reasons.NOTHING_PENDING, "No rotation waits.", reasons.ROTATION_PENDING)
    following = next((key.kid for key in ring.in_phase(KeyPhase.NEXT)), "")
    when = "" if rotation.until is None else f", until {format_rfc3339(rotation.until)}"
    why = {
        reasons.NEXT_TOO_YOUNG: f"the next key {following} has not been published for publishBefore yet{when}",
        reasons.NEXT_NOT_PUBLISHED: f"not every API replica publishes the next key {following} yet",
        reasons.NEXT_NOT_LOADED: f"not every API replica has loaded the next key {following} yet",
        reasons.TOO_MANY_KEYS: f"too many retired keys still have tokens that count{when}",
        reasons.PAUSED: f"the annotation {PAUSED_ANNOTATION} holds it back",
    }[rotation.blocked]
    text = f"A rotation ({rotation.cause.value.lower()}) waits: {why}."
    return Verdict("True", rotation.blocked, text, reasons.ROTATION_PENDING)


def invalidated(ring: KeyRing, limits: Ceilings, *, now: float) -> Verdict:
    """TokensInvalidated: for as long as a token that still seems good may be refused because its key was lost or withdrawn."""
    texts = {
        reasons.SIGNING_KEYS_LOST: "the signing keys were lost and made anew",
        reasons.KEYS_COMPROMISED: "signing keys were withdrawn as compromised",
    }
    return _of_incidents(
        ring,
        limits,
        texts,
        kind=reasons.TOKENS_INVALIDATED,
        text="Tokens issued before {at} may be refused: {what}. Clients get new ones as always.",
        over="No token is refused for a lost or withdrawn key.",
        now=now,
    )


def restored(ring: KeyRing, limits: Ceilings, *, now: float) -> Verdict:
    """SecretRestored: an older Secret came back, and was not signed with."""
    texts = {reasons.OLDER_SECRET: "an older Secret with signing keys came back"}
    return _of_incidents(
        ring,
        limits,
        texts,
        kind=reasons.SECRET_RESTORED,
        text="At {at} {what}. Its keys are not signed with unless they still were in use; lost ones were made anew.",
        over="The Secret is the latest that was written.",
        now=now,
    )


def incomplete(asked: Withdrawal, ring: KeyRing) -> Verdict:
    """WithdrawalIncomplete: whether the annotation names less than whoever set it may believe."""
    kind = reasons.WITHDRAWAL_INCOMPLETE
    if asked.problem:
        return Verdict("True", reasons.ANNOTATION_INVALID, asked.problem, kind)
    noted = ring.incident(reasons.UNKNOWN_KID)
    unknown = [kid for kid in (() if noted is None else noted.kids) if kid in asked.kids]
    if not unknown:
        return Verdict(
            "False", reasons.OVER, "Every kid that the annotation names is that of a key, or it names none.", kind
        )
    text = (
        f"No key has the kid {', '.join(unknown)}, which {COMPROMISED_ANNOTATION} names: it is noted, should one come back, "
        "and no key was withdrawn for it. The kids stand in status.keys."
    )
    return Verdict("True", reasons.UNKNOWN_KID, text, kind)


def _of_incidents(
    ring: KeyRing, limits: Ceilings, texts: Mapping[str, str], *, kind: str, text: str, over: str, now: float
) -> Verdict:
    recent = [one for one in ring.incidents if one.reason in texts and limits.tokens.end(one.at) > now]
    if not recent:
        return Verdict("False", reasons.OVER, over, kind)
    last = max(recent, key=lambda one: one.at)
    return Verdict("True", last.reason, text.format(at=format_rfc3339(last.at), what=texts[last.reason]), kind)


def of_import(ring: KeyRing) -> Verdict:
    """Imported: whether the key that importFrom names was adopted."""
    if ring.imported is not None:
        return Verdict("True", reasons.ACCEPTED, f"The key {ring.imported} was adopted as the first one.", IMPORTED)
    text = (
        "importFrom is not acted on: it counts before the first keys are made, and the Secret held keys already. "
        "To start from the imported key, delete this object and its Secret, and create it anew."
    )
    return Verdict("False", KEYS_EXIST, text, IMPORTED)
