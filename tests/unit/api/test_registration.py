"""Registration end to end within one process: a Kubernetes API that a test fills, and an operator that acts or does not."""

import asyncio
import base64
import dataclasses
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import httpx2
import jwt
import pytest
from fastapi import FastAPI

from keyturn.clients.registration import Registration as Registered
from keyturn.clients.state import ClientKey, ClientState, SecretHash
from keyturn.records import Kind, Replica
from keyturn.secrets import hash_secret
from keyturn.store.memory import MemoryStore
from keyturn_api import registrar, registration_upkeep
from keyturn_api.administration import Administration, admin_audience
from keyturn_api.application import build_framework
from keyturn_api.client_secrets import SecretVerifier
from keyturn_api.follower import Follower
from keyturn_api.pending import is_pending
from keyturn_api.readiness import Readiness
from keyturn_api.registration_service import RegistrationService, build_registration
from keyturn_api.settings import ApiSettings
from keyturn_api.signing_keys import SigningKeys
from keyturn_api.snapshot_changes import SnapshotChanges
from tests.manifests import public_jwk
from tests.unit.api.kubernetes_api import KubernetesApi, status
from tests.unit.api.worlds import World, metrics, settings
from tests.unit.tokens.worlds import ISSUER, NOW

CLIENTS = "/apis/keyturn.dev/v1alpha1/namespaces/team/clientcredentials"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
ADMIN = admin_audience(ISSUER)
SECRETS = "/api/v1/namespaces/team/secrets"
TOKEN = "initial-token-0123456789"
KEY = public_jwk("k1")
WITH_KEY = {"token_endpoint_auth_method": "private_key_jwt", "public_key": KEY}


