"""What `keyturn doctor` makes of the facts: one finding a check, with what to do about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from keyturn import reasons

from .facts import component
from .rights import FORBIDDEN, NEEDED
from .signing_key import condition, shown_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .facts import Facts

# An assertion's times are accepted with 30 s of difference by default; half of it is a warning.
CLOCK_WRONG: Final = 30.0
CLOCK_WARNING: Final = 5.0
# What these programs write and read; a CRD without it is older than they are.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "ClientCredential": (
        *("spec.publicKeys", "spec.permissions", "spec.audiences", "spec.suspended", "spec.expiresAt"),
        *("spec.revokeTokensIssuedBefore", "spec.generateKey", "spec.clientSecret", "spec.serviceAccount"),
        *("spec.registration", "status.keys", "status.secrets", "status.lastTokenIssuedAt", "status.conditions"),
    ),
    "SigningKey": ("spec.rotateEvery", "spec.revokeTokensIssuedBefore", "status.keys", "status.conditions"),
    "AccessRule": ("spec.hosts", "spec.routes", "spec.mode", "status.conditions"),
}


class Outcome(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """`todo` is empty where nothing is to be done."""

    check: str
    outcome: Outcome
    message: str
    todo: str = ""

    def to_body(self) -> dict[str, str]:
        return {"check": self.check, "outcome": str(self.outcome), "message": self.message, "todo": self.todo}


def examine(facts: Facts) -> list[Finding]:
    """All checks, in the order in which a fault in one explains those after it."""
    checks = (crds, versions, rights, service, store, replicas, revisions, clocks, signing_key, mounted, objects)
    return [*(check(facts) for check in checks), gateway(facts), public(facts)]


def crds(facts: Facts) -> Finding:
    if facts.schemas is None:
        return _unknown(facts, "CRDs", "schemas")
    if gone := [kind for kind in FIELDS if kind not in facts.schemas]:
        todo = "Install the chart keyturn-crds, once in the cluster."
        return Finding("CRDs", Outcome.WRONG, f"Not served: {', '.join(gone)}.", todo)
    absent = [
        f"{kind} {path}" for kind, paths in FIELDS.items() for path in paths if not _has(facts.schemas[kind], path)
    ]
    if absent:
        todo = "Upgrade the chart keyturn-crds before the installation."
        return Finding("CRDs", Outcome.WRONG, f"Fields that are not there: {', '.join(absent)}.", todo)
    return Finding("CRDs", Outcome.OK, "All kinds are served with all fields.")


def versions(facts: Facts) -> Finding:
    found = {component(one): _version(one) for one in facts.deployments or ()}
    if facts.api_version:
        found["api"] = facts.api_version
    found = {part: version for part, version in found.items() if version}
    if not found:
        return _unknown(facts, "versions", "deployments", "Nothing says which versions run.")
    said = ", ".join(
        f"{part} {version}" for part, version in [*sorted(found.items()), ("this command", facts.cli_version)]
    )
    if len(set(found.values())) > 1:
        todo = "Finish the upgrade: operator and API are released together."
        return Finding("versions", Outcome.WRONG, f"They differ: {said}.", todo)
    if set(found.values()) != {facts.cli_version}:
        return Finding("versions", Outcome.WARNING, f"They differ: {said}.", "Install this command in their version.")
    return Finding("versions", Outcome.OK, f"{said}.")


def rights(facts: Facts) -> Finding:
    if facts.rights is None:
        return _unknown(facts, "RBAC", "rights", "The parts' ServiceAccounts are not known.")
    missing = [
        f"{facts.accounts[part]} may not {right}"
        for part, held in facts.rights.items()
        for right in NEEDED[part]
        if not held.get(right)
    ]
    beyond = [
        f"{facts.accounts[part]} may {right}"
        for part, held in facts.rights.items()
        for right in FORBIDDEN.get(part, ())
        if held.get(right)
    ]
    if missing:
        todo = "Install the chart's roles again; without them the part stands still at what it may not do."
        return Finding("RBAC", Outcome.WRONG, f"{_some(missing)}.", todo)
    if beyond:
        return Finding(
            "RBAC", Outcome.WARNING, f"{_some(beyond)}.", "Take that right away: the API needs it for nothing."
        )
    return Finding(
        "RBAC", Outcome.OK, f"{' and '.join(sorted(facts.accounts.values()))} have the rights that they need."
    )


def service(facts: Facts) -> Finding:
    if facts.url is None:
        return Finding("service", Outcome.UNKNOWN, "Nothing says where it is.", "Name it with --url.")
    if facts.ready is None:
        todo = "Check the API's pods and its Service, or --url."
        return Finding("service", Outcome.WRONG, facts.unread.get("service", "It does not answer."), todo)
    status, causes = facts.ready
    if status != 200:
        todo = "Look at the API's log; the following checks say more."
        return Finding("service", Outcome.WRONG, f"It is not ready: {', '.join(causes) or f'HTTP {status}'}.", todo)
    return Finding("service", Outcome.OK, f"It is ready at {facts.url}.")


def store(facts: Facts) -> Finding:
    causes = facts.ready[1] if facts.ready else ()
    away = [one for one in _every(facts) if condition(one, reasons.READY).get("reason") == reasons.STORE_UNAVAILABLE]
    todo = "Check the database, its Secret with the URL, and the network policies between."
    if away:
        return Finding("store", Outcome.WRONG, f"The operator can't reach it: {_names(away)}.", todo)
    if blocked := {"snapshot_not_loaded", "snapshot_stale"} & set(causes):
        return Finding("store", Outcome.WRONG, f"The API can't read it: {', '.join(sorted(blocked))}.", todo)
    if facts.ready is None:
        return Finding("store", Outcome.UNKNOWN, "The service does not answer.", "")
    return Finding("store", Outcome.OK, "The API has read it, and no object waits for it.")


def replicas(facts: Facts) -> Finding:
    if not facts.deployments:
        return _unknown(facts, "replicas", "deployments", "There is no Deployment of the chart in the namespace.")
    short = []
    for one in facts.deployments:
        status, wanted = one.get("status") or {}, int((one.get("spec") or {}).get("replicas", 1))
        ready = int(status.get("readyReplicas") or 0)
        if ready < wanted or int(status.get("updatedReplicas") or 0) < wanted:
            short.append(f"{one['metadata']['name']} has {ready} of {wanted} ready")
    if short:
        return Finding("replicas", Outcome.WRONG, f"{_some(short)}.", "Look at the pods: kubectl describe pods.")
    return Finding("replicas", Outcome.OK, "All are ready and up to date.")


def revisions(facts: Facts) -> Finding:
    waiting = [
        one
        for one in _every(facts)
        if condition(one, reasons.READY).get("reason") in (reasons.NO_REPLICA, reasons.PROPAGATING)
    ]
    if waiting:
        todo = "If it lasts for more than a few seconds, look at the log of the replica that is behind."
        return Finding("revisions", Outcome.WRONG, f"Not applied everywhere yet: {_names(waiting)}.", todo)
    if not facts.revisions:
        return _unknown(facts, "revisions", "revisions", "No replica's metrics could be read; every object is applied.")
    if len(set(facts.revisions.values())) > 1:
        said = ", ".join(f"{name} {number}" for name, number in sorted(facts.revisions.items()))
        todo = "Ask again: a second's difference is usual. If it lasts, restart the one behind and keep its log."
        return Finding("revisions", Outcome.WARNING, f"The replicas differ: {said}.", todo)
    return Finding(
        "revisions",
        Outcome.OK,
        f"{len(facts.revisions)} replica(s) at revision {next(iter(facts.revisions.values()))}.",
    )


def clocks(facts: Facts) -> Finding:
    if not facts.offsets:
        return Finding("clocks", Outcome.UNKNOWN, "No other clock could be read.", "")
    name, offset = max(facts.offsets.items(), key=lambda pair: abs(pair[1]))
    todo = "Set the clocks (NTP): assertions and tokens have times."
    said = f"{name}'s clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's."
    if abs(offset) > CLOCK_WRONG:
        return Finding("clocks", Outcome.WRONG, said[0].upper() + said[1:], todo)
    if abs(offset) > CLOCK_WARNING:
        return Finding("clocks", Outcome.WARNING, said[0].upper() + said[1:], todo)
    return Finding("clocks", Outcome.OK, f"{' and '.join(sorted(facts.offsets))} and this machine agree.")


def signing_key(facts: Facts) -> Finding:
    if facts.signing_keys is None:
        return _unknown(facts, "signing key", "signingkeys")
    used = [one for one in facts.signing_keys if condition(one, reasons.READY).get("reason") != reasons.NOT_USED]
    if not used:
        todo = "Make a SigningKey by the name in the installation's settings (keyturn)."
        return Finding("signing key", Outcome.WRONG, "The installation has none.", todo)
    for one in used:
        ready = condition(one, reasons.READY)
        if ready.get("status") != "True":
            said = ready.get("message") or "The operator has said nothing of it: it may not be running."
            todo = f"kubectl describe signingkey {one['metadata']['name']} -n {facts.namespace}"
            return Finding("signing key", Outcome.WRONG, f"{one['metadata']['name']} is not Ready. {said}", todo)
    return Finding("signing key", Outcome.OK, f"{used[0]['metadata']['name']} is Ready.")


def mounted(facts: Facts) -> Finding:
    if facts.ready is not None and "active_signing_key_missing" in facts.ready[1]:
        todo = "Check that the API's pods mount the SigningKey's Secret as a directory; the kubelet may take a minute."
        return Finding("keys mounted", Outcome.WRONG, "The API has no active signing key.", todo)
    if facts.published is None or facts.signing_keys is None:
        return Finding("keys mounted", Outcome.UNKNOWN, "The service's keys, or the SigningKey, could not be read.", "")
    wanted = {
        kid for one in facts.signing_keys for kid, state in shown_keys(one).items() if state in ("Active", "Next")
    }
    if gone := wanted - facts.published:
        todo = "Check that --url is this installation's, and that the operator reaches the store."
        return Finding("keys mounted", Outcome.WRONG, f"Not in the JWKS: {_some(sorted(gone))}.", todo)
    return Finding("keys mounted", Outcome.OK, "The active key signs, and it and the next one are published.")


def objects(facts: Facts) -> Finding:
    if facts.clients is None and facts.rules is None:
        return _unknown(facts, "objects", "clientcredentials")
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
        return Finding("objects", Outcome.WARNING, f"{len(bad)} of {count} are not in order: {_names(bad)}.", todo)
    return Finding("objects", Outcome.OK, f"{count} client(s) and rule(s) are in order.")


def gateway(facts: Facts) -> Finding:
    if facts.profile == "envoy-grpc":
        return Finding("gateway headers", Outcome.UNKNOWN, "The gateway asks by gRPC, which is not tried here.", "")
    probe = facts.probe
    if probe is None:
        return _unknown(facts, "gateway headers", "gateway", "The service was not asked.")
    if probe.plain >= 500 or probe.plain in (400, 404):
        todo = f"Check KEYTURN_GATEWAY_PROFILE ({facts.profile} was tried) or --gateway-profile."
        return Finding(
            "gateway headers", Outcome.WRONG, f"/auth answers {probe.plain} to the gateway's question.", todo
        )
    if probe.forged != probe.plain:
        todo = "KEYTURN_TRUST_USER_HEADERS must list the edge gateway alone in KEYTURN_TRUSTED_PEERS; else turn it off."
        said = f"Made-up identity headers change the answer from {probe.plain} to {probe.forged}."
        return Finding("gateway headers", Outcome.WRONG, said, todo)
    if probe.plain == 200:
        said = "/auth answers 200 without a token, so the gateway must read the header mia-allowed."
        return Finding("gateway headers", Outcome.WARNING, said, "Use KEYTURN_STRICT unless the gateway reads it.")
    return Finding(
        "gateway headers", Outcome.OK, f"Made-up identity headers count for nothing ({probe.plain} either way)."
    )


def public(facts: Facts) -> Finding:
    if facts.public_url is None:
        return Finding(
            "public paths", Outcome.UNKNOWN, "They were not tried.", "Name the public URL with --public-url."
        )
    if facts.exposed is None:
        return _unknown(facts, "public paths", "exposed")
    # A gateway that knows nothing of the path says 404, or sends to its own login; ours says anything else.
    open_ones = [path for path, status in facts.exposed.items() if status != 404 and not 300 <= status < 400]
    if open_ones:
        todo = "Publish the public paths only, as the chart's Ingress and HTTPRoute do."
        return Finding("public paths", Outcome.WRONG, f"Reached from outside: {', '.join(open_ones)}.", todo)
    return Finding("public paths", Outcome.OK, f"{facts.public_url} publishes nothing that is private.")


def _unknown(facts: Facts, check: str, name: str, else_said: str = "It could not be read.") -> Finding:
    cause = facts.unread.get(name)
    return Finding(check, Outcome.UNKNOWN, cause or else_said, "Ask with more rights." if cause else "")


def _has(schema: Mapping[str, Any], path: str) -> bool:
    for part in path.split("."):
        following = (schema.get("properties") or {}).get(part)
        if not isinstance(following, dict):
            return False
        schema = following
    return True


def _version(deployment: Mapping[str, Any]) -> str:
    return str((deployment["metadata"].get("labels") or {}).get("app.kubernetes.io/version", ""))


def _every(facts: Facts) -> Iterable[Mapping[str, Any]]:
    return (*(facts.signing_keys or ()), *(facts.clients or ()), *(facts.rules or ()))


def _names(objects: Iterable[Mapping[str, Any]]) -> str:
    return _some([f"{one.get('kind', '')} {one['metadata']['name']}" for one in objects])


def _some(texts: list[str]) -> str:
    return "; ".join(texts[:5]) + (f"; and {len(texts) - 5} more" if len(texts) > 5 else "")
