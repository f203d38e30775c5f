"""The CRDs on a real API server: what it keeps, what it refuses, and that a refusal does not repeat a secret."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from keyturn_dev.cluster import Cluster
from tests import manifests
from tests.crd_schemas import CRDS, schema_of, walk
from tests.manifests import Manifest
from tests.unit.crds.test_schemas import REFUSED

NAMESPACE = "crd-contract"
CREATE = ("create", "--dry-run=server")
SERVER_SIDE = ("apply", "--server-side", "--force-conflicts", "--dry-run=server")


@dataclass(frozen=True)
class Kubectl:
    """kubectl as the administrator, in this module's namespace."""

    cluster: Cluster

    def run(self, *arguments: str, given: Manifest | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.cluster.kubectl), f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={NAMESPACE}"]
        text = None if given is None else json.dumps(given)
        return subprocess.run(
            [*command, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
        )

    def ok(self, *arguments: str, given: Manifest | None = None) -> str:
        done = self.run(*arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, given: Manifest) -> Manifest:
        applied = json.loads(
            self.ok("apply", "--server-side", "--force-conflicts", "--validate=strict", "-o=json", "-f=-", given=given)
        )
        assert isinstance(applied, dict)
        return applied

    def refused(self, given: Manifest, *how: str) -> str:
        """What is said about a manifest that must not be accepted."""
        done = self.run(*(how or CREATE), "--validate=strict", "-f=-", given=given)
        assert done.returncode != 0, f"accepted: {done.stdout}"
        return done.stderr


@pytest.fixture(scope="module")
def kubectl(crds: Cluster) -> Iterator[Kubectl]:
    tool = Kubectl(crds)
    tool.ok("create", "namespace", NAMESPACE)
    yield tool
    tool.ok("delete", "namespace", NAMESPACE, "--wait=false")


FULL: dict[str, tuple[Callable[[], list[Manifest]], Callable[[], Manifest]]] = {
    "clientcredentials": (manifests.full_clients, manifests.full_client_status),
    "signingkeys": (lambda: [manifests.full_signing_key()], manifests.full_signing_key_status),
    "accessrules": (lambda: [manifests.full_rule()], manifests.full_rule_status),
}
kinds = pytest.mark.parametrize("plural", FULL)


def paths_in(value: object, path: str) -> Iterator[str]:
    """The schema paths that a value uses."""
    yield path
    match value:
        case Mapping():
            for name, member in value.items():
                yield from paths_in(member, f"{path}.{name}")
        case list():
            for item in value:
                yield from paths_in(item, f"{path}[]")


@kinds
def test_every_field_is_used_by_the_objects_that_these_tests_create(plural: str) -> None:
    objects, status = FULL[plural]
    used = {path for given in objects() for path in paths_in(given["spec"], "spec")} | set(paths_in(status(), "status"))
    parts = schema_of(plural)["properties"]
    declared = {path for part in ("spec", "status") for path, _ in walk(parts[part], part)}
    refused = {path for path in declared if any(path == r or path.startswith(f"{r}[]") for r in REFUSED)}
    assert used == declared - refused


@kinds
def test_every_field_is_created_read_back_and_updated_with_nothing_pruned(kubectl: Kubectl, plural: str) -> None:
    objects, status = FULL[plural]
    for given in objects():
        name = given["metadata"]["name"]
        assert kubectl.apply(given)["spec"] == given["spec"]
        patch = json.dumps({"status": status()})
        kubectl.ok("patch", plural, name, "--subresource=status", "--type=merge", "--patch", patch)
        read = json.loads(kubectl.ok("get", plural, name, "-o=json"))
        assert read["spec"] == given["spec"]
        assert read["status"] == status()
        later = deepcopy(given)
        later["spec"]["revokeTokensIssuedBefore" if plural != "accessrules" else "hosts"] = (
            "2026-02-01T00:00:00Z" if plural != "accessrules" else ["other.example"]
        )
        updated = kubectl.apply(later)
        assert updated["spec"] == later["spec"]
        assert updated["metadata"]["generation"] == read["metadata"]["generation"] + 1
        assert updated["status"] == status()


@kinds
def test_a_write_to_the_object_cannot_set_its_status(kubectl: Kubectl, plural: str) -> None:
    given = {**deepcopy(FULL[plural][0]()[0]), "status": FULL[plural][1]()}
    given["metadata"]["name"] = "own-status"
    kubectl.ok("create", "-f=-", given=given)
    read = json.loads(kubectl.ok("get", plural, "own-status", "-o=json"))
    assert "status" not in read


@pytest.mark.parametrize(
    ("plural", "columns", "row"),
    [
        (
            "cc",
            ["CLIENT ID", "METHOD", "PERMISSIONS", "READY", "REASON", "AGE"],
            ["full-client", "private_key_jwt", "2", "True", "Accepted"],
        ),
        (
            "sk",
            ["ACTIVE", "NEXT ROTATION", "READY", "REASON", "AGE"],
            ["2026-01", "2026-02-28T08:00:00Z", "True", "Accepted"],
        ),
        (
            "ar",
            ["ROUTES", "MODE", "READY", "REASON", "CONFLICTING", "AGE"],
            ["3", "Enforce", "True", "Accepted", "True"],
        ),
    ],
)
def test_kubectl_get_shows_what_people_look_for(
    kubectl: Kubectl, plural: str, columns: list[str], row: list[str]
) -> None:
    full = {"cc": "clientcredentials", "sk": "signingkeys", "ar": "accessrules"}[plural]
    given = deepcopy(FULL[full][0]()[0])
    given["metadata"]["name"] = "shown"
    given["spec"].pop("size", None)
    kubectl.apply(given)
    patch = json.dumps({"status": FULL[full][1]()})
    kubectl.ok("patch", full, "shown", "--subresource=status", "--type=merge", "--patch", patch)
    header, line = kubectl.ok("get", plural, "shown").splitlines()
    assert header.split(maxsplit=1)[1].split("  ")[0] == columns[0]
    assert [column for column in columns if column not in header] == []
    assert line.split()[1:-1] == row
    assert "shown" in kubectl.ok("get", "keyturn")


@kinds
def test_kubectl_explain_knows_the_kind(kubectl: Kubectl, plural: str) -> None:
    assert schema_of(plural)["description"].split()[0] in kubectl.ok("explain", plural)


def test_a_client_of_ten_lines_is_accepted(kubectl: Kubectl) -> None:
    spec = {
        "publicKeys": [{"jwk": {"kty": "RSA", "n": manifests.public_jwk()["n"], "e": "AQAB"}}],
        "permissions": ["a"],
    }
    applied = kubectl.apply(manifests.manifest("ClientCredential", "small", spec))
    assert applied["spec"]["authMethod"] == "private_key_jwt"


def test_a_signing_key_needs_no_spec(kubectl: Kubectl) -> None:
    given = manifests.manifest("SigningKey", "bare", {})
    del given["spec"]
    schedule = {"rotateEvery": "720h", "publishBefore": "10m", "retainAfter": "0s"}
    assert kubectl.apply(given)["spec"] == {"algorithm": "RS256", "size": 2048, "deletionPolicy": "Retain", **schedule}


# --- What the API server refuses -----------------------------------------------------------------------------------------------------


def client(**spec: Any) -> Manifest:
    return manifests.manifest("ClientCredential", "refused", spec)


def client_with_key(**key: Any) -> Manifest:
    return client(publicKeys=[key])


def client_with_jwk(**members: Any) -> Manifest:
    return client_with_key(jwk={**manifests.public_jwk(), **members})


def signing_key(**spec: Any) -> Manifest:
    return manifests.manifest("SigningKey", "refused", spec)


def rule(*routes: Manifest, **spec: Any) -> Manifest:
    return manifests.manifest("AccessRule", "refused", {"routes": list(routes), **spec})


def route(**members: Any) -> Manifest:
    return rule({"path": "/", **members})


def case(name: str, said: str, make: Callable[[], Manifest]) -> Any:
    return pytest.param(make, said, id=name)


NOT_A_CLIENT_ID = "must be 1 to 200 letters"
ONE_CONDITION = "give exactly one of public: true, permissions and expression"

REFUSALS = [
    *(
        case(f"a client id with {name}", NOT_A_CLIENT_ID, lambda value=value: client(clientId=value))  # type: ignore[misc]
        for name, value in [
            ("a slash", "a/b"),
            ("a colon", "a:b"),
            ("an at sign", "a@b"),
            ("a percent sign", "a%b"),
            ("a space", "a b"),
            ("a line break at its end", "ab\n"),
            ("a dot first", ".a"),
        ]
    ),
    case("a client id of 201 characters", "spec.clientId: Too long", lambda: client(clientId="a" * 201)),
    case("a key that is neither jwk nor pem", "give exactly one of jwk and pem", lambda: client_with_key(kid="a")),
    case(
        "a key that is both jwk and pem",
        "give exactly one of jwk and pem",
        lambda: client_with_key(jwk=manifests.public_jwk(), pem=manifests.public_pem()),
    ),
    case(
        "a kid beside the jwk that is another",
        "kid differs from the jwk's own",
        lambda: client_with_key(jwk=manifests.public_jwk("one"), kid="two"),
    ),
    case(
        "a key that ends before it begins",
        "notAfter must be later than notBefore",
        lambda: client_with_key(
            pem=manifests.public_pem(), notBefore="2026-01-02T00:00:00Z", notAfter="2026-01-01T00:00:00Z"
        ),
    ),
    case("a PEM text that is too long", "pem must not exceed 2048", lambda: client_with_key(pem="A" * 2049)),
    case("a PEM text in another script", "in ASCII", lambda: client_with_key(pem="ключ")),
    case(
        "keys that are too long in sum",
        "all keys together must not exceed 8192 characters",
        lambda: client(publicKeys=[{"pem": "A" * 1639} for _ in range(5)]),
    ),
    case("eleven keys", "spec.publicKeys: Too many", lambda: client(publicKeys=[{"pem": "A"} for _ in range(11)])),
    case("a jwk without kty", "kty: Required value", lambda: client_with_key(jwk={"n": "A", "e": "AQAB"})),
    case("a modulus with padding", "base64url text", lambda: client_with_jwk(n="AQAB==")),
    case("a kty that is no word", "must be words", lambda: client_with_jwk(kty="R S A")),
    case("a reference to a certificate", "no reference", lambda: client_with_jwk(x5u="https://shop.example/")),
    case("a certificate chain", "no certificate", lambda: client_with_jwk(x5c=["MII"])),
    case("a reference to keys", "no reference", lambda: client_with_jwk(jku="https://shop.example/")),
    case("an unknown member of a jwk", "x5t", lambda: client_with_jwk(x5t="a")),
    case("an unknown field", "unknownField", lambda: client(unknownField="a")),
    case("a key to be made in no Secret", "generateKey.secretName: Required", lambda: client(generateKey={})),
    case(
        "a key to be made of another size",
        "Unsupported value: 1024",
        lambda: client(generateKey={"secretName": "a", "size": 1024}),
    ),
    case(
        "a rotation without a pause",
        "rotateEvery must be at least 1s",
        lambda: client(generateKey={"secretName": "a", "rotateEvery": "0s"}),
    ),
    case(
        "a rotation in days",
        "generateKey.rotateEvery",
        lambda: client(generateKey={"secretName": "a", "rotateEvery": "30d"}),
    ),
    case(
        "a rotation of what somebody else provides",
        "rotateEvery and keepPrevious are for secrets that the operator makes",
        lambda: secret_client(secretName="a", generate=False, rotateEvery="720h"),
    ),
    case(
        "an overlap of what somebody else provides",
        "rotateEvery and keepPrevious are for secrets that the operator makes",
        lambda: secret_client(secretName="a", generate=False, keepPrevious="1h"),
    ),
    case(
        "a key to be made beside a secret",
        "generateKey and jwksUri go with authMethod private_key_jwt only",
        lambda: client(
            authMethod="client_secret_basic", clientSecret={"secretName": "a"}, generateKey={"secretName": "b"}
        ),
    ),
    case(
        "a key to be made for a ServiceAccount",
        "generateKey and jwksUri do not go with serviceAccount",
        lambda: client(serviceAccount={"name": "a"}, generateKey={"secretName": "b"}),
    ),
    *(
        case(name, said, lambda value=value: client(jwksUri=value))  # type: ignore[misc]
        for name, said, value in [
            ("keys to be fetched without TLS", "must be an https URL", "http://keys.example/jwks.json"),
            ("keys to be fetched from another port", "must be a URL on port 443", "https://keys.example:8443/"),
            ("keys to be fetched with a password", "no user and no password", "https://u:p@keys.example/"),
            ("keys to be fetched with a fragment", "must hold no fragment", "https://keys.example/#a"),
            ("keys to be fetched from what is no URL", "must be an https URL", "keys.example"),
        ]
    ),
    case("a deletion policy that is none", "Unsupported value", lambda: client(deletionPolicy="Orphan")),
    case(
        "a Secret's name that is none",
        "secretName",
        lambda: secret_client(secretName="A_b", generate=False),
    ),
    case("an unknown method", "Unsupported value", lambda: client(authMethod="client_secret_jwt")),
    case(
        "a secret beside private_key_jwt",
        "clientSecret does not go with authMethod private_key_jwt",
        lambda: client(clientSecret={"secretName": "a", "generate": False}),
    ),
    case(
        "keys beside client_secret_basic",
        "publicKeys go with authMethod private_key_jwt only",
        lambda: client(
            authMethod="client_secret_basic",
            clientSecret={"secretName": "a", "generate": False},
            publicKeys=[{"pem": manifests.public_pem()}],
        ),
    ),
    case(
        "client_secret_basic without a secret",
        "authMethod client_secret_basic and client_secret_post need clientSecret",
        lambda: client(authMethod="client_secret_basic"),
    ),
    case(
        "client_secret_post without a secret",
        "authMethod client_secret_basic and client_secret_post need clientSecret",
        lambda: client(authMethod="client_secret_post"),
    ),
    case(
        "a ServiceAccount beside keys",
        "publicKeys do not go with serviceAccount",
        lambda: client(serviceAccount={"name": "a"}, publicKeys=[{"pem": manifests.public_pem()}]),
    ),
    case(
        "a ServiceAccount beside a secret",
        "serviceAccount goes with authMethod private_key_jwt only",
        lambda: client(
            authMethod="client_secret_basic",
            clientSecret={"secretName": "a", "generate": False},
            serviceAccount={"name": "a"},
        ),
    ),
    case("a ServiceAccount without a name", "name: Required value", lambda: client(serviceAccount={})),
    case(
        "a ServiceAccount of another namespace",
        "namespace",
        lambda: client(serviceAccount={"namespace": "a", "name": "b"}),
    ),
    case(
        "a ServiceAccount's name that is none",
        "spec.serviceAccount.name",
        lambda: client(serviceAccount={"name": "A_b"}),
    ),
    case("introspection of a third kind", "Unsupported value", lambda: client(introspection="all")),
    case("a permission with a space", "spec.permissions[0]", lambda: client(permissions=["a b"])),
    case("a permission twice", "Duplicate value", lambda: client(permissions=["a", "a"])),
    case("a permission of 257 characters", "spec.permissions[0]: Too long", lambda: client(permissions=["a" * 257])),
    case(
        "permissions that are too long in sum",
        "all permissions together must not exceed 10240",
        lambda: client(permissions=[f"{n:0256}" for n in range(41)]),
    ),
    case("an audience with a space", "spec.audiences[0]", lambda: client(audiences=["a b"])),
    case(
        "a claim that only the issuer sets",
        "names a claim that only the issuer sets",
        lambda: client(allowedCustomClaims=["tenant", "permissions"]),
    ),
    case("a lifetime in days", "spec.tokenLifetime", lambda: client(tokenLifetime="1d")),
    case("a lifetime of nothing", "must be at least 1s", lambda: client(tokenLifetime="0m")),
    case("an expiry that is no time", "spec.expiresAt", lambda: client(expiresAt="tomorrow")),
    case("a suspension that is no boolean", "spec.suspended", lambda: client(suspended="yes")),
    case("an algorithm that is none of ours", "Unsupported value", lambda: signing_key(algorithm="HS256")),
    case("a weak signing key", "Unsupported value", lambda: signing_key(size=1024)),
    case("a rotation in less than a second", "must be 0s or at least 1s", lambda: signing_key(rotateEvery="0.5s")),
    case("no time for a key to be known", "must be from 1s to 720h", lambda: signing_key(publishBefore="0s")),
    case(
        "a key that is not known before its successor comes",
        "publishBefore must be shorter than rotateEvery",
        lambda: signing_key(rotateEvery="1h", publishBefore="1h"),
    ),
    case("a key that is kept for years", "must be at most 8784h", lambda: signing_key(retainAfter="9000h")),
    case("an import of no Secret", "secretName", lambda: signing_key(importFrom={"key": "old.pem"})),
    case("a rule without routes", "spec.routes", rule),
    case(
        "a rule of a mode that comes later",
        "Unsupported value",
        lambda: rule({"path": "/", "public": True}, mode="Warn"),
    ),
    case(
        "a host with a port", "spec.hosts[0]", lambda: rule({"path": "/", "public": True}, hosts=["shop.example:8443"])
    ),
    case("a host in capitals", "spec.hosts[0]", lambda: rule({"path": "/", "public": True}, hosts=["Shop.example"])),
    case("a path that is none", "spec.routes[0].path", lambda: rule({"path": "orders", "public": True})),
    case("a path with a space", "spec.routes[0].path", lambda: rule({"path": "/a b", "public": True})),
    case("a method that is none", "Unsupported value", lambda: route(methods=["BREW"], public=True)),
    case("a route without a condition", ONE_CONDITION, route),
    case("a route that is not public, and no more", ONE_CONDITION, lambda: route(public=False)),
    case("a route with two conditions", ONE_CONDITION, lambda: route(public=True, expression="true")),
    case(
        "a back office part without a condition",
        ONE_CONDITION,
        lambda: route(public=True, backoffice={"public": False}),
    ),
    case("permissions that name none", "give anyOf, allOf or both", lambda: route(permissions={})),
    case("an empty list of permissions", "anyOf", lambda: route(permissions={"anyOf": []})),
    case(
        "permissions of the back office that name none",
        "give anyOf, allOf or both",
        lambda: route(public=True, backoffice={"permissions": {}}),
    ),
    case(
        "routes that are too long in sum",
        "the texts of all routes together must not exceed 16384 bytes",
        lambda: rule(*({"path": f"/{n:01023}", "public": True} for n in range(17))),
    ),
    case(
        "expressions that are too long in sum, in another script",
        "the texts of all routes together must not exceed 16384 bytes",
        lambda: rule(*({"path": "/", "expression": "ü" * 2048, "backoffice": {"public": True}} for n in range(3))),
    ),
]


def secret_client(**secret: Any) -> Manifest:
    return client(authMethod="client_secret_basic", clientSecret=secret)


@pytest.mark.parametrize(("make", "said"), REFUSALS)
def test_the_api_server_refuses(kubectl: Kubectl, make: Callable[[], Manifest], said: str) -> None:
    assert said in kubectl.refused(make())


def texts_in(value: object) -> Iterator[str]:
    """All texts in a value that are long enough to be a secret."""
    match value:
        case str():
            yield from (line for line in value.splitlines() if len(line) >= 16 and "-----" not in line)
        case Mapping():
            for member in value.values():
                yield from texts_in(member)
        case list():
            for item in value:
                yield from texts_in(item)


PRIVATE = "private key material"
PLANTED = [
    *(
        case(
            f"a jwk with {member}",
            PRIVATE,
            lambda member=member: client_with_jwk(**{member: manifests.private_jwk_members()[member]}),  # type: ignore[misc]
        )
        for member in ("d", "p", "q", "dp", "dq", "qi")
    ),
    case("a whole private jwk", PRIVATE, lambda: client_with_jwk(**manifests.private_jwk_members())),
    case("a jwk with further primes", PRIVATE, lambda: client_with_jwk(oth=[{"r": "A" * 40, "d": "B" * 40}])),
    case("a symmetric jwk", PRIVATE, lambda: client_with_key(jwk={"kty": "oct", "k": "C" * 43})),
    case("a private PEM", PRIVATE, lambda: client_with_key(pem=manifests.private_pem())),
    case(
        "a private PEM of the old form",
        PRIVATE,
        lambda: client_with_key(pem=manifests.private_pem(PrivateFormat.TraditionalOpenSSL)),
    ),
    case(
        "a private PEM below a public one",
        PRIVATE,
        lambda: client_with_key(pem=manifests.public_pem() + manifests.private_pem()),
    ),
    case("a text that is far too long", "Too long", lambda: client_with_key(pem=manifests.private_pem() * 20)),
    case("a private value as the modulus", "base64url", lambda: client_with_jwk(n=manifests.private_pem()[:1300])),
    case("a private value as the curve", "must be words", lambda: client_with_jwk(crv="SECRET=SECRET==!")),
]


# Not by server-side apply: there Kubernetes' own conversion repeats, to the sender, a value of another type than the schema's.
WRONG_TYPES = [
    case(
        "a private PEM where a jwk belongs",
        "must be of type object",
        lambda: client_with_key(jwk=manifests.private_pem()),
    ),
    case(
        "a private jwk where a PEM belongs",
        '"spec.publicKeys[0].pem',
        lambda: client_with_key(pem=manifests.private_jwk_members()),
    ),
    case("private members as a list", "must be of type string", lambda: client_with_jwk(d=["D" * 40])),
]


@pytest.mark.parametrize(
    ("how", "make", "said"),
    [
        pytest.param(how, *planted.values, id=f"{planted.id}, {name}")
        for name, how, cases in (
            ("created", CREATE, [*PLANTED, *WRONG_TYPES]),
            ("applied by the server", SERVER_SIDE, PLANTED),
        )
        for planted in cases
    ],
)
def test_the_api_server_refuses_private_keys_without_repeating_them(
    kubectl: Kubectl, how: tuple[str, ...], make: Callable[[], Manifest], said: str
) -> None:
    given = make()
    public = {*texts_in(manifests.public_jwk()), *texts_in(manifests.public_pem())}
    planted = set(texts_in(given["spec"])) - public
    answer = kubectl.refused(given, *how)
    assert said in answer
    assert planted
    assert [secret for secret in planted if secret[:12] in answer] == []


# --- What cannot change --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "field", "before", "after"),
    [
        pytest.param("ClientCredential", "clientId", "one", "two", id="a client id changed"),
        pytest.param("ClientCredential", "clientId", "one", None, id="a client id removed"),
        pytest.param("ClientCredential", "clientId", None, "two", id="a client id added later"),
        pytest.param("SigningKey", "secretName", "one", "two", id="a signing key's Secret changed"),
        pytest.param("SigningKey", "secretName", "one", None, id="a signing key's Secret removed"),
        pytest.param("SigningKey", "secretName", None, "two", id="a signing key's Secret added later"),
    ],
)
def test_what_others_rely_on_cannot_change(
    kubectl: Kubectl, kind: str, field: str, before: str | None, after: str | None
) -> None:
    name = f"fixed-{field}-{before}-{after}".lower()
    first, second = (
        manifests.manifest(kind, name, {} if value is None else {field: value}) for value in (before, after)
    )
    kubectl.apply(first)
    kubectl.apply(first)
    answer = kubectl.refused(second, "apply", "--server-side", "--force-conflicts")
    assert f"{field} cannot be changed, removed or added later" in answer


