"""Projected ServiceAccount tokens: a right one proves its client, and each rule has a token that only it refuses."""

import hashlib
from typing import Any

import pytest

from keyturn.clients.state import CLIENT_SECRET_BASIC, WorkloadAccount
from keyturn.jose.signing import PrivateKey
from keyturn.tokens import refusal
from keyturn.tokens.assertion import read_assertion, verify_assertion
from keyturn.tokens.refusal import TokenRefused
from keyturn.tokens.workload import VerifiedWorkload, WorkloadPolicy, is_service_account, verify_workload
from tests.sample_keys import sample_key
from tests.unit.tokens.test_assertion import BORN, POLICY
from tests.unit.tokens.worlds import CLIENT_ID, ISSUER, MISSING, NOW, World, changed, encode

CLUSTER = "https://kubernetes.default.svc"
KEY = sample_key(number=4)
WORKLOADS = WorkloadPolicy(CLUSTER, ISSUER, clock_skew=10)
ACCOUNT = WorkloadAccount("team", "app", "uid-account")
BOUND = {
    "namespace": "team",
    "serviceaccount": {"name": "app", "uid": "uid-account"},
    "pod": {"name": "app-1", "uid": "uid-pod"},
    "node": {"name": "node-1", "uid": "uid-node"},
}


def claims(**changes: Any) -> dict[str, Any]:
    base = {
        "iss": CLUSTER,
        "sub": "system:serviceaccount:team:app",
        "aud": [ISSUER],
        "iat": NOW - 60,
        "nbf": NOW - 60,
        "exp": NOW - 60 + 3600,
        "jti": "one",
        "kubernetes.io": BOUND,
    }
    return changed(base, changes)


def token(key: PrivateKey = KEY, header: dict[str, Any] | None = None, **changes: Any) -> bytes:
    return encode(key, changed({"alg": key.algorithm, "kid": key.kid}, header or {}), claims(**changes))


def bound(**changes: Any) -> dict[str, Any]:
    return changed(BOUND, changes)


def world(**changes: Any) -> World:
    made = World()
    made.change_client(**{"keys": (), "service_account": ACCOUNT, **changes})
    return made


def verify(
    given: bytes, *, client_id: str | None = CLIENT_ID, of: World | None = None, **more: Any
) -> VerifiedWorkload:
    keys = {KEY.kid: KEY.public}
    read = read_assertion(given)
    more = {"keys": keys, "policy": WORKLOADS, "now": NOW, **more}
    return verify_workload(read, clients=of or world(), client_id=client_id, **more)


def refused(given: bytes, **more: Any) -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        verify(given, **more)
    return caught.value


def test_a_right_token_proves_its_client() -> None:
    verified = verify(token())
    assert verified.client.client_id == CLIENT_ID
    assert (verified.account, verified.pod_name, verified.pod_uid) == (ACCOUNT, "app-1", "uid-pod")
    assert verified.kid == KEY.kid


