"""What `keyturn doctor` makes of the facts: one finding a check, with what to do about it. Pure."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from keyturn import reasons

from . import release
from .finding import Finding, Outcome, every, names, some, unknown
from .object_checks import objects, operator, replicas, revisions, signing_key
from .rights import FORBIDDEN
from .signing_key import condition, shown_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def examine(facts: Facts) -> list[Finding]:
    """All checks, in the order in which a fault in one explains those after it."""
    first = (crds, versions, rights, replicas, operator, service, store, revisions, clocks, signing_key, mounted)
    return [check(facts) for check in (*first, objects, gateway, public)]


def crds(facts: Facts) -> Finding:
    if facts.schemas is None:
        return unknown(facts, "CRDs", "schemas")
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
    found = {release.component(one): release.version(one) for one in facts.deployments or ()}
    if facts.api_version:
        found["api"] = facts.api_version
    found = {part: version for part, version in found.items() if version}
    if not found:
        return unknown(facts, "versions", "deployments", "Nothing says which versions run.")
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
        return unknown(facts, "RBAC", "rights", "The parts' ServiceAccounts are not known.")
    missing = [
        f"{facts.accounts[part]} may not {right}"
        for part, held in facts.rights.items()
        for right, given in held.items()
        if not given and right not in FORBIDDEN.get(part, ())
    ]
    beyond = [
        f"{facts.accounts[part]} may {right}"
        for part, held in facts.rights.items()
        for right in FORBIDDEN.get(part, ())
        if held.get(right)
    ]
    if missing:
        todo = "Install the chart's roles again; without them the part stands still at what it may not do."
        return Finding("RBAC", Outcome.WRONG, f"{some(missing)}.", todo)
    if beyond:
        return Finding(
            "RBAC", Outcome.WARNING, f"{some(beyond)}.", "Take that right away: the API needs it for nothing."
        )
    return Finding(
        "RBAC", Outcome.OK, f"{' and '.join(sorted(facts.accounts.values()))} have the rights that they need."
    )


def service(facts: Facts) -> Finding:
    if facts.service is None:
        return Finding("service", Outcome.UNKNOWN, "Nothing says where it is.", "Name it with --url.")
    if facts.barred:
        return Finding("service", Outcome.UNKNOWN, facts.unread.get("service", ""), facts.barred)
    if facts.ready is None:
        todo = "Check the API's pods and its Service, or --url."
        return Finding("service", Outcome.WRONG, facts.unread.get("service", "It does not answer."), todo)
    status, causes = facts.ready
    if status == 404:
        todo = "Name the address inside the cluster, or leave --url out: the public one does not publish it."
        return Finding("service", Outcome.WRONG, f"{facts.service} has no /readyz.", todo)
    if status != 200:
        todo = "Look at the API's log; the following checks say more."
        return Finding("service", Outcome.WRONG, f"It is not ready: {', '.join(causes) or f'HTTP {status}'}.", todo)
    return Finding("service", Outcome.OK, f"It is ready ({facts.service}).")


def store(facts: Facts) -> Finding:
    causes = facts.ready[1] if facts.ready else ()
    away = [one for one in every(facts) if condition(one, reasons.READY).get("reason") == reasons.STORE_UNAVAILABLE]
    todo = "Check the database, its Secret with the URL, and the network policies between."
    if away:
        return Finding("store", Outcome.WRONG, f"The operator can't reach it: {names(away)}.", todo)
    if blocked := {"snapshot_not_loaded", "snapshot_stale"} & set(causes):
        return Finding("store", Outcome.WRONG, f"The API can't read it: {', '.join(sorted(blocked))}.", todo)
    if facts.ready is None or (facts.ready[0] != 200 and not causes):
        return Finding("store", Outcome.UNKNOWN, "The service does not say.", "")
    return Finding("store", Outcome.OK, "The API has read it, and no object waits for it.")


def clocks(facts: Facts) -> Finding:
    if not facts.offsets:
        return Finding("clocks", Outcome.UNKNOWN, "No other clock could be read.", "")
    # Two that are off to either side of this machine are further from one another than from it.
    every_clock = [*facts.offsets.items(), ("this machine", 0.0)]
    (one, ahead), (other, behind) = max(combinations(every_clock, 2), key=lambda pair: abs(pair[0][1] - pair[1][1]))
    apart = ahead - behind
    todo = "Set the clocks (NTP): assertions and tokens have times."
    said = f"{one}'s clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} {other}'s."
    if abs(apart) > CLOCK_WRONG:
        return Finding("clocks", Outcome.WRONG, said[0].upper() + said[1:], todo)
    if abs(apart) > CLOCK_WARNING:
        return Finding("clocks", Outcome.WARNING, said[0].upper() + said[1:], todo)
    return Finding("clocks", Outcome.OK, f"{' and '.join(sorted(facts.offsets))} and this machine agree.")


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
        return Finding("keys mounted", Outcome.WRONG, f"Not in the JWKS: {some(sorted(gone))}.", todo)
    return Finding("keys mounted", Outcome.OK, "The active key signs, and it and the next one are published.")


def gateway(facts: Facts) -> Finding:
    if facts.profile == "envoy-grpc":
        return Finding("gateway headers", Outcome.UNKNOWN, "The gateway asks by gRPC, which is not tried here.", "")
    probe = facts.probe
    if probe is None:
        return unknown(facts, "gateway headers", "gateway", "The service was not asked.")
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
        return unknown(facts, "public paths", "exposed")
    # A gateway that knows nothing of the path says 404, or sends to its own login; ours says anything else.
    open_ones = [path for path, status in facts.exposed.items() if status != 404 and not 300 <= status < 400]
    if open_ones:
        todo = "Publish the public paths only, as the chart's Ingress and HTTPRoute do."
        return Finding("public paths", Outcome.WRONG, f"Reached from outside: {', '.join(open_ones)}.", todo)
    return Finding("public paths", Outcome.OK, f"{facts.public_url} publishes nothing that is private.")


def _has(schema: Mapping[str, Any], path: str) -> bool:
    for part in path.split("."):
        following = (schema.get("properties") or {}).get(part)
        if not isinstance(following, dict):
            return False
        schema = following
    return True
