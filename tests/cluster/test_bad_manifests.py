"""Mistakes in manifests: each is named by its field, leaks nothing, changes nothing beyond itself, and widens nothing."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyturn.jose import base64url
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import PROMISE_SECONDS, Client, World, needs, route
from tests.manifests import Manifest, manifest, private_jwk_members, private_pem, public_jwk
from tests.sample_keys import sample_key


def weak_jwk() -> Manifest:
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key().public_numbers()
    n = base64url.encode(numbers.n.to_bytes(128)).decode()
    return {"kty": "RSA", "kid": "weak", "e": "AQAB", "n": n}


def weak_pem() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def foreign_curve_pem() -> str:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwk(number: int, kid: str | None = None) -> Manifest:
    made = dict(sample_key("ES256", number).public.jwk)
    return made if kid is None else {**made, "kid": kid}


@dataclass(frozen=True)
class Mistake:
    """What stands in the spec, and how it is told: by the API server (reason None) or in the status."""

    spec: Callable[[], dict[str, Any]]
    reason: str | None
    names: str
    hidden: Callable[[], list[str]] = list


def keys(*entries: Callable[[], Manifest]) -> Callable[[], dict[str, Any]]:
    return lambda: {"publicKeys": [entry() for entry in entries]}


MISTAKES = {
    "a private key as JWK": Mistake(
        keys(lambda: {"jwk": {**public_jwk(), **private_jwk_members()}}),
        None,
        "spec.publicKeys[0].jwk",
        lambda: list(private_jwk_members().values()),
    ),
    "a private key as PEM": Mistake(
        keys(lambda: {"pem": private_pem()}),
        None,
        "spec.publicKeys[0]",
        lambda: [line for line in private_pem().splitlines() if "-----" not in line],
    ),
    "an RSA key of 1024 bits as JWK": Mistake(keys(lambda: {"jwk": weak_jwk()}), "WeakKey", "spec.publicKeys[0].jwk"),
    "an RSA key of 1024 bits as PEM": Mistake(keys(lambda: {"pem": weak_pem()}), "WeakKey", "spec.publicKeys[0].pem"),
    "a key on another curve": Mistake(
        keys(lambda: {"pem": foreign_curve_pem()}), "InvalidKey", "spec.publicKeys[0].pem"
    ),
    "a PEM cut off in the middle": Mistake(
        keys(lambda: {"pem": weak_pem()[:120]}),
        "InvalidKey",
        "spec.publicKeys[0].pem",
        lambda: [weak_pem().splitlines()[1][:20]],
    ),
    "two keys of one kid": Mistake(
        keys(lambda: {"jwk": jwk(-11, "twin")}, lambda: {"jwk": jwk(-12, "twin")}), "DuplicateKid", "spec.publicKeys"
    ),
    "the second key of two is bad": Mistake(
        keys(lambda: {"jwk": jwk(-13)}, lambda: {"jwk": weak_jwk()}), "WeakKey", "spec.publicKeys[1].jwk"
    ),
    "a reserved claim is allowed": Mistake(
        lambda: {**keys(lambda: {"jwk": jwk(-14)})(), "allowedCustomClaims": ["tenant", "groups"]},
        None,
        "spec.allowedCustomClaims",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_and_leaks_nothing(world: World, mistake: Mistake) -> None:
    name = f"mistake-{list(MISTAKES.values()).index(mistake)}"
    given = manifest("ClientCredential", name, mistake.spec())
    refused = refusal_of(world, given)
    if mistake.reason is None:
        assert refused is not None
        told = refused
    else:
        assert refused is None, refused
        told = world.objects.wait_for("clientcredentials", name, "False", reason=mistake.reason)["message"]
        told += "".join(one["message"] for one in world.objects.events(name))
    assert mistake.names in told
    hidden = [*mistake.hidden(), *(entry.get("jwk", {}).get("n", "") for entry in given["spec"]["publicKeys"])]
    for value in filter(None, hidden):
        assert value not in told


def refusal_of(world: World, given: Manifest) -> str | None:
    """What kubectl says about a manifest that the API server refuses; None when it takes it."""
    target = world.installation.target
    command = [str(target.kubectl), f"--kubeconfig={target.kubeconfig}", f"--namespace={world.namespace}"]
    done = subprocess.run(
        [*command, "create", "--validate=strict", "-f=-"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return None if done.returncode == 0 else done.stderr


EXPRESSIONS = {
    "an operand is missing": ('"read" in permissions and ', 27),
    "an unknown name": ('"read" in persimmons', 11),
    "a text that does not end": ('"read" in permissions or "wri', 26),
}


@pytest.mark.parametrize("text", [text for text, _ in EXPRESSIONS.values()], ids=EXPRESSIONS.keys())
def test_an_expressions_error_is_told_with_its_position_within_a_second_and_the_route_denies(
    world: World, text: str
) -> None:
    number = [one for one, _ in EXPRESSIONS.values()].index(text)
    name, path = f"wrong-expression-{number}", f"/wrong-expression/{number}"
    world.rule(name, route(f"{path}/good"), route(f"{path}/bad", expression=text), ready=False)
    told: list[Manifest | None] = [None]

    def said() -> bool:
        told[0] = world.objects.condition("accessrules", name)
        return told[0] is not None and told[0]["reason"] == "InvalidExpression"

    assert world.seconds_until(said, "the error to be told") < PROMISE_SECONDS
    assert told[0] is not None
    assert "spec.routes[1].expression" in told[0]["message"]
    assert "column " in told[0]["message"]
    token = world.client(name).apply(permissions=["read", "write"]).token()
    # A rule that was never valid is closed as a whole.
    for part in ("bad", "good"):
        assert world.everywhere(lambda one, part=part: one.auth(f"{path}/{part}", token).status_code) == [403, 403]  # type: ignore[misc]
    world.rule(name, route(f"{path}/good"), route(f"{path}/bad", expression='"read" in permissions'))
    assert world.everywhere(lambda one: one.auth(f"{path}/bad", token).status_code) == [200, 200]
    assert world.everywhere(lambda one: one.auth(f"{path}/good").status_code) == [200, 200]


def test_one_bad_object_keeps_no_other_from_being_loaded(world: World) -> None:
    bad = [manifest("ClientCredential", f"bad-{number}", MISTAKES["two keys of one kid"].spec()) for number in range(5)]
    good = [world.client(f"good-{number}") for number in range(5)]
    rules = [
        manifest("AccessRule", f"bad-{number}", {"routes": [route(f"/bad/{number}", expression="(")]})
        for number in range(5)
    ]
    world.apply(*bad, *rules, *(one.manifest() for one in good))
    for one in good:
        one.wait()
        assert [one.request(replica).status_code for replica in range(2)] == [200, 200]


def test_contradicting_rules_are_both_marked_and_a_request_must_satisfy_both_until_one_is_mended(world: World) -> None:
    world.rule("left", route("/contested", "GET", **needs("left")))
    world.rule("right", route("/contested", "GET", **needs("right")))
    for name, other in (("left", "right"), ("right", "left")):
        conflict = world.objects.wait_for("accessrules", name, "True", kind="Conflicting")
        assert f"{world.namespace}/{other}" in conflict["message"]
        assert "/contested" in conflict["message"]
    tokens = {
        name: world.client(f"contested-{name}").apply(permissions=permissions).token()
        for name, permissions in (("left", ["left"]), ("right", ["right"]), ("both", ["left", "right"]))
    }

    def decisions() -> dict[str, list[int]]:
        return {
            name: world.everywhere(lambda one, token=token: one.auth("/contested", token).status_code)  # type: ignore[misc]
            for name, token in tokens.items()
        }

    assert decisions() == {"left": [403, 403], "right": [403, 403], "both": [200, 200]}
    world.rule("right", route("/contested", "GET", **needs("left")))
    mended = {"left": [200, 200], "right": [403, 403], "both": [200, 200]}
    wait_until(lambda: decisions() == mended, "the mended rule to count", seconds=PROMISE_SECONDS)
    for name in ("left", "right"):
        world.objects.wait_for("accessrules", name, "False", kind="Conflicting")


def test_a_contradiction_ends_when_one_of_the_rules_is_deleted(world: World) -> None:
    world.rule("stays", route("/ended", "GET", **needs("stays")))
    world.rule("goes", route("/ended", "GET", **needs("goes")))
    world.objects.wait_for("accessrules", "stays", "True", kind="Conflicting")
    world.kubectl("delete", "accessrule", "goes")
    world.objects.wait_for("accessrules", "stays", "False", kind="Conflicting")


def with_mistake(client: Client) -> dict[str, Any]:
    """The client's good key and a bad one beside it."""
    return {"publicKeys": [{"jwk": dict(client.key.public.jwk)}, {"jwk": weak_jwk()}]}