def test_the_same_token_counts_again_for_as_long_as_the_kubelet_hands_it_out() -> None:
    given = token()
    assert verify(given) == verify(given)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_token_counts_for_every_kind_of_key_that_an_api_server_signs_with(algorithm: str) -> None:
    key = sample_key(algorithm, 5)
    assert verify(token(key), keys={key.kid: key.public}).client.client_id == CLIENT_ID


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"aud": ISSUER}, id="the audience as a string"),
        pytest.param({"jti": MISSING}, id="without a jti, as older clusters make them"),
        pytest.param({"nbf": MISSING}, id="without nbf"),
        pytest.param(
            {"iat": NOW + 9, "nbf": NOW + 9, "exp": NOW + 3609}, id="from a clock ahead by less than the skew"
        ),
        pytest.param({"iat": NOW - 3609, "exp": NOW - 9}, id="past its end by less than the skew"),
        pytest.param({"kubernetes.io": bound(node=MISSING)}, id="without a node"),
    ],
)
def test_a_token_counts(changes: dict[str, Any]) -> None:
    assert verify(token(**changes)).client.client_id == CLIENT_ID


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"iss": "https://other.example"}, refusal.WRONG_ISSUER, id="another issuer"),
        pytest.param({"iss": MISSING}, refusal.WRONG_ISSUER, id="no issuer"),
        pytest.param({"aud": [CLUSTER]}, refusal.WRONG_AUDIENCE, id="the API server's audience"),
        pytest.param({"aud": [ISSUER, CLUSTER]}, refusal.WRONG_AUDIENCE, id="our audience and another"),
        pytest.param({"aud": [ISSUER, ISSUER]}, refusal.WRONG_AUDIENCE, id="our audience twice"),
        pytest.param({"aud": []}, refusal.WRONG_AUDIENCE, id="no audience"),
        pytest.param({"aud": MISSING}, refusal.WRONG_AUDIENCE, id="aud missing"),
        pytest.param({"aud": {"a": ISSUER}}, refusal.WRONG_AUDIENCE, id="aud of another form"),
        pytest.param({"aud": [f"{ISSUER}/oauth/token"]}, refusal.WRONG_AUDIENCE, id="the token endpoint as audience"),
        pytest.param({"aud": [f"{ISSUER}/"]}, refusal.WRONG_AUDIENCE, id="our audience with a slash more"),
        pytest.param({"exp": MISSING}, refusal.MISSING_CLAIM, id="no end"),
        pytest.param({"iat": MISSING}, refusal.MISSING_CLAIM, id="no begin"),
        pytest.param({"exp": "soon"}, refusal.INVALID_CLAIM, id="an end that is no time"),
        pytest.param({"iat": NOW - 3610, "exp": NOW - 10}, refusal.EXPIRED, id="expired"),
        pytest.param(
            {"iat": NOW - 60, "exp": NOW - 60 + 3601}, refusal.TOO_LONG_LIVED, id="made for more than an hour"
        ),
        pytest.param(
            {"iat": NOW - 5000, "exp": NOW + 60}, refusal.TOO_LONG_LIVED, id="made for more than an hour, near its end"
        ),
        pytest.param({"iat": NOW + 11, "exp": NOW + 900}, refusal.NOT_YET_VALID, id="issued in the future"),
        pytest.param({"nbf": NOW + 11}, refusal.NOT_YET_VALID, id="valid in the future"),
        pytest.param({"sub": "system:serviceaccount:team:other"}, refusal.WRONG_SUBJECT, id="sub of another account"),
        pytest.param({"sub": "system:serviceaccount:other:app"}, refusal.WRONG_SUBJECT, id="sub of another namespace"),
        pytest.param({"sub": CLIENT_ID}, refusal.WRONG_SUBJECT, id="sub of the client itself"),
        pytest.param({"sub": MISSING}, refusal.WRONG_SUBJECT, id="no sub"),
        pytest.param({"kubernetes.io": MISSING}, refusal.WRONG_SUBJECT, id="no claims of Kubernetes"),
        pytest.param({"kubernetes.io": "team"}, refusal.WRONG_SUBJECT, id="claims of Kubernetes that are no object"),
        pytest.param({"kubernetes.io": bound(namespace="other")}, refusal.WRONG_SUBJECT, id="another namespace"),
        pytest.param({"kubernetes.io": bound(namespace=MISSING)}, refusal.WRONG_SUBJECT, id="no namespace"),
        pytest.param(
            {"kubernetes.io": bound(serviceaccount={"name": "other", "uid": "uid-account"})},
            refusal.WRONG_SUBJECT,
            id="another account",
        ),
        pytest.param(
            {"kubernetes.io": bound(serviceaccount={"name": "app", "uid": "uid-before"})},
            refusal.WRONG_SUBJECT,
            id="an account that was made anew since",
        ),
        pytest.param(
            {"kubernetes.io": bound(serviceaccount={"name": "app"})}, refusal.WRONG_SUBJECT, id="an account without uid"
        ),
        pytest.param({"kubernetes.io": bound(serviceaccount=MISSING)}, refusal.WRONG_SUBJECT, id="no account"),
        pytest.param({"kubernetes.io": bound(pod=MISSING)}, refusal.NOT_BOUND, id="not bound to a pod"),
        pytest.param({"kubernetes.io": bound(pod={"name": "app-1"})}, refusal.NOT_BOUND, id="a pod without uid"),
        pytest.param({"kubernetes.io": bound(pod={"uid": "uid-pod"})}, refusal.NOT_BOUND, id="a pod without name"),
        pytest.param(
            {"kubernetes.io": bound(pod={"name": "", "uid": ""})}, refusal.NOT_BOUND, id="a pod of empty words"
        ),
        pytest.param(
            {"kubernetes.io": bound(pod=MISSING, secret={"name": "s", "uid": "uid-s"})},
            refusal.NOT_BOUND,
            id="bound to a Secret instead",
        ),
    ],
)
def test_a_token_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert refused(token(**changes)).reason == reason


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        pytest.param({"kid": MISSING}, refusal.UNKNOWN_KEY, id="no kid"),
        pytest.param({"kid": "other"}, refusal.UNKNOWN_KEY, id="the kid of a key that is not loaded"),
        pytest.param({"alg": "PS256"}, refusal.WRONG_ALGORITHM, id="another algorithm than the key's"),
    ],
)
def test_a_header_is_refused(header: dict[str, Any], reason: str) -> None:
    assert refused(token(header=header)).reason == reason


