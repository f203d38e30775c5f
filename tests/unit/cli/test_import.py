"""`keyturn import`: the reference's records become manifests that mean the same, and the report tells the rest."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml

from keyturn.clients.client_id import is_client_id
from keyturn_cli.client_import import Import, import_clients, object_name
from tests.crd_schemas import schema_of
from tests.manifests import private_jwk_members, public_jwk
from tests.unit.docs.schema_check import faults

from .command import keyturn

HASHED = bcrypt.hashpw(b"a secret of the reference", bcrypt.gensalt(4)).decode()
KEY = {**public_jwk("billing-2025"), "alg": "RSA256"}


def record(client_id: str = "billing", **more: Any) -> dict[str, Any]:
    return {
        "_id": {"$oid": "64b0c0ffee"},
        "__STATE__": "PUBLIC",
        "createdAt": {"$date": "2024-03-01T00:00:00Z"},
        "client_id": client_id,
        "client_name": "Billing",
        "token_endpoint_auth_method": "private_key_jwt",
        "public_key": KEY,
        "permissions": ["orders:read", "orders:read"],
        "audience": ["orders"],
        **more,
    }


def basic(client_id: str = "legacy", **more: Any) -> dict[str, Any]:
    method = {"token_endpoint_auth_method": "client_secret_basic", "client_secret": HASHED}
    given = record(client_id, **{**method, **more})
    del given["public_key"]
    return given


def only(imported: Import) -> dict[str, Any]:
    (client,) = imported.clients
    spec: dict[str, Any] = client["spec"]
    return spec


def test_a_record_becomes_a_client_that_keeps_its_id_key_and_permissions() -> None:
    imported = import_clients([record(allowedCustomClaims=["tenant"], metadata={"team": "a"})], namespace="shop")
    (client,) = imported.clients
    assert client["metadata"] == {
        "name": "billing",
        "namespace": "shop",
        "annotations": {"metadata.keyturn.dev/team": "a"},
    }
    spec = client["spec"]
    (key,) = spec.pop("publicKeys")
    assert (key["jwk"]["kid"], key["jwk"]["n"], key["jwk"]["alg"]) == ("billing-2025", KEY["n"], "RS256")
    assert spec == {
        "clientId": "billing",
        "clientName": "Billing",
        "authMethod": "private_key_jwt",
        "permissions": ["orders:read"],
        "audiences": ["orders"],
        "allowedCustomClaims": ["tenant"],
    }
    assert imported.complete
    assert "RS256" in str(imported.findings[0])


def test_a_secret_goes_on_by_its_hash_which_stands_in_no_client() -> None:
    imported = import_clients([basic()])
    assert only(imported)["clientSecret"] == {"secretName": "legacy-secret", "generate": False}
    assert HASHED not in json.dumps(imported.clients)
    assert HASHED not in repr(imported)
    (secret,) = imported.secrets
    assert secret["stringData"] == {"client_secret_hash": HASHED}
    assert secret["metadata"]["name"] == "legacy-secret"
    assert imported.complete


@pytest.mark.parametrize(
    ("given", "state"),
    [("DRAFT", True), ("TRASH", True), ("PUBLIC", None)],
)
def test_what_was_not_public_is_suspended(given: str, state: bool | None) -> None:
    assert only(import_clients([record(__STATE__=given)])).get("suspended") is state


def test_a_deleted_one_is_not_made_and_nothing_is_lost() -> None:
    imported = import_clients([record(__STATE__="DELETED"), record("other")])
    assert [one["spec"]["clientId"] for one in imported.clients] == ["other"]
    assert imported.complete


@pytest.mark.parametrize(
    ("given", "member", "said"),
    [
        pytest.param("text", "record", "is no JSON object", id="no object"),
        pytest.param(record("a b"), "client_id", "is none", id="an id that is none"),
        pytest.param(record(__STATE__="NEW"), "__STATE__", "is not known", id="an unknown state"),
        pytest.param(record(token_endpoint_auth_method="tls"), "token_endpoint_auth_method", "known", id="a method"),
        pytest.param(record(public_key=None), "public_key", "", id="no key"),
        pytest.param(record(public_key={**KEY, **private_jwk_members()}), "public_key", "private", id="a private key"),
        pytest.param(record(public_key={"kty": "oct", "k": "hidden"}), "public_key", "", id="a symmetric key"),
    ],
)
def test_a_record_that_cannot_be_read_is_left_out_and_told(given: object, member: str, said: str) -> None:
    imported = import_clients([given])
    assert (imported.clients, imported.complete) == ([], False)
    (finding,) = imported.findings
    assert finding.member == member
    assert said in finding.message
    assert "hidden" not in finding.message
    assert private_jwk_members()["d"] not in finding.message


@pytest.mark.parametrize(
    ("given", "member"),
    [
        pytest.param(record(permissions=["ok", "not ok"]), "permissions", id="a permission with a space"),
        pytest.param(record(audience=7), "audience", id="an audience that is no list"),
        pytest.param(record(allowedCustomClaims=["sub"]), "allowedCustomClaims", id="a reserved claim"),
        pytest.param(record(allowedCustomClaims=["a b"]), "allowedCustomClaims", id="no claim's name"),
        pytest.param(record(metadata={"a b": 1}), "metadata", id="metadata that is no annotation"),
        pytest.param(record(surprise=1), "surprise", id="an unknown member"),
        pytest.param(basic(client_secret="plain?"), "client_secret", id="a secret that is no hash"),
    ],
)
def test_what_is_lost_of_a_client_is_told_and_the_rest_is_made(given: dict[str, Any], member: str) -> None:
    imported = import_clients([given])
    assert len(imported.clients) == 1
    assert [finding.member for finding in imported.findings if finding.lost] == [member]


def test_a_secret_that_is_not_there_is_made_anew() -> None:
    given = basic()
    del given["client_secret"]
    imported = import_clients([given])
    assert only(imported)["clientSecret"] == {"secretName": "legacy-secret"}
    assert imported.secrets == []


def test_an_id_twice_makes_one_client() -> None:
    imported = import_clients([record(), record(client_name="Again")])
    assert [one["spec"]["clientName"] for one in imported.clients] == ["Billing"]
    assert not imported.complete


@pytest.mark.parametrize(
    ("client_id", "taken", "name"),
    [
        pytest.param("5f0c2a9e-6d1b", (), "5f0c2a9e-6d1b", id="an id that is a name"),
        pytest.param("Team.A_b", (), "team-a-b-b559f97e", id="signs that names do not have"),
        pytest.param("Billing", ("billing",), "billing-", id="a name that is taken"),
        pytest.param("x" * 60, (), "x" * 43 + "-", id="too long"),
    ],
)
def test_names_follow_the_client_id(client_id: str, taken: tuple[str, ...], name: str) -> None:
    made = object_name(client_id, taken)
    assert made.startswith(name[: name.rfind("-") + 1] or name)
    assert made == object_name(client_id, taken)
    assert len(made) <= 52
    assert is_client_id(made)


def test_every_manifest_passes_the_schema() -> None:
    imported = import_clients([record(metadata={"a": True}), basic(client_name="x" * 300 + "\x00")])
    for client in imported.clients:
        assert list(faults(schema_of("clientcredentials"), client)) == []


def many(count: int, length: int = 8) -> list[str]:
    return [f"p{number:0{length - 1}}" for number in range(count)]


@pytest.mark.parametrize(
    ("member", "field", "given", "kept"),
    [
        pytest.param("permissions", "permissions", many(512), 512, id="as many permissions as a client may hold"),
        pytest.param("permissions", "permissions", many(600), 512, id="more permissions"),
        pytest.param("permissions", "permissions", many(40, 256), 40, id="as long ones as a client may hold"),
        pytest.param("permissions", "permissions", many(41, 256), 40, id="longer ones together"),
        pytest.param("audience", "audiences", many(16), 16, id="as many audiences"),
        pytest.param("audience", "audiences", many(40), 16, id="more audiences"),
        pytest.param("allowedCustomClaims", "allowedCustomClaims", many(16), 16, id="as many claims"),
        pytest.param("allowedCustomClaims", "allowedCustomClaims", many(40), 16, id="more claims"),
    ],
)
def test_what_the_api_server_would_refuse_is_left_out_and_told(
    member: str, field: str, given: list[str], kept: int
) -> None:
    imported = import_clients([{**record(), member: given}])
    assert only(imported)[field] == given[:kept]
    assert list(faults(schema_of("clientcredentials"), imported.clients[0])) == []
    lost = [finding for finding in imported.findings if finding.lost]
    assert [finding.member for finding in lost] == ([] if kept == len(given) else [member])
    assert all(f"{len(given) - kept} of {len(given)}" in finding.message for finding in lost)


def test_the_bounds_are_those_of_the_crd() -> None:
    spec = schema_of("clientcredentials")["properties"]["spec"]["properties"]
    for member, field in (("permissions", "permissions"), ("audience", "audiences"), ("allowedCustomClaims",) * 2):
        kept = only(import_clients([{**record(), member: many(600)}]))[field]
        assert len(kept) == spec[field]["maxItems"]
    (rule,) = spec["permissions"]["x-kubernetes-validations"]
    assert rule["rule"].endswith("<= 10240")


def test_metadata_without_room_among_the_annotations_is_left_out_and_told() -> None:
    imported = import_clients([record(metadata={"a": "x" * 60_000, "b": "é" * 3_000, "c": "y"})])
    assert {name.rpartition("/")[2] for name in imported.clients[0]["metadata"]["annotations"]} == {"a", "c"}
    assert [finding.message for finding in imported.findings if finding.lost] == [
        "'b' was left out: annotations have no room for it"
    ]


FORMS = [
    pytest.param(lambda records: json.dumps(records), id="a list"),
    pytest.param(lambda records: json.dumps({"clients": records}), id="an object with clients"),
    pytest.param(lambda records: "\n".join(json.dumps(one) for one in records), id="an object a line"),
]


@pytest.mark.parametrize("form", FORMS)
def test_the_collection_is_read_from_stdin_and_written_to_stdout(form: Any) -> None:
    result = keyturn("import", "-", stdin=form([record(), record("other")]).encode())
    assert result.exit_code == 0, result.stderr
    written = list(yaml.safe_load_all(result.stdout))
    assert [one["spec"]["clientId"] for one in written] == ["billing", "other"]


def test_files_hold_manifests_secrets_and_the_report(tmp_path: Path) -> None:
    source = tmp_path / "clients.json"
    source.write_text(json.dumps([record(), basic()]), "utf-8")
    places = {name: tmp_path / name for name in ("clients.yaml", "secrets.yaml", "report.json")}
    options = ["-o", "clients.yaml", "--secrets", "secrets.yaml", "--report", "report.json"]
    arguments = [str(places.get(one, one)) for one in options]
    result = keyturn("import", str(source), "-n", "shop", *arguments)
    assert (result.exit_code, result.stdout) == (0, "")
    assert stat.S_IMODE(places["secrets.yaml"].stat().st_mode) == 0o600
    assert HASHED in places["secrets.yaml"].read_text("utf-8")
    assert HASHED not in places["clients.yaml"].read_text("utf-8") + places["report.json"].read_text("utf-8")
    report = json.loads(places["report.json"].read_text("utf-8"))
    assert (report["complete"], report["read"], report["clients"], report["secrets"]) == (True, 2, 2, 1)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        pytest.param(b"", 2, id="nothing"),
        pytest.param(b'{"clients": 1}', 2, id="clients that are no list"),
        pytest.param(b'[{"client_id": "a", "client_id": "b"}]', 2, id="a member twice"),
        pytest.param(b"[]", 1, id="no client"),
        pytest.param(json.dumps([record(), 7]).encode(), 1, id="one left out"),
    ],
)
def test_the_exit_code_says_how_it_went(given: bytes, code: int) -> None:
    assert keyturn("import", "-", stdin=given).exit_code == code
