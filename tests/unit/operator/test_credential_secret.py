"""What may be done with the Secret that is there, and what is written into it: decisions alone."""

import base64
import dataclasses
import json
from typing import Any

import pytest

from keyturn.clients.credentials import Credential, SecretRecord
from keyturn.clients.sources import CredentialKind
from keyturn_operator.credential_secret import (
    RECORD,
    CredentialSecret,
    Finding,
    change,
    emptied,
    handed_over,
    inspect,
    manifest,
)
from keyturn_operator.key_secret import MANAGED_BY, WRITTEN_FOR
from keyturn_operator.kube.client import Object
from tests.unit.operator.fakes import NOW, merge

DATA = {"client_secret": b"s3cret", "client_id": b"shop.a"}
OWNER: Object = {"metadata": {"name": "a", "uid": "uid-a"}}
WRITTEN = SecretRecord("uid-a", CredentialKind.SECRET, 1, Credential("s1", NOW, hash="h1"))


def made(record: SecretRecord = WRITTEN, data: dict[str, bytes] = DATA, **metadata: Any) -> Object:
    """A Secret as the operator makes it, and the API server keeps it."""
    secret = manifest(record, data, namespace="shop", name="s", owner=OWNER)
    secret["metadata"] |= {"uid": "uid-s", "resourceVersion": "7", **metadata}
    return secret


def foreign(data: dict[str, str] | None = None, **members: Any) -> Object:
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in (data or {}).items()}
    metadata = {"name": "s", "uid": "uid-s", "resourceVersion": "7", **members.pop("metadata", {})}
    return {"metadata": metadata, "type": "Opaque", "data": encoded, **members}


def look(secret: Object | None, *, uid: str = "uid-a", name: str = "a") -> CredentialSecret:
    return inspect(secret, uid=uid, name=name)


def edited(**members: str | None) -> Object:
    """The Secret that we made, edited by hand."""
    secret = made()
    for name, value in members.items():
        if value is None:
            del secret["data"][name]
        else:
            secret["data"][name] = base64.b64encode(value.encode()).decode()
    return secret


def annotated(**changes: str | None) -> Object:
    secret = made()
    names = {"record": RECORD, "written_for": WRITTEN_FOR}
    for name, value in changes.items():
        if value is None:
            del secret["metadata"]["annotations"][names[name]]
        else:
            secret["metadata"]["annotations"][names[name]] = value
    return secret


RETAINED = dataclasses.replace(WRITTEN, retain=True)


@pytest.mark.parametrize(
    ("secret", "uid", "finding", "said"),
    [
        pytest.param(None, "uid-a", Finding.ABSENT, "", id="there is none"),
        pytest.param(made(deletionTimestamp="x"), "uid-a", Finding.LEAVING, "", id="it is being deleted"),
        pytest.param(foreign(), "uid-a", Finding.FREE, "", id="it is empty"),
        pytest.param(foreign({"password": "p"}), "uid-a", Finding.FREE, "", id="it holds what is not ours"),
        pytest.param(foreign({"key_id": "p"}), "uid-a", Finding.CONFLICT, "key_id", id="it holds a member of ours"),
        pytest.param(
            foreign({"private_key.pem": "p", "client_id": "x"}),
            "uid-a",
            Finding.CONFLICT,
            "client_id, private_key.pem",
            id="it holds several",
        ),
        pytest.param(
            foreign(type="kubernetes.io/tls"), "uid-a", Finding.CONFLICT, "kubernetes.io/tls", id="another type"
        ),
        pytest.param(foreign(immutable=True), "uid-a", Finding.CONFLICT, "immutable", id="it is immutable"),
        pytest.param(
            foreign(metadata={"annotations": {WRITTEN_FOR: "SigningKey/keyturn"}}),
            "uid-a",
            Finding.CONFLICT,
            "SigningKey/keyturn",
            id="it holds the signing keys",
        ),
        pytest.param(made(), "uid-a", Finding.OURS, "", id="it is ours and whole"),
        pytest.param(made(), "uid-b", Finding.LEFTOVER, "", id="it was a former object's of this name"),
        pytest.param(made(RETAINED), "uid-b", Finding.OURS, "", id="which was to be retained"),
        pytest.param(edited(client_secret=None), "uid-a", Finding.INCOMPLETE, "", id="its secret was taken out"),
        pytest.param(
            edited(client_secret="other"), "uid-a", Finding.CONFLICT, "client_secret", id="its secret was changed"
        ),
        pytest.param(edited(client_id="other"), "uid-a", Finding.OURS, "", id="a member beside it was changed"),
        pytest.param(edited(key_id="k"), "uid-a", Finding.CONFLICT, "key_id", id="a member of ours was put beside it"),
        pytest.param(edited(note="n"), "uid-a", Finding.OURS, "", id="something else was put beside it"),
        pytest.param(annotated(record="{"), "uid-a", Finding.CONFLICT, RECORD, id="its record was damaged"),
        pytest.param(annotated(record=None), "uid-a", Finding.CONFLICT, RECORD, id="its record was taken off"),
        pytest.param(
            annotated(written_for=None), "uid-a", Finding.CONFLICT, "client_id, client_secret", id="its mark was"
        ),
        pytest.param(
            annotated(written_for="ClientCredential/b"), "uid-a", Finding.CONFLICT, "ClientCredential/b", id="another's"
        ),
        pytest.param(
            foreign(metadata={"annotations": {WRITTEN_FOR: "ClientCredential/a"}}),
            "uid-a",
            Finding.FREE,
            "",
            id="only our mark is left",
        ),
    ],
)
def test_a_secret_is_judged_by_who_wrote_what_is_in_it(
    secret: Object | None, uid: str, finding: Finding, said: str
) -> None:
    found = look(secret, uid=uid)
    assert found.finding is finding
    assert said in found.detail
    assert "s3cret" not in found.detail


