"""From a manifest to a token to a gateway decision, and how fast what is taken away is gone: on two replicas."""

import json
import time
from collections.abc import Callable
from functools import partial

import jwt
import pytest

from tests.cluster.clients import PROMISE_SECONDS, Client, World, as_object, needs, route
from tests.sample_keys import sample_key

CHANGES = 20


def test_ten_lines_by_plain_apply_become_a_token_a_tokeninfo_and_a_decision(world: World) -> None:
    key = sample_key("RS256")
    client = world.client("ten-lines", key=key)
    path = world.installation.state / "ten-lines.yaml"
    path.write_text(
        "apiVersion: keyturn.dev/v1alpha1\n"
        "kind: ClientCredential\n"
        "metadata:\n"
        "  name: ten-lines\n"
        "spec:\n"
        "  publicKeys:\n"
        f"    - jwk: {json.dumps(dict(key.public.jwk))}\n"
        '  permissions: ["journey:read"]\n'
        '  audiences: ["journey"]\n',
        encoding="utf-8",
    )
    world.kubectl("apply", "-f", str(path))
    world.kubectl("wait", "--for=condition=Ready", "--timeout=15s", "clientcredential", "ten-lines")
    world.rule(
        "journey",
        route("/journey/read", "GET", **needs("journey:read")),
        route("/journey/write", "POST", **needs("journey:write")),
    )

    shown = world.kubectl("get", "cc", "ten-lines").splitlines()
    assert "CLIENT ID" in shown[0]
    assert f"{world.namespace}.ten-lines" in shown[1]
    assert "True" in shown[1].split()

    for replica in range(2):
        token = client.token(replica)
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["iss"] == world.replicas[0].url
        assert claims["sub"] == claims["client_id"] == client.client_id
        assert claims["aud"] in ("journey", ["journey"])
        assert {"jti", "iat", "exp"} <= claims.keys()
        for asked in world.replicas:
            info = asked.token_info(token)
            assert info.status_code == 200
            assert info.json()["permissions"] == ["journey:read"]
            assert info.json()["client_id"] == client.client_id
            allowed = asked.auth("/journey/read", token)
            assert allowed.status_code == 200
            assert allowed.headers["mia-clientid"] == client.client_id
            assert asked.auth("/journey/write", token, "POST").status_code == 403
            assert asked.auth("/journey/read").status_code == 401
            assert asked.auth("/journey/read", "no.token.atall").status_code == 401
            assert asked.auth("/journey/unknown", token).status_code == 403
            assert asked.auth("/journey/unknown").status_code == 403


def test_a_token_verifies_with_the_published_keys_and_their_kid(world: World) -> None:
    token = world.client("published").apply().token()
    jwks = jwt.PyJWKClient(f"{world.replicas[1].url}/.well-known/jwks.json")
    found = jwks.get_signing_key_from_jwt(token)
    claims = jwt.decode(
        token, found.key, algorithms=["RS256"], issuer=world.replicas[0].url, audience=world.replicas[0].url
    )
    assert claims["client_id"] == f"{world.namespace}.published"


@pytest.mark.parametrize("plural", ["clientcredentials", "signingkeys", "accessrules"])
def test_kubectl_wait_and_complete_conditions_on_every_kind(world: World, plural: str) -> None:
    world.client("waited").apply(ready=False)
    world.rule("waited", route("/waited"), ready=False)
    name = "keyturn" if plural == "signingkeys" else "waited"
    world.kubectl("wait", "--for=condition=Ready", "--timeout=15s", plural, name)
    obj = world.objects.get(plural, name)
    for condition in obj["status"]["conditions"]:
        assert condition.keys() >= {"type", "status", "reason", "message", "observedGeneration", "lastTransitionTime"}
        assert condition["reason"].isalnum()
        assert condition["message"]
        assert condition["observedGeneration"] == obj["metadata"]["generation"]


def test_the_transition_time_moves_only_when_the_status_does(world: World) -> None:
    client = world.client("transitions").apply()
    first = client.wait()
    time.sleep(1.1)
    client.patch(description="another text")
    second = client.wait()
    assert second["observedGeneration"] > first["observedGeneration"]
    assert second["lastTransitionTime"] == first["lastTransitionTime"]
    client.patch(suspended=True)
    third = client.wait("False", "Suspended")
    assert third["lastTransitionTime"] > first["lastTransitionTime"]


def test_ready_means_that_every_replica_grants_a_token_now(world: World) -> None:
    for number in range(5):
        client = world.client(f"at-once-{number}").apply()
        assert [client.request(replica).status_code for replica in range(2)] == [200, 200]


def answers(world: World, token: str, wanted: list[int]) -> bool:
    return world.everywhere(lambda one: one.auth("/changing", token).status_code) == wanted


def test_permissions_taken_and_given_count_on_both_replicas_within_a_second_each_time(world: World) -> None:
    client = world.client("changing").apply(permissions=["changing:read"])
    world.rule("changing", route("/changing", **needs("changing:read")))
    token = client.token()
    took = []
    for number in range(CHANGES):
        given = bool(number % 2)
        client.patch(permissions=["changing:read"] if given else [])
        wanted = [200, 200] if given else [403, 403]
        counts = partial(answers, world, token, wanted)
        took.append(world.seconds_until(counts, f"change {number} to count on both replicas"))
    assert max(took) < PROMISE_SECONDS, sorted(took)