class Place:
    """One API process. Objects of ClientCredentials are kept as a merge patch leaves them; `operator` puts them into the snapshot."""

    def __init__(self, tmp_path: Path, *, internal: bool = False, **values: Any) -> None:
        (tmp_path / "portal").write_text(TOKEN)
        self.world = World()
        self.api = KubernetesApi(tmp_path / "..")
        self.store = MemoryStore()
        self.objects: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.operator = True
        self.after_patch: Callable[[], None] = lambda: None
        self.api.answers["POST", CLIENTS] = self.create
        self.api.answers["POST", SECRETS] = self.create_secret
        self.changes = SnapshotChanges()
        self.settings: ApiSettings = settings(
            **{"registration_tokens_directory": tmp_path, "registration_timeout": 0.3, **values}
        )
        kubernetes = self.api.client()
        self.api.answers["POST", TOKEN_REVIEWS] = lambda _: {
            "status": {"authenticated": True, "audiences": [ADMIN], "user": {"username": "portal"}}
        }
        self.api.answers["POST", ACCESS_REVIEWS] = lambda _: {"status": {"allowed": True}}
        administration = Administration(kubernetes, issuer=self.settings.issuer, enabled=internal)
        self.service: RegistrationService = build_registration(
            self.settings,
            kubernetes=kubernetes,
            administration=administration,
            snapshot=self.world.snapshot,
            changes=self.changes,
            replicas=self.store,
            verifier=SecretVerifier(cost=4, queue=16, capacity=10),
            replica_id="own",
        )
        measured = metrics()
        keys = SigningKeys(Path("/nowhere"), self.world.snapshot, typ="JWT")
        follower = Follower(self.store, self.world.snapshot, measured)
        self.app: FastAPI = build_framework(
            self.settings, self.world.snapshot, Readiness(self.world.snapshot, keys, follower, measured)
        )
        self.service.add_routes(self.app, "", measured)
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://x")

    def create(self, body: dict[str, Any]) -> httpx2.Response:
        name = body["metadata"]["name"]
        body["metadata"] |= {"uid": f"uid-{name}", "resourceVersion": "1", "generation": 1}
        self.objects[name] = body
        path = f"{CLIENTS}/{name}"
        self.api.answers["PATCH", path] = lambda change: self.patch(name, change)
        self.api.answers["DELETE", path] = lambda options: self.delete(name, options)
        return httpx2.Response(201, json=body)

    def create_secret(self, body: dict[str, Any]) -> httpx2.Response:
        self.secrets[body["metadata"]["name"]] = body
        self.reconcile()
        return httpx2.Response(201, json=body)

    def patch(self, name: str, change: dict[str, Any]) -> httpx2.Response:
        obj = self.objects.get(name)
        if obj is None:
            return status(404, "NotFound")
        wanted = change["metadata"].get("resourceVersion", obj["metadata"]["resourceVersion"])
        if wanted != obj["metadata"]["resourceVersion"] or change["metadata"]["uid"] != obj["metadata"]["uid"]:
            return status(409, "Conflict")
        before = json.dumps(obj)
        merge(obj, change)
        if json.dumps(obj) != before:
            obj["metadata"]["resourceVersion"] = str(int(obj["metadata"]["resourceVersion"]) + 1)
            obj["metadata"]["generation"] += 1
            self.reconcile()
        answer = httpx2.Response(200, json=obj)
        self.after_patch()
        return answer

    def delete(self, name: str, options: dict[str, Any]) -> httpx2.Response:
        obj = self.objects.get(name)
        if obj is None:
            return status(404, "NotFound")
        version = options["preconditions"].get("resourceVersion", obj["metadata"]["resourceVersion"])
        if version != obj["metadata"]["resourceVersion"]:
            return status(409, "Conflict")
        del self.objects[name]
        if self.operator:
            self.world.change((Kind.CLIENT, f"uid-{name}", None))
            self.changes.notice()
        return httpx2.Response(200, json={})

    def reconcile(self) -> None:
        """What the operator would do."""
        if self.operator:
            for name, obj in self.objects.items():
                self.world.change((Kind.CLIENT, f"uid-{name}", self.state(name, obj).to_body()))
            self.changes.notice()

    def state(self, name: str, obj: dict[str, Any]) -> ClientState:
        spec = obj["spec"]
        registration = spec.get("registration") or {}
        secret = registration.get("secretName")
        data = self.secrets[secret]["data"] if secret in self.secrets else {}
        hashes = {member: base64.b64decode(value).decode() for member, value in data.items()}
        known = hashes.get("client_secret_hash")
        return ClientState(
            client_id=f"team.{name}",
            created_at=NOW,
            auth_method=spec["authMethod"],
            keys=tuple(
                ClientKey(one["jwk"]["kid"], "t", "RS256", 2048, "publicKeys", one["jwk"])
                for one in spec.get("publicKeys", ())
            ),
            secrets=() if known is None else (SecretHash(known, None, f"{secret}/u/1"),),
            permissions=tuple(spec.get("permissions", ())),
            audiences=tuple(spec.get("audiences", ())),
            allowed_custom_claims=tuple(spec.get("allowedCustomClaims", ())),
            suspended=spec.get("suspended", False),
            registration=Registered(
                secret,
                hashes.get("registration_token_hash"),
                obj["metadata"]["labels"].get("keyturn.dev/approval"),
                {"client_name": spec["clientName"]} if "clientName" in spec else {},
            ),
        )

    async def register(self, body: Any = None, token: str | None = TOKEN, **headers: str) -> httpx2.Response:
        sent = {**({"authorization": f"Bearer {token}"} if token else {}), **headers}
        return await self.http.post("/register", json=WITH_KEY if body is None else body, headers=sent)

    async def create_client(self, body: Any) -> httpx2.Response:
        token = jwt.encode({"aud": ADMIN, "iss": "https://kubernetes.default.svc"}, "of-the-cluster" * 3)
        return await self.http.post("/clients", json=body, headers={"authorization": f"Bearer {token}"})

    async def manage(self, method: str, told: dict[str, Any], body: Any = None) -> httpx2.Response:
        headers = {"authorization": f"Bearer {told['registration_access_token']}"}
        return await self.http.request(method, f"/register/{told['client_id']}", json=body, headers=headers)


def merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict) and isinstance(target.get(name), dict):
            merge(target[name], value)
        else:
            target[name] = value


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "tokens").mkdir()
    return Place(tmp_path / "tokens")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Place]:
    (tmp_path / "tokens").mkdir()
    return lambda **values: Place(tmp_path / "tokens", **values)


async def told(place: Place, body: Any = None) -> dict[str, Any]:
    answer = await place.register(body)
    assert answer.status_code == 201, answer.text
    read: dict[str, Any] = answer.json()
    return read


async def test_a_client_is_there_when_the_answer_is(place: Place) -> None:
    client = await told(place)
    known = place.world.snapshot.client(client["client_id"])
    assert known is not None
    assert [key.kid for key in known.state.keys] == ["k1"]
    assert is_pending(known.state)


