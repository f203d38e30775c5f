"""The checks of the installation's objects: what runs, who acts, and what has come of what people wrote. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyturn import reasons

from . import release
from .client_view import moment, span
from .finding import Finding, Outcome, every, names, some, unknown
from .signing_key import condition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .facts import Facts

# The operator looks at a change at once; a new one has the Lease 15 s after another died.
PATIENCE: Final = 30.0
OVERLOOKED: Final = "See what is said of the operator, and look at its log."


def replicas(facts: Facts) -> Finding:
    if not facts.deployments:
        return unknown(facts, "replicas", "deployments", "There is no Deployment of the chart in the namespace.")
    short = [f"the Deployment of the {part} is not there" for part in release.PARTS if not _part(facts, part)]
    for one in facts.deployments:
        status, wanted = one.get("status") or {}, int((one.get("spec") or {}).get("replicas", 1))
        ready = int(status.get("readyReplicas") or 0)
        if wanted == 0:
            short.append(f"{one['metadata']['name']} is scaled to 0")
        elif ready < wanted or int(status.get("updatedReplicas") or 0) < wanted:
            short.append(f"{one['metadata']['name']} has {ready} of {wanted} ready")
    if short:
        todo = "Look at the Deployments and pods: kubectl describe deployments, pods."
        return Finding("replicas", Outcome.WRONG, f"{_sentence(some(short))}.", todo)
    return Finding("replicas", Outcome.OK, "All are ready and up to date.")


def operator(facts: Facts) -> Finding:
    """Whether one acts: its Lease says so, whatever its pods look like."""
    if facts.lease is None:
        return unknown(facts, "operator", "lease")
    spec = facts.lease.get("spec") or {}
    holder, renewed = str(spec.get("holderIdentity") or ""), moment(spec.get("renewTime"))
    todo = "Look at the operator's pods and their log: without one, no change of any object takes effect."
    if not holder or renewed is None:
        said = "Nobody holds its Lease, so that none acts."
        return Finding(
            "operator", Outcome.WRONG, said if facts.lease else "It has no Lease: none ever acted here.", todo
        )
    quiet = facts.now - renewed
    if quiet > float(spec.get("leaseDurationSeconds") or 0) + PATIENCE:
        return Finding("operator", Outcome.WRONG, f"None acts: the Lease was renewed last {span(quiet)} ago.", todo)
    return Finding("operator", Outcome.OK, f"{holder.partition('_')[0]} acts.")


def revisions(facts: Facts) -> Finding:
    waiting = [
        one
        for one in every(facts)
        if condition(one, reasons.READY).get("reason") in (reasons.NO_REPLICA, reasons.PROPAGATING)
    ]
    if waiting:
        todo = "If it lasts for more than a few seconds, look at the log of the replica that is behind."
        return Finding("revisions", Outcome.WRONG, f"Not applied everywhere yet: {names(waiting)}.", todo)
    if not facts.revisions:
        return unknown(facts, "revisions", "revisions", "No replica's metrics could be read; every object is applied.")
    if len(set(facts.revisions.values())) > 1:
        said = ", ".join(f"{name} {number}" for name, number in sorted(facts.revisions.items()))
        todo = "Ask again: a second's difference is usual. If it lasts, restart the one behind and keep its log."
        return Finding("revisions", Outcome.WARNING, f"The replicas differ: {said}.", todo)
    return Finding(
        "revisions",
        Outcome.OK,
        f"{len(facts.revisions)} replica(s) at revision {next(iter(facts.revisions.values()))}.",
    )


def signing_key(facts: Facts) -> Finding:
    if facts.signing_keys is None:
        return unknown(facts, "signing key", "signingkeys")
    used = [one for one in facts.signing_keys if condition(one, reasons.READY).get("reason") != reasons.NOT_USED]
    if not used:
        todo = "Make a SigningKey by the name in the installation's settings (keyturn)."
        return Finding("signing key", Outcome.WRONG, "The installation has none.", todo)
    for one in used:
        ready = condition(one, reasons.READY)
        if ready and is_overlooked(one, facts.now):
            said = f"The operator has not looked at the last change of {one['metadata']['name']}."
            return Finding("signing key", Outcome.WRONG, said, OVERLOOKED)
        if ready.get("status") != "True":
            said = ready.get("message") or "The operator has said nothing of it: it may not be running."
            todo = f"kubectl describe signingkey {one['metadata']['name']} -n {facts.namespace}"
            return Finding("signing key", Outcome.WRONG, f"{one['metadata']['name']} is not Ready. {said}", todo)
    return Finding("signing key", Outcome.OK, f"{used[0]['metadata']['name']} is Ready.")


def objects(facts: Facts) -> Finding:
    if facts.clients is None and facts.rules is None:
        return unknown(facts, "objects", "clientcredentials")
    if behind := [one for one in (*(facts.clients or ()), *(facts.rules or ())) if is_overlooked(one, facts.now)]:
        return Finding("objects", Outcome.WRONG, f"The operator has not looked at: {names(behind)}.", OVERLOOKED)
    harmless = (reasons.SUSPENDED, reasons.EXPIRED, reasons.PAUSED, reasons.PENDING)
    bad = []
    for one in (*(facts.clients or ()), *(facts.rules or ())):
        ready = condition(one, reasons.READY)
        if (ready.get("status") == "False" and ready.get("reason") not in harmless) or condition(
            one, reasons.CONFLICTING
        ).get("status") == "True":
            bad.append(one)
    count = len(facts.clients or ()) + len(facts.rules or ())
    if bad:
        todo = "Read their conditions: kubectl describe says what to change."
        return Finding("objects", Outcome.WARNING, f"{len(bad)} of {count} are not in order: {names(bad)}.", todo)
    return Finding("objects", Outcome.OK, f"{count} client(s) and rule(s) are in order.")


def is_overlooked(obj: Mapping[str, Any], now: float) -> bool:
    """Whether the operator has said nothing of the object as it is, for longer than it takes."""
    ready, generation = condition(obj, reasons.READY), obj["metadata"].get("generation")
    seen = (obj.get("status") or {}).get("observedGeneration") or ready.get("observedGeneration")
    if ready and (generation is None or seen == generation):
        return False
    changed = _changed_at(obj["metadata"])
    return changed is None or now - changed > PATIENCE


def _changed_at(metadata: Mapping[str, Any]) -> float | None:
    """When something other than its status was written last, as far as its field managers say."""
    written = [
        moment(one.get("time"))
        for one in metadata.get("managedFields") or ()
        if isinstance(one, dict) and one.get("subresource") is None
    ]
    times = [one for one in (*written, moment(metadata.get("creationTimestamp"))) if one is not None]
    return max(times, default=None)


def _part(facts: Facts, name: str) -> bool:
    return release.part(facts.deployments, name) is not None


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