def soon(holds: Callable[[], bool], what: str) -> None:
    """A mistake is told without waiting for the replicas, which have their second."""
    wait_until(holds, what, seconds=PROMISE_SECONDS, interval=0.02)


def test_a_bad_edit_gives_nothing_new_and_what_it_takes_away_is_gone(world: World) -> None:
    client = world.client("bad-edit").apply(permissions=["kept", "taken"])
    for name in ("kept", "taken", "given"):
        world.rule(f"bad-edit-{name}", route(f"/bad-edit/{name}", **needs(name)))
    token = client.token()
    client.patch(permissions=["kept", "given"], **with_mistake(client))
    assert "spec.publicKeys[1]" in client.wait("False", "WeakKey")["message"]

    def decisions(token: str) -> list[list[int]]:
        return [
            world.everywhere(lambda one, name=name: one.auth(f"/bad-edit/{name}", token).status_code)  # type: ignore[misc]
            for name in ("kept", "taken", "given")
        ]

    soon(lambda: decisions(token) == [[200, 200], [403, 403], [403, 403]], "the permission to be taken away")
    assert decisions(client.token(1)) == [[200, 200], [403, 403], [403, 403]]
    client.patch(publicKeys=with_mistake(client)["publicKeys"][:1])
    client.wait()
    assert decisions(client.token(1)) == [[200, 200], [403, 403], [200, 200]]