@pytest.mark.parametrize(
    ("failing", "answer", "expected", "left"),
    [
        pytest.param("create", status(422, "Invalid"), 400, 0, id="the schema refuses what was not found here"),
        pytest.param("create", status(403, "Forbidden"), 503, 0, id="a quota is used up"),
        pytest.param("create", status(500), 503, 0, id="the API server fails"),
        pytest.param("create", httpx2.ConnectError("x"), 503, 0, id="the API server is away"),
        pytest.param("secret", status(403, "Forbidden"), 503, 0, id="the Secret is refused"),
        pytest.param("secret", httpx2.ReadTimeout("x"), 503, 0, id="the Secret may be there or not"),
        pytest.param("operator", None, 503, 0, id="the operator does nothing"),
    ],
)
async def test_what_cannot_be_finished_is_taken_back(
    place: Place, failing: str, answer: Any, expected: int, left: int
) -> None:
    if failing == "operator":
        place.operator = False
    else:
        place.api.answers["POST", CLIENTS if failing == "create" else SECRETS] = lambda _: answer
    got = await place.register()
    assert got.status_code == expected, got.text
    assert ("retry-after" in got.headers) is (expected == 503)
    assert len(place.objects) == left


async def test_an_object_that_was_made_although_the_answer_was_lost_is_taken_back(place: Place) -> None:
    def lost(body: dict[str, Any]) -> Exception:
        place.create(body)
        return httpx2.ReadTimeout("lost")

    place.api.answers["POST", CLIENTS] = lost
    assert (await place.register()).status_code == 503
    assert place.objects == {}


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(b"Bearer", id="a scheme alone"),
        pytest.param(b"Basic YTpi", id="another scheme"),
        pytest.param(b"Bearer \xff\xfe", id="not UTF-8"),
        pytest.param(b"Bearer " + b"x" * 9000, id="huge"),
        pytest.param(b"Bearer  a b", id="two words"),
        pytest.param(b"\tBearer x", id="a tab"),
        pytest.param(b"", id="empty"),
    ],
)
async def test_malformed_credentials_are_401(place: Place, authorization: bytes) -> None:
    for method, path in (("POST", "/register"), ("GET", "/register/team.x"), ("DELETE", "/register/team.x")):
        answer = await place.http.request(method, path, headers=[(b"authorization", authorization)])
        assert answer.status_code == 401, answer.text
        assert answer.json()["error"]


async def test_two_authorization_headers_are_refused(place: Place) -> None:
    headers = [("authorization", f"Bearer {TOKEN}")] * 2
    assert (await place.http.post("/register", json={}, headers=headers)).status_code == 401


async def test_mode_open_asks_for_no_token_and_names_one_that_comes(make: Callable[..., Place]) -> None:
    place = make(registration="open")
    for token, creator in ((None, "anonymous"), ("wrong", "anonymous"), (TOKEN, "initial-access-token/portal")):
        answer = await place.register(token=token)
        assert answer.status_code == 201
        name = answer.json()["client_id"].removeprefix("team.")
        assert place.objects[name]["metadata"]["annotations"]["keyturn.dev/created-by"] == creator


async def test_mode_disabled_registers_nobody_and_lets_clients_manage_what_they_have(
    make: Callable[..., Place],
) -> None:
    place = make(registration="disabled")
    assert (await place.register()).status_code == 404
    assert (await place.http.get("/register/team.x")).status_code == 401
    assert (await place.http.post("/clients", json={})).status_code == 404


async def test_an_address_is_limited_and_an_exempt_one_is_not(make: Callable[..., Place]) -> None:
    place = make(registrations_per_minute=1)
    assert (await place.register({"scope": 1})).status_code == 400
    limited = await place.register({"scope": 1})
    assert (limited.status_code, limited.json()["error"]) == (429, "slow_down")
    exempt = make(registrations_per_minute=1, rate_limit_exempt="127.0.0.0/8")
    assert [(await exempt.register({"scope": 1})).status_code for _ in range(3)] == [400] * 3


async def test_only_so_many_wait_for_approval(make: Callable[..., Place]) -> None:
    place = make(registration_max_pending=2)
    first, _ = await told(place), await told(place)
    full = await place.register()
    assert (full.status_code, int(full.headers["retry-after"]) > 60) == (429, True)
    name = first["client_id"].removeprefix("team.")
    place.objects[name]["spec"]["permissions"] = ["orders:read"]
    place.reconcile()
    assert (await place.register()).status_code == 201