def test_a_key_taken_out_is_refused_within_a_second_and_the_other_goes_on(world: World) -> None:
    old, new = sample_key("ES256", -1), sample_key("ES256", -2)
    client = world.client("two-keys", key=old)
    client.apply(publicKeys=[{"jwk": dict(one.public.jwk)} for one in (old, new)])
    token = client.token()
    assert client.request(1, key=new).status_code == 200
    client.patch(publicKeys=[{"jwk": dict(new.public.jwk)}])
    took = world.seconds_until(
        lambda: [client.request(one).status_code for one in range(2)] == [401, 401], "the key to be refused"
    )
    assert took < PROMISE_SECONDS
    assert [client.request(one, key=new).status_code for one in range(2)] == [200, 200]
    # A key that is taken out refuses assertions, not the tokens that were had with it.
    assert world.everywhere(lambda one: one.token_info(token).status_code) == [200, 200]


def test_an_audience_taken_out_is_refused_within_a_second(world: World) -> None:
    client = world.client("audiences").apply(audiences=["first", "second"])
    token = as_object(client.request(audience="first"))["access_token"]
    assert world.everywhere(lambda one: one.token_info(token).status_code) == [200, 200]
    client.patch(audiences=["second"])
    took = world.seconds_until(
        lambda: world.everywhere(lambda one: one.token_info(token).status_code) == [401, 401], "the token to be refused"
    )
    assert took < PROMISE_SECONDS
    refused = client.request(audience="first")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_target")
    assert client.request(1, audience="second").status_code == 200


def past() -> str:
    return "2020-01-01T00:00:00Z"


def just_now() -> str:
    # A whole second ahead: `iat` has whole seconds, so that a token of this very second is caught too.
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))


WITHDRAWALS: dict[str, Callable[[Client], None]] = {
    "the client is suspended": lambda client: client.patch(suspended=True),
    "the client has expired": lambda client: client.patch(expiresAt=past()),
    "its old tokens are revoked": lambda client: client.patch(revokeTokensIssuedBefore=just_now()),
    "the client is deleted": lambda client: client.delete(),
}


@pytest.mark.parametrize("withdraw", WITHDRAWALS.values(), ids=WITHDRAWALS.keys())
def test_live_tokens_are_refused_everywhere_within_a_second_when(
    world: World, withdraw: Callable[[Client], None], request: pytest.FixtureRequest
) -> None:
    number = list(WITHDRAWALS.values()).index(withdraw)
    client = world.client(f"withdrawn-{number}").apply(permissions=["withdrawn"])
    world.rule(f"withdrawn-{number}", route(f"/withdrawn/{number}", **needs("withdrawn")))
    token = client.token()
    assert world.everywhere(lambda one: one.auth(f"/withdrawn/{number}", token).status_code) == [200, 200]
    withdraw(client)
    took = world.seconds_until(
        lambda: (
            world.everywhere(lambda one: one.token_info(token).status_code) == [401, 401]
            and world.everywhere(lambda one: one.auth(f"/withdrawn/{number}", token).status_code) == [401, 401]
        ),
        "the token to be refused",
    )
    assert took < PROMISE_SECONDS


def test_a_suspended_client_gets_no_token_and_resuming_it_needs_no_new_one(world: World) -> None:
    client = world.client("suspended-awhile").apply()
    token = client.token()
    client.patch(suspended=True)
    client.wait("False", "Suspended")
    # Ready=True waits for every replica; Ready=False does not, so the replicas have their second from here.
    took = world.seconds_until(
        lambda: [client.request(one).status_code for one in range(2)] == [401, 401], "the client to be refused"
    )
    assert took < PROMISE_SECONDS
    client.patch(suspended=None)
    client.wait()
    assert [client.request(one).status_code for one in range(2)] == [200, 200]
    assert world.everywhere(lambda one: one.token_info(token).status_code) == [200, 200]


def test_after_a_revocation_of_old_tokens_new_ones_count(world: World) -> None:
    client = world.client("renewed").apply()
    old = client.token()
    client.patch(revokeTokensIssuedBefore=just_now())
    client.wait()
    time.sleep(1.1)
    assert world.everywhere(lambda one: one.token_info(old).status_code) == [401, 401]
    new = client.token()
    assert world.everywhere(lambda one: one.token_info(new).status_code) == [200, 200]


def test_a_client_expires_by_the_clock_alone(world: World) -> None:
    end = time.time() + 3
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
    client = world.client("expiring").apply(expiresAt=stamp)
    token = client.token()
    assert world.everywhere(lambda one: one.token_info(token).status_code) == [200, 200]
    time.sleep(max(0.0, end - time.time()) + 0.05)
    assert world.everywhere(lambda one: one.token_info(token).status_code) == [401, 401]
    assert [client.request(one).status_code for one in range(2)] == [401, 401]
    client.wait("False", "Expired", seconds=5)