# --- What just fits ------------------------------------------------------------------------------------------------------------------


def largest_client() -> Manifest:
    texts = {"description": "ü" * 512, "clientName": "ü" * 100, "contacts": [f"{n}" + "ü" * 99 for n in range(4)]}
    lists = {
        "permissions": [f"{n:0256}" for n in range(40)],
        "audiences": [f"{n:0256}" for n in range(16)],
        "allowedCustomClaims": [f"{n:0128}" for n in range(16)],
    }
    keys = [{"pem": "A" * 818 + "\n", "kid": f"{n:0128}"} for n in range(10)]
    return client(clientId="a" * 200, publicKeys=keys, **texts, **lists)


def largest_rule() -> Manifest:
    conditions = {"permissions": {"anyOf": ["a"], "allOf": ["b"]}, "public": False}
    routes = [
        {"path": f"/{n:0153}", "methods": ["GET", "POST", "ALL"], **conditions, "backoffice": {"public": True}}
        for n in range(100)
    ]
    return rule(*routes, hosts=[f"{n:063}.example" for n in range(16)])


@pytest.mark.parametrize(
    "make", [pytest.param(largest_client, id="a large client"), pytest.param(largest_rule, id="a large rule")]
)
def test_an_object_at_its_bounds_is_accepted_below_64_kib(kubectl: Kubectl, make: Callable[[], Manifest]) -> None:
    given = make()
    given["metadata"]["name"] = "large"
    applied = kubectl.apply(given)
    assert applied["spec"].items() >= given["spec"].items()
    assert len(json.dumps(applied["spec"], ensure_ascii=False).encode()) < 48 * 1024


def test_the_cluster_serves_every_crd_as_structural_and_established(kubectl: Kubectl) -> None:
    for plural in CRDS:
        read = json.loads(kubectl.ok("get", "crd", f"{plural}.keyturn.dev", "-o=json"))
        states = {condition["type"]: condition["status"] for condition in read["status"]["conditions"]}
        assert states["Established"] == "True"
        assert "NonStructuralSchema" not in states