async def test_objects_of_other_namespaces_take_no_place_although_they_look_the_same(
    make: Callable[..., Place],
) -> None:
    place = make(registration_max_pending=1)
    name = "r-" + "0" * 32
    for number, client_id in enumerate((f"tenant.{name}", f"team.sub.{name}", "team.by-hand")):
        state = ClientState(client_id, NOW, registration=Registered(None, None, "pending"))
        assert is_pending(state)
        place.world.change((Kind.CLIENT, f"foreign-{number}", state.to_body()))
    assert (await place.register()).status_code == 201
    assert (await place.register()).status_code == 429


async def test_one_address_takes_a_tenth_of_the_places_where_registration_is_open(make: Callable[..., Place]) -> None:
    place = make(registration="open", registration_max_pending=20)
    first = await place.register(token=None)
    assert [first.status_code, (await place.register(token=None)).status_code] == [201, 201]
    full = await place.register(token=None)
    assert (full.status_code, full.json()["error"]) == (429, "slow_down")
    assert "this address" in full.json()["error_description"]
    assert int(full.headers["retry-after"]) > 60
    # Who has a token registers for others; and another address has its own share.
    assert (await place.register()).status_code == 201
    other = httpx2.AsyncClient(transport=httpx2.ASGITransport(place.app, client=("192.0.2.9", 1)), base_url="http://x")
    assert (await other.post("/register", json=WITH_KEY)).status_code == 201
    # What is approved or deleted takes no place any more.
    place.objects[first.json()["client_id"].removeprefix("team.")]["spec"]["permissions"] = ["orders:read"]
    place.reconcile()
    again = await place.register(token=None)
    assert again.status_code == 201
    assert (await place.register(token=None)).status_code == 429
    await place.manage("DELETE", again.json())
    assert (await place.register(token=None)).status_code == 201


async def test_a_registration_that_failed_takes_no_place(make: Callable[..., Place]) -> None:
    place = make(registration="open", registration_max_pending=1)
    place.operator = False
    assert (await place.register(token=None)).status_code == 503
    place.operator = True
    assert (await place.register(token=None)).status_code == 201


@pytest.mark.parametrize("name", ["rights", "who"])
async def test_a_claim_that_the_settings_keep_for_the_issuer_is_refused_to_internal_callers(
    make: Callable[..., Place], name: str
) -> None:
    place = make(internal=True, permissions_key="rights", user_id_key="who")
    answer = await place.create_client({**WITH_KEY, "allowedCustomClaims": ["tenant", name]})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    assert place.objects == {}


@pytest.mark.parametrize(
    "lacking",
    [
        pytest.param({"keys": ()}, id="keys"),
        pytest.param({"permissions": ()}, id="permissions"),
        pytest.param({"audiences": ()}, id="audiences"),
        pytest.param({"allowed_custom_claims": ()}, id="claims"),
        pytest.param({"suspended": False}, id="the suspension"),
    ],
)
async def test_a_client_that_came_into_force_without_what_was_sent_is_taken_back(
    make: Callable[..., Place], monkeypatch: pytest.MonkeyPatch, lacking: dict[str, Any]
) -> None:
    place = make(internal=True)
    sent = {
        **WITH_KEY,
        "permissions": ["orders:read"],
        "audience": ["orders"],
        "allowedCustomClaims": ["tenant"],
        "__STATE__": "DRAFT",
    }

    def created(body: dict[str, Any]) -> httpx2.Response:
        answer = place.create(body)
        place.reconcile()
        return answer

    place.api.answers["POST", CLIENTS] = created
    made = await place.create_client(sent)
    assert (made.status_code, made.json()["scope"]) == (201, "orders:read")
    assert [key["kid"] for key in made.json()["jwks"]["keys"]] == ["k1"]
    full = place.state
    monkeypatch.setattr(place, "state", lambda name, obj: dataclasses.replace(full(name, obj), **lacking))
    assert (await place.create_client(sent)).status_code == 503
    assert len(place.objects) == 1