def test_a_bad_edit_that_suspends_still_suspends(world: World) -> None:
    client = world.client("bad-suspension").apply()
    token = client.token()
    client.patch(suspended=True, **with_mistake(client))
    took = world.seconds_until(
        lambda: world.everywhere(lambda one: one.token_info(token).status_code) == [401, 401], "the suspension to count"
    )
    assert took < PROMISE_SECONDS
    client.wait("False", "WeakKey")


def test_a_bad_key_beside_the_good_one_leaves_the_good_one_but_in_its_place_none(world: World) -> None:
    client = world.client("bad-second-key").apply()
    good, bad = with_mistake(client)["publicKeys"]
    client.patch(publicKeys=[good, bad])
    client.wait("False", "WeakKey")
    assert [client.request(one).status_code for one in range(2)] == [200, 200]
    client.patch(publicKeys=[bad])
    assert "spec.publicKeys[0]" in client.wait("False", "WeakKey")["message"]
    soon(lambda: [client.request(one).status_code for one in range(2)] == [401, 401], "the key to be withdrawn")
    client.patch(publicKeys=[good])
    client.wait()
    assert [client.request(one).status_code for one in range(2)] == [200, 200]


def test_a_bad_edit_of_a_rule_keeps_the_last_valid_condition_and_drops_routes_that_are_gone(world: World) -> None:
    world.rule("rule-edit", route("/rule-edit/a", **needs("a")), route("/rule-edit/b", **needs("b")))
    token = world.client("rule-edit").apply(permissions=["a", "b"]).token()
    assert world.everywhere(lambda one: one.auth("/rule-edit/b", token).status_code) == [200, 200]
    world.rule("rule-edit", route("/rule-edit/a", expression='"a" in'), ready=False)
    world.objects.wait_for("accessrules", "rule-edit", "False", reason="InvalidExpression")
    soon(
        lambda: world.everywhere(lambda one: one.auth("/rule-edit/b", token).status_code) == [403, 403],
        "the route that is gone to be unknown",
    )
    assert world.everywhere(lambda one: one.auth("/rule-edit/a", token).status_code) == [200, 200]
    nobody = world.client("rule-edit-nobody").apply().token()
    assert world.everywhere(lambda one: one.auth("/rule-edit/a", nobody).status_code) == [403, 403]


def test_the_client_id_cannot_be_edited(world: World) -> None:
    client = world.client("fixed", client_id="fixed-id").apply()
    target = world.installation.target
    command = [str(target.kubectl), f"--kubeconfig={target.kubeconfig}", f"--namespace={world.namespace}"]
    for change in ({"clientId": "other-id"}, {"clientId": None}):
        patch = json.dumps({"spec": change})
        done = subprocess.run(
            [*command, "patch", "clientcredential", "fixed", "--type=merge", "-p", patch],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0
        assert "clientId" in done.stderr
    assert client.request().status_code == 200