def test_a_secret_that_is_made_follows_its_object_and_tells_whose_it_is() -> None:
    secret = made()
    metadata = secret["metadata"]
    assert metadata["labels"] == {MANAGED_BY: "keyturn"}
    assert metadata["annotations"][WRITTEN_FOR] == "ClientCredential/a"
    (owner,) = metadata["ownerReferences"]
    assert (owner["uid"], owner["blockOwnerDeletion"]) == ("uid-a", False)
    assert "ownerReferences" not in made(RETAINED)["metadata"]
    record = json.loads(metadata["annotations"][RECORD])
    assert record["created"] is True
    assert set(record["members"]) == set(DATA)
    assert not any(value.decode() in metadata["annotations"][RECORD] for value in DATA.values())


def changed(secret: Object, record: SecretRecord, data: dict[str, bytes] = DATA) -> Object | None:
    return change(look(secret), record, data, owner=OWNER)


def test_a_secret_that_is_as_it_belongs_is_not_written() -> None:
    secret = made()
    record = look(secret).record
    assert record is not None
    assert changed(secret, record) is None


def test_a_change_names_the_version_that_was_read_and_touches_nothing_else() -> None:
    labels = {"team": "a"}
    secret = foreign({"password": "p"}, metadata={"labels": labels, "annotations": {"note": "n"}})
    patch = changed(secret, WRITTEN)
    assert patch is not None
    assert (patch["metadata"]["uid"], patch["metadata"]["resourceVersion"]) == ("uid-s", "7")
    assert "labels" not in patch["metadata"]
    assert "ownerReferences" not in patch["metadata"]
    merge(secret, patch)
    assert secret["metadata"]["labels"] == labels
    assert secret["metadata"]["annotations"]["note"] == "n"
    assert set(secret["data"]) == {"password", *DATA}
    found = look(secret)
    assert found.finding is Finding.OURS
    assert found.record is not None
    assert not found.record.created


def test_members_of_another_kind_are_taken_out() -> None:
    secret = made()
    key = SecretRecord("uid-a", CredentialKind.KEY, 2, Credential("s2", NOW, hash="h2"))
    patch = changed(secret, key, {"private_key.pem": b"pem", "private_key.jwk": b"{}", "client_id": b"shop.a"})
    assert patch is not None
    assert patch["data"]["client_secret"] is None
    merge(secret, patch)
    assert set(secret["data"]) == {"private_key.pem", "private_key.jwk", "client_id"}


def test_owners_of_others_stay_and_ours_comes_and_goes_with_the_policy() -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "uid-c"}
    secret = made()
    secret["metadata"]["ownerReferences"].insert(0, other)
    record = look(secret).record
    assert record is not None
    patch = changed(secret, dataclasses.replace(record, retain=True))
    assert patch is not None
    assert patch["metadata"]["ownerReferences"] == [other]
    merge(secret, patch)
    again = changed(secret, dataclasses.replace(record, retain=False))
    assert again is not None
    assert [one["kind"] for one in again["metadata"]["ownerReferences"]] == ["ConfigMap", "ClientCredential"]


def test_what_we_wrote_is_taken_out_and_nothing_else() -> None:
    secret = foreign({"password": "p"})
    patch = changed(secret, WRITTEN)
    assert patch is not None
    merge(secret, patch)
    record = look(secret).record
    assert record is not None
    merge(secret, emptied(secret, record))
    assert set(secret["data"]) == {"password"}
    assert secret["metadata"]["annotations"] == {}


def test_a_secret_that_becomes_its_authors_own_keeps_its_members_and_loses_our_marks() -> None:
    secret = made()
    merge(secret, handed_over(secret))
    assert set(secret["data"]) == set(DATA)
    assert secret["metadata"]["annotations"] == {}
    assert secret["metadata"]["labels"] == {}
    assert "ownerReferences" not in secret["metadata"]