async def test_a_client_that_was_granted_more_in_the_same_moment_is_as_it_was_sent(
    make: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make()
    full = place.state
    monkeypatch.setattr(
        place, "state", lambda name, obj: dataclasses.replace(full(name, obj), permissions=("orders:read",))
    )
    answer = await place.register()
    assert (answer.status_code, answer.json()["scope"]) == (201, "orders:read")


async def test_a_body_has_a_limit(place: Place) -> None:
    answer = await place.register({"x": "y" * 70_000})
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")


async def test_the_other_replicas_are_given_a_moment_and_no_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registrar, "_OTHERS", 0.3)
    await place.store.open()
    await place.store.heartbeat(Replica("level", 10_000, (), 1e12))
    began = time.monotonic()
    await told(place)
    assert time.monotonic() - began < 0.3
    await place.store.heartbeat(Replica("behind", 0, (), 1e12))
    began = time.monotonic()
    await told(place)
    assert time.monotonic() - began >= 0.3


async def test_an_update_over_an_edit_of_somebody_else_keeps_that_edit(place: Place) -> None:
    client = await told(place)
    obj = place.objects[client["client_id"].removeprefix("team.")]
    edits = iter(["orders:read"])

    def edit() -> None:
        for permission in edits:
            obj["spec"]["permissions"] = [permission]
            obj["metadata"]["resourceVersion"] = "77"

    place.after_patch = edit
    body = {"client_id": client["client_id"], "jwks": {"keys": [KEY]}, "client_name": "New"}
    assert (await place.manage("PUT", client, body)).status_code == 200
    assert (obj["spec"]["permissions"], obj["spec"]["clientName"]) == (["orders:read"], "New")


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        pytest.param("from elsewhere", 200, id="its own, which somebody brought"),
        pytest.param("another", 400, id="one of its choice"),
        pytest.param(17, 400, id="no text"),
    ],
)
async def test_a_secret_in_an_update_must_be_the_clients_and_is_hashed_off_the_event_loop(
    place: Place, secret: Any, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await told(place, {"token_endpoint_auth_method": "client_secret_basic"})
    known = place.world.snapshot.client(client["client_id"])
    assert known is not None
    brought = (SecretHash(hash_secret(b"from elsewhere", 4), None, "own/u/1"),)
    state = dataclasses.replace(known.state, secrets=brought)
    place.world.change((Kind.CLIENT, known.uid, state.to_body()))
    threads: set[str] = set()
    check = bcrypt.checkpw

    def checking(password: bytes, hashed: bytes) -> bool:
        threads.add(threading.current_thread().name.partition("_")[0])
        return check(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", checking)
    answer = await place.manage("PUT", client, {"client_id": client["client_id"], "client_secret": secret})
    assert answer.status_code == expected, answer.text
    assert threads == ({"secrets"} if isinstance(secret, str) else set())


async def test_an_update_that_does_not_come_into_force_is_taken_back(place: Place) -> None:
    client = await told(place, {**WITH_KEY, "client_name": "Old"})
    name = client["client_id"].removeprefix("team.")
    before = json.loads(json.dumps(place.objects[name]["spec"]))
    place.operator = False
    body = {"client_id": client["client_id"], "jwks": {"keys": [public_jwk("k2")]}}
    refused = await place.manage("PUT", client, body)
    assert refused.status_code == 503
    assert place.objects[name]["spec"] == before
    assert (await place.manage("GET", client)).status_code == 200


async def test_an_update_of_a_client_that_was_just_suspended_is_refused(place: Place) -> None:
    client = await told(place)
    place.objects[client["client_id"].removeprefix("team.")]["spec"]["suspended"] = True
    body = {"client_id": client["client_id"], "jwks": {"keys": [KEY]}}
    assert (await place.manage("PUT", client, body)).status_code == 403


async def test_an_update_with_a_token_that_was_just_replaced_is_refused(place: Place) -> None:
    client = await told(place)
    spec = place.objects[client["client_id"].removeprefix("team.")]["spec"]
    spec["registration"]["secretName"] = "another"
    body = {"client_id": client["client_id"], "jwks": {"keys": [KEY]}}
    assert (await place.manage("PUT", client, body)).status_code == 401


async def test_a_client_that_is_gone_from_the_cluster_cannot_be_changed(place: Place) -> None:
    client = await told(place)
    place.objects.clear()
    body = {"client_id": client["client_id"], "jwks": {"keys": [KEY]}}
    assert (await place.manage("PUT", client, body)).status_code == 401


async def test_updates_of_one_client_are_limited(make: Callable[..., Place]) -> None:
    place = make(registrations_per_minute=1)
    client = await told(place)
    answers = [await place.manage("PUT", client, {}) for _ in range(2)]
    assert [one.status_code for one in answers] == [400, 429]


async def test_a_deletion_that_is_not_in_force_yet_says_so_and_can_be_repeated(place: Place) -> None:
    client = await told(place)
    place.operator = False
    for _ in range(2):
        answer = await place.manage("DELETE", client)
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    name = client["client_id"].removeprefix("team.")
    assert name not in place.objects
    place.world.change((Kind.CLIENT, f"uid-{name}", None))
    assert (await place.manage("DELETE", client)).status_code == 401


async def test_while_kubernetes_is_away_a_client_still_reads(place: Place) -> None:
    client = await told(place)
    path = f"{CLIENTS}/{client['client_id'].removeprefix('team.')}"
    for method in ("PATCH", "DELETE"):
        place.api.answers[method, path] = lambda _: httpx2.ConnectError("down")
    assert (await place.manage("GET", client)).json() == client
    body = {"client_id": client["client_id"], "jwks": {"keys": [KEY]}}
    assert (await place.manage("PUT", client, body)).status_code == 503
    assert (await place.manage("DELETE", client)).status_code == 503


async def test_a_client_that_expired_manages_nothing(place: Place) -> None:
    client = await told(place)
    known = place.world.snapshot.client(client["client_id"])
    assert known is not None
    known.state = dataclasses.replace(known.state, expires_at=1.0)
    assert (await place.manage("GET", client)).status_code == 403


async def test_an_unexpected_failure_is_a_500_with_an_id_and_no_cause(place: Place) -> None:
    place.api.answers["POST", CLIENTS] = lambda _: {"metadata": {}}
    answer = await place.register(**{"x-request-id": "req-9"})
    assert answer.status_code == 500
    assert "req-9" in answer.json()["error_description"]
    assert "uid" not in answer.text


async def test_each_operation_is_documented_with_a_command_and_with_each_refusal(make: Callable[..., Place]) -> None:
    place = make(internal=True)
    paths = (await place.http.get("/openapi.json")).json()["paths"]
    operations = [
        (method, path) for path, item in paths.items() for method in item if path.startswith(("/register", "/clients"))
    ]
    assert len(operations) == 5
    for method, path in operations:
        operation = paths[path][method]
        assert "```sh\ncurl " in operation["description"], path
        assert "default" not in operation["responses"]
        assert operation["responses"].keys() >= {"401", "405", "408", "431", "500", "503"}
    assert "Nothing was done" not in paths["/register/{client_id}"]["delete"]["responses"]["503"]["description"]
    slashed = await place.http.get("/register/a%2Fb")
    assert str(slashed.status_code) in paths["/register/{client_id}"]["get"]["responses"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/register", "POST"), ("/register/team.x", "GET, PUT, DELETE")],
)
async def test_other_methods_are_told_what_is_meant(place: Place, path: str, allowed: str) -> None:
    answer = await place.http.request("PATCH", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


async def test_before_the_store_is_loaded_nobody_is_registered(place: Place) -> None:
    place.world.snapshot.position = None
    assert (await place.register()).status_code == 503
    got = await place.http.get("/register/team.x", headers={"authorization": "Bearer x"})
    assert got.status_code == 503
    assert place.objects == {}


# Upkeep


async def test_the_label_follows_the_first_grant_and_never_goes_back(place: Place) -> None:
    client = await told(place)
    name = client["client_id"].removeprefix("team.")
    labels = place.objects[name]["metadata"]["labels"]
    await place.service.upkeep.step()
    assert labels["keyturn.dev/approval"] == "pending"
    place.objects[name]["spec"]["permissions"] = ["orders:read"]
    place.reconcile()
    await place.service.upkeep.step(spread=0.01)
    assert labels["keyturn.dev/approval"] == "granted"
    del place.objects[name]["spec"]["permissions"]
    place.reconcile()
    calls = len(place.api.calls)
    await place.service.upkeep.step()
    assert len(place.api.calls) == calls, "what was approved once is nobody's business here"


async def test_what_nobody_approves_in_time_is_deleted(make: Callable[..., Place]) -> None:
    place = make(registration_pending_ttl=60)
    client = await told(place)
    place.service.upkeep._clock = lambda: NOW + 59
    await place.service.upkeep.step()
    assert len(place.objects) == 1
    place.service.upkeep._clock = lambda: NOW + 61
    await place.service.upkeep.step()
    assert place.objects == {}
    assert place.world.snapshot.client(client["client_id"]) is None


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda obj: obj["spec"].update(permissions=["a"]), id="granted a moment ago"),
        pytest.param(lambda obj: obj["spec"].update(audiences=["a"]), id="given an audience a moment ago"),
        pytest.param(
            lambda obj: obj["metadata"]["labels"].update({"keyturn.dev/approval": "kept"}), id="labelled a moment ago"
        ),
        pytest.param(lambda obj: obj["metadata"].update(uid="another"), id="another object under the name"),
    ],
)
async def test_what_was_approved_in_the_last_moment_stays(make: Callable[..., Place], edit: Any) -> None:
    place = make(registration_pending_ttl=60)
    client = await told(place)
    edit(place.objects[client["client_id"].removeprefix("team.")])
    place.service.upkeep._clock = lambda: NOW + 61
    await place.service.upkeep.step()
    assert len(place.objects) == 1


