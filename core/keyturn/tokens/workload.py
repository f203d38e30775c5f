"""Workload identity: a pod's projected ServiceAccount token as the client assertion (RFC 7523 with the cluster as the issuer).

Such a token is not of the client's own making: its issuer is the Kubernetes API server, its `jti` is not consumed (the kubelet hands the
same token out until it renews it), and everything that names the pod and its account has to fit what the operator has recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from keyturn.clients.state import PRIVATE_KEY_JWT, ClientState, WorkloadAccount
from keyturn.jose.keys import PublicKey
from keyturn.tokens import refusal
from keyturn.tokens.assertion import Clients, ReadAssertion, check_client, numeric_date
from keyturn.tokens.claims import string_list
from keyturn.tokens.refusal import TokenRefused

MAX_LIFETIME: Final = 3600
SUBJECT_PREFIX: Final = "system:serviceaccount:"
# Kubernetes: ServiceAccount token claims (KEP 1205).
_CLAIM: Final = "kubernetes.io"


class IssuerKeys(Protocol):
    """The keys of the cluster's issuer, by `kid`."""

    def get(self, kid: str) -> PublicKey | None: ...


@dataclass(frozen=True, slots=True)
class WorkloadPolicy:
    """`token_issuer`: the cluster's issuer; `audience`: ours. Seconds."""

    token_issuer: str
    audience: str
    clock_skew: float


@dataclass(frozen=True, slots=True)
class VerifiedWorkload:
    """A pod that has proven what it is, and the client that it therefore is."""

    client: ClientState
    account: WorkloadAccount
    pod_name: str
    pod_uid: str
    kid: str
    claims: Mapping[str, Any]


def subject_of(account: WorkloadAccount) -> str:
    """The `sub` of the account's tokens, and its user name for the API server."""
    return f"{SUBJECT_PREFIX}{account.namespace}:{account.name}"


def is_service_account(claims: Mapping[str, Any]) -> bool:
    """Whether the claims speak of a ServiceAccount. No client id begins like that, so that no assertion of a client's own does."""
    subject = claims.get("sub")
    return isinstance(subject, str) and subject.startswith(SUBJECT_PREFIX)


def verify_workload(
    assertion: ReadAssertion,
    *,
    clients: Clients,
    keys: IssuerKeys,
    policy: WorkloadPolicy,
    client_id: str | None,
    now: float,
) -> VerifiedWorkload:
    """Checks a ServiceAccount token of the cluster. `client_id` is the request's parameter.

    Raises `TokenRefused`, with reason `UNKNOWN_KEY` where the issuer's keys as loaded hold no key of this `kid`. What does not fit the
    named client is refused in one wording, whatever it is: a pod learns nothing about other clients.
    """
    jws, claims = assertion.jws, assertion.claims
    if claims.get("iss") != policy.token_issuer:
        raise TokenRefused(refusal.WRONG_ISSUER, "client_assertion: iss is not the cluster's issuer")
    if not client_id:
        # The token names no client of ours, so the request must (RFC 7521 section 4.2).
        raise TokenRefused(refusal.MISSING_CLIENT_ID, "client_id is required with a ServiceAccount's token")
    kid = jws.header.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        raise _not_proven(refusal.UNKNOWN_KEY)
    if jws.header.get("alg") != key.algorithm:
        raise _not_proven(refusal.WRONG_ALGORITHM)
    if not key.verify(jws.signing_input, jws.signature):
        raise _not_proven(refusal.BAD_SIGNATURE)
    _check_times(claims, policy.clock_skew, now)
    if string_list(claims.get("aud")) != [policy.audience]:
        raise TokenRefused(
            refusal.WRONG_AUDIENCE,
            "client_assertion: aud must be this issuer as the only value: give the projected volume this audience",
        )
    known = clients.client(client_id)
    if known is None:
        raise _not_its(refusal.UNKNOWN_CLIENT)
    client = known.state
    account = client.service_account
    if account is None or not account.uid or client.auth_method != PRIVATE_KEY_JWT:
        raise _not_its(refusal.WRONG_METHOD)
    bound = _member(claims, _CLAIM)
    if claims.get("sub") != subject_of(account) or bound.get("namespace") != account.namespace:
        raise _not_its(refusal.WRONG_SUBJECT)
    named = _member(bound, "serviceaccount")
    if named.get("name") != account.name or named.get("uid") != account.uid:
        raise _not_its(refusal.WRONG_SUBJECT)
    pod = _member(bound, "pod")
    pod_name, pod_uid = pod.get("name"), pod.get("uid")
    if not (isinstance(pod_name, str) and pod_name and isinstance(pod_uid, str) and pod_uid):
        raise TokenRefused(
            refusal.NOT_BOUND, "client_assertion: the token is not bound to a pod: use one from a projected volume"
        )
    check_client(client, now)
    return VerifiedWorkload(client, account, pod_name, pod_uid, key.kid, claims)


def _check_times(claims: Mapping[str, Any], skew: float, now: float) -> None:
    """RFC 7519 sections 4.1.4 to 4.1.6, and no token that was made to live longer than an hour."""
    expires_at, issued_at = numeric_date(claims, "exp"), numeric_date(claims, "iat")
    if expires_at is None or issued_at is None:
        raise TokenRefused(refusal.MISSING_CLAIM, "client_assertion: exp and iat are required")
    if now >= expires_at + skew:
        raise TokenRefused(refusal.EXPIRED, "client_assertion: it has expired")
    if expires_at - issued_at > MAX_LIFETIME:
        raise TokenRefused(
            refusal.TOO_LONG_LIVED, "client_assertion: it lives longer than an hour: lower expirationSeconds to 3600"
        )
    not_before = numeric_date(claims, "nbf")
    if issued_at > now + skew or (not_before is not None and not_before > now + skew):
        raise TokenRefused(refusal.NOT_YET_VALID, "client_assertion: iat or nbf lies in the future")


def _member(claims: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = claims.get(name)
    return value if isinstance(value, Mapping) else {}


def _not_proven(reason: str) -> TokenRefused:
    return TokenRefused(reason, "client_assertion: not signed by a key of the cluster's issuer", cause=reason)


def _not_its(reason: str) -> TokenRefused:
    return TokenRefused(reason, "client_assertion: it is no token of this client's ServiceAccount", cause=reason)