def test_a_signature_of_another_key_is_refused() -> None:
    forged = token(sample_key(number=6), header={"kid": KEY.kid})
    assert refused(forged).reason == refusal.BAD_SIGNATURE


def test_a_signature_over_other_claims_is_refused() -> None:
    signature = token().rpartition(b".")[2]
    other = token(sub="system:serviceaccount:team:other").rpartition(b".")[0]
    assert refused(other + b"." + signature).reason == refusal.BAD_SIGNATURE


def test_without_the_issuer_s_keys_nothing_is_proven() -> None:
    assert refused(token(), keys={}).reason == refusal.UNKNOWN_KEY


@pytest.mark.parametrize("client_id", [None, ""])
def test_the_request_must_name_the_client(client_id: str | None) -> None:
    assert refused(token(), client_id=client_id).reason == refusal.MISSING_CLIENT_ID


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"service_account": None}, refusal.WRONG_METHOD, id="of no account"),
        pytest.param({"auth_method": CLIENT_SECRET_BASIC}, refusal.WRONG_METHOD, id="of another method"),
        pytest.param(
            {"service_account": WorkloadAccount("team", "app", "")}, refusal.WRONG_METHOD, id="whose account has no uid"
        ),
        pytest.param(
            {"service_account": WorkloadAccount("other", "app", "uid-account")},
            refusal.WRONG_SUBJECT,
            id="of another namespace",
        ),
        pytest.param({"suspended": True}, refusal.CLIENT_SUSPENDED, id="that is suspended"),
        pytest.param({"expires_at": NOW}, refusal.CLIENT_EXPIRED, id="that has expired"),
    ],
)
def test_a_right_token_does_not_prove_a_client(changes: dict[str, Any], reason: str) -> None:
    assert refused(token(), of=world(**changes)).reason == reason


def test_what_does_not_fit_the_client_is_refused_in_one_wording() -> None:
    unknown = refused(token(), client_id="team.unknown")
    assert unknown.reason == refusal.UNKNOWN_CLIENT
    elsewhere: dict[str, Any] = {"kubernetes.io": bound(namespace="other")}
    others = [
        refused(token(), of=world(service_account=None)),
        refused(token(sub="system:serviceaccount:team:other")),
        refused(token(**elsewhere)),
    ]
    assert {one.description for one in others} == {unknown.description}


def test_a_pod_s_token_is_no_assertion_of_a_client() -> None:
    with pytest.raises(TokenRefused) as caught:
        verify_assertion(token(), clients=world(), policy=POLICY, store_born_at=BORN, now=NOW, client_id=CLIENT_ID)
    assert caught.value.reason == refusal.WRONG_ISSUER


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        pytest.param("system:serviceaccount:team:app", True, id="an account"),
        pytest.param("system:node:one", False, id="a node"),
        pytest.param(CLIENT_ID, False, id="a client"),
        pytest.param(7, False, id="a number"),
    ],
)
def test_whether_claims_speak_of_an_account(subject: object, told: bool) -> None:
    assert is_service_account({"sub": subject}) is told


def test_refusals_repeat_nothing_of_the_token() -> None:
    marker = hashlib.sha256(b"marker").hexdigest()
    given = token(sub=f"system:serviceaccount:team:{marker}")
    refusals = [refused(given), refused(given, client_id=None)]
    assert not any(marker in f"{one.description} {one.cause}" for one in refusals)