async def test_an_edit_between_the_look_and_the_deletion_wins(make: Callable[..., Place]) -> None:
    place = make(registration_pending_ttl=60)
    client = await told(place)
    obj = place.objects[client["client_id"].removeprefix("team.")]
    place.service.upkeep._clock = lambda: NOW + 61

    def approve() -> None:
        obj["metadata"]["resourceVersion"] = "99"

    place.after_patch = approve
    await place.service.upkeep.step()
    assert len(place.objects) == 1


async def test_without_a_limit_of_time_everything_stays(make: Callable[..., Place]) -> None:
    place = make(registration_pending_ttl=0)
    await told(place)
    place.service.upkeep._clock = lambda: NOW + 1e9
    await place.service.upkeep.step()
    assert len(place.objects) == 1


async def test_upkeep_goes_on_by_itself_and_after_a_failure(
    make: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration_upkeep, "_LOOK_EVERY", 0.02)
    monkeypatch.setattr(registration_upkeep, "_AFTER_FAILURE", 0.02)
    monkeypatch.setattr(registration_upkeep, "_SPREAD", 0.01)
    place = make()
    client = await told(place)
    name = client["client_id"].removeprefix("team.")
    works = place.api.answers["PATCH", f"{CLIENTS}/{name}"]
    failures = iter([httpx2.ConnectError("down")])
    place.api.answers["PATCH", f"{CLIENTS}/{name}"] = lambda change: next(failures, None) or works(change)
    place.objects[name]["spec"]["permissions"] = ["orders:read"]
    place.reconcile()
    task = asyncio.create_task(place.service.upkeep.run())
    labels = place.objects[name]["metadata"]["labels"]
    assert await place.changes.wait_until(lambda: labels["keyturn.dev/approval"] == "granted", 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert next(failures, None) is None


async def test_what_cannot_be_taken_back_is_left_to_the_removal_of_what_nobody_approves(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registrar, "_TAKE_BACK_PAUSE", 0.01)
    place.operator = False

    def made(body: dict[str, Any]) -> httpx2.Response:
        answer = place.create(body)
        path = f"{CLIENTS}/{body['metadata']['name']}"
        place.api.answers["DELETE", path] = lambda _: httpx2.ConnectError("down")
        return answer

    place.api.answers["POST", CLIENTS] = made
    assert (await place.register()).status_code == 503
    assert sum(method == "DELETE" for method, _, _ in place.api.calls) == 3
    (left,) = place.objects.values()
    assert left["metadata"]["labels"]["keyturn.dev/approval"] == "pending"


async def test_an_update_is_not_taken_back_over_an_edit_of_somebody_else(place: Place) -> None:
    client = await told(place)
    obj = place.objects[client["client_id"].removeprefix("team.")]
    place.operator = False
    versions = iter(["10", "20"])

    def edit() -> None:
        # After the update, not after the look before it.
        if obj["spec"].get("clientName") == "New":
            obj["metadata"]["resourceVersion"] = next(versions, "30")
            obj["metadata"]["generation"] += 1
            obj["spec"]["suspended"] = True

    place.after_patch = edit
    body = {"client_id": client["client_id"], "jwks": {"keys": [KEY]}, "client_name": "New"}
    assert (await place.manage("PUT", client, body)).status_code == 503
    assert (obj["spec"]["clientName"], obj["spec"]["suspended"]) == ("New", True)
