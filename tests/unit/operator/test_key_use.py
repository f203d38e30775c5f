"""What the status says of the use of keys: coarse, and a hint where an old one may go. And what it says of those that end."""

import dataclasses
from typing import Any

import pytest

from keyturn.clients.state import ClientKey, ClientState, SecretHash
from keyturn.records import Activity
from keyturn.timestamps import format_rfc3339
from keyturn_operator.client_status import MAX_KEYS, keys_expiring, next_change, status_fields, usability
from keyturn_operator.key_use import Uses, hint, shown_uses

NOW = 1_800_000_000.0
DAY = 86_400.0


def key(kid: str, added: float | None = NOW - 10 * DAY, **changes: Any) -> ClientKey:
    return ClientKey(
        **{
            "kid": kid,
            "thumbprint": f"thumb-{kid}",
            "algorithm": "RS256",
            "size": 2048,
            "source": "publicKeys",
            "jwk": {},
            "added_at": added,
            **changes,
        }
    )


def used(**times: float) -> Uses:
    return Uses.of([Activity("shop.a", kid, at) for kid, at in times.items()])


OLD, NEW = key("old"), key("new", NOW - DAY)


@pytest.mark.parametrize(
    ("uses", "told"),
    [
        pytest.param({}, False, id="neither was ever used"),
        pytest.param({"old": NOW - 2 * DAY}, False, id="the new one is not in use yet"),
        pytest.param({"old": NOW - 2 * DAY, "new": NOW - 100}, True, id="the client has changed over"),
        pytest.param({"new": NOW - 100}, True, id="the old one was never used"),
        pytest.param({"old": NOW - 50, "new": NOW - 100}, False, id="the old one was used since"),
        pytest.param({"old": NOW - DAY, "new": NOW - 100}, False, id="in the same second"),
        pytest.param({"old": NOW - 2 * DAY, "new": NOW - 2 * DAY}, False, id="a use from before the new one came"),
    ],
)
def test_an_old_key_may_go_when_it_was_not_used_since_a_newer_one_that_is_in_use(
    uses: dict[str, float], told: bool
) -> None:
    said = hint(OLD, [OLD, NEW], used(**uses))
    assert (said is not None) == told
    assert said is None or said.startswith("safe to remove")
    assert said is None or len(said) <= 96
    assert hint(NEW, [OLD, NEW], used(**uses)) is None


def test_nothing_is_said_of_keys_of_which_nobody_knows_when_they_came() -> None:
    unknown = dataclasses.replace(OLD, added_at=None)
    assert hint(unknown, [unknown, NEW], used(new=NOW)) is None
    later = dataclasses.replace(NEW, added_at=None)
    assert hint(OLD, [OLD, later], used(new=NOW)) is None


STATUS = {
    "lastTokenIssuedAt": format_rfc3339(NOW - 1800),
    "keys": [{"kid": "old", "lastUsedAt": format_rfc3339(NOW - 1800)}],
    "secrets": [{"id": "s", "lastUsedAt": "yesterday"}],
}


@pytest.mark.parametrize(
    ("status", "uses", "moved", "shown"),
    [
        pytest.param({}, {"old": NOW}, False, NOW, id="the first use is told at once"),
        pytest.param(STATUS, {"old": NOW}, False, NOW - 1800, id="the next within the hour is not"),
        pytest.param(STATUS, {"old": NOW}, True, NOW, id="unless the status is written anyway"),
        pytest.param(STATUS, {"old": NOW + 1800}, False, NOW + 1800, id="an hour later it is"),
        pytest.param(STATUS, {}, True, NOW - 1800, id="a lost store makes nobody forget"),
        pytest.param(STATUS, {"old": NOW - 9000}, True, NOW - 1800, id="nor does an older one"),
        pytest.param({"keys": "no list"}, {}, True, None, id="a damaged status says nothing"),
    ],
)
def test_uses_alone_write_the_status_once_an_hour(
    status: dict[str, Any], uses: dict[str, float], moved: bool, shown: float | None
) -> None:
    told = shown_uses(status, used(**uses), moved=moved)
    assert (told.last("old"), told.client) == (shown, shown)


def state(*keys: ClientKey, secrets: tuple[SecretHash, ...] = (), **changes: Any) -> ClientState:
    return ClientState(client_id="shop.a", created_at=0.0, keys=keys, secrets=secrets, **changes)


WINDOW = 14 * DAY
ENDS = key("ends", not_after=NOW + DAY)


@pytest.mark.parametrize(
    ("keys", "uses", "present", "status", "said"),
    [
        pytest.param((OLD,), {}, [], None, "", id="a key without an end"),
        pytest.param((ENDS,), {}, [], "True", "ends ends at", id="the only key ends soon"),
        pytest.param((key("far", not_after=NOW + 15 * DAY),), {}, [], "False", "", id="a key that ends later"),
        pytest.param((ENDS, NEW), {}, [], "True", "ends", id="its successor is not in use yet"),
        pytest.param((ENDS, NEW), {"new": NOW - 10}, [], "False", "", id="its successor is in use"),
        pytest.param((ENDS, NEW), {"new": NOW - 10, "ends": NOW - 5}, [], "True", "ends", id="and so is itself"),
        pytest.param(
            (key("g", source="generateKey", not_after=NOW + 60),),
            {},
            [],
            None,
            "",
            id="a generated one has a successor",
        ),
        pytest.param(
            (key("f", source="jwksUri", not_after=NOW + 60),), {}, [], None, "", id="a fetched one is renewed"
        ),
        pytest.param((key("over", not_after=NOW - 60),), {}, [], "True", "over", id="a key that has ended"),
        pytest.param((OLD,), {}, [{"type": "KeysExpiring"}], "False", "", id="what was told is taken back"),
    ],
)
def test_keys_that_somebody_must_replace_are_told_of_ahead_of_time(
    keys: tuple[ClientKey, ...], uses: dict[str, float], present: list[Any], status: str | None, said: str
) -> None:
    verdict = keys_expiring(state(*keys), used(**uses), present, now=NOW, window=WINDOW)
    assert (None if verdict is None else verdict.status) == status
    assert verdict is None or (verdict.type == "KeysExpiring" and said in verdict.message)


def test_the_status_is_looked_at_again_when_a_key_comes_into_the_window() -> None:
    far = key("far", not_after=NOW + 20 * DAY)
    assert next_change(state(far), NOW, WINDOW) == NOW + 6 * DAY
    assert next_change(state(far), NOW + 7 * DAY, WINDOW) == NOW + 20 * DAY


def test_the_status_shows_each_key_and_secret_with_its_times() -> None:
    previous = key("p", source="generateKey", replaced_at=NOW - 60, not_after=NOW + 60)
    announced = key("n", source="generateKey", announced=True)
    uses = used(p=NOW - 100)
    fields = status_fields(state(previous, announced), "s", uses, uses, NOW)
    assert fields["keys"] == [
        {
            "kid": "p",
            "thumbprint": "thumb-p",
            "algorithm": "RS256",
            "size": 2048,
            "source": "generateKey",
            "addedAt": format_rfc3339(NOW - 10 * DAY),
            "lastUsedAt": format_rfc3339(NOW - 100),
            "expiresAt": format_rfc3339(NOW + 60),
        }
    ]
    assert fields["lastTokenIssuedAt"] == format_rfc3339(NOW - 100)
    secret = SecretHash("hash", NOW + 60, "origin", id="abc", added_at=NOW)
    fields = status_fields(state(secrets=(secret,)), "s", Uses(), Uses(), NOW)
    assert fields["secrets"] == [
        {
            "id": "abc",
            "source": "clientSecret",
            "addedAt": format_rfc3339(NOW),
            "expiresAt": format_rfc3339(NOW + 60),
        }
    ]
    assert "hash" not in str(fields)


def test_what_has_ended_for_good_is_not_shown_and_a_registered_key_is() -> None:
    over = {"not_after": NOW - 1}
    fields = status_fields(state(key("g", source="generateKey", **over), key("r", **over)), None, Uses(), Uses(), NOW)
    assert [one["kid"] for one in fields["keys"]] == ["r"]


def test_no_more_is_shown_than_the_schema_holds() -> None:
    fields = status_fields(state(*(key(f"k{n}") for n in range(40))), None, Uses(), Uses(), NOW)
    assert len(fields["keys"]) == MAX_KEYS


def test_a_client_whose_only_key_is_not_handed_out_yet_is_not_usable() -> None:
    verdict = usability(state(key("n", source="generateKey", announced=True)), NOW)
    assert verdict is not None
    assert verdict.reason == "NoCredential"
