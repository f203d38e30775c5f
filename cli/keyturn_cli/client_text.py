"""A client as lines for people: what `keyturn clients show` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyturn.timestamps import format_rfc3339

from .client_view import ClientView, Comparison, ago, moment, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HEADINGS = ("NAME", "CLIENT ID", "METHOD", "STATE", "PERMISSIONS", "EXPIRES", "LAST USED", "AGE")
KEY_HEADINGS = ("KEY", "ALGORITHM", "SOURCE", "AGE", "EXPIRES", "LAST USED", "HINT")
GRANT_HEADINGS = ("", "GRANTED", "ASKED FOR")
CONDITION_HEADINGS = ("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE")
EVENT_HEADINGS = ("LAST SEEN", "TYPE", "REASON", "MESSAGE")


def list_row(client: ClientView, now: float) -> tuple[str, ...]:
    """A line of the list, in the order of HEADINGS."""
    return (
        client.name,
        client.client_id,
        client.auth_method,
        client.state(now),
        str(len(client.permissions.granted)),
        until(client.next_expiry(), now),
        ago(client.last_use(), now),
        ago(client.created_at, now),
    )


def pending_row(client: ClientView, now: float) -> tuple[str, ...]:
    """Who waits, since when, and for what."""
    asked = [*client.permissions.asked, *(f"audience {one}" for one in client.audiences.asked)]
    return client.name, client.client_name or "-", ", ".join(asked) or "nothing named", ago(client.created_at, now)


def identity(client: ClientView, now: float) -> list[tuple[str, str]]:
    """What the client is, as names and values; what it does not have is left out."""
    pairs = [
        ("Name", f"{client.namespace}/{client.name}"),
        ("Client id", client.client_id),
        ("Called", client.client_name),
        ("For", client.description),
        ("Contacts", ", ".join(client.contacts)),
        ("Method", client.auth_method),
        ("State", client.state(now)),
        ("Made", _when(client.created_at, now)),
        ("Registered itself", "yes" if client.registered else ""),
        ("Ends", "" if client.expires_at is None else _date(client.expires_at, until(client.expires_at, now))),
        (
            "Tokens before",
            "" if client.revoked_before is None else f"{format_rfc3339(client.revoked_before)} are refused",
        ),
        ("Last token", _when(client.last_token_at, now)),
        ("Managed by", client.managed_by or ""),
    ]
    return [(name, value) for name, value in pairs if value]


def key_rows(client: ClientView, now: float) -> list[tuple[str, ...]]:
    """Keys and secrets in force, in the order of KEY_HEADINGS."""
    return [
        (
            one.name,
            " ".join(part for part in (one.algorithm, str(one.size or "")) if part) or one.kind,
            one.source or "-",
            ago(one.added_at, now) if one.added_at is not None else "-",
            until(one.expires_at, now),
            ago(one.last_used_at, now),
            one.hint or "-",
        )
        for one in client.credentials
    ]


def grant_rows(what: str, compared: Comparison) -> list[tuple[str, ...]]:
    """Each permission or audience with whether it is granted and whether it was asked for."""
    every = [*compared.granted, *compared.missing]
    return [
        (f"{what} {one}", "yes" if one in compared.granted else "no", "yes" if one in compared.asked else "no")
        for one in every
    ]


def condition_rows(conditions: Iterable[Mapping[str, Any]], now: float) -> list[tuple[str, ...]]:
    return [
        (
            str(one.get("type", "")),
            str(one.get("status", "")),
            str(one.get("reason", "")),
            ago(moment(one.get("lastTransitionTime")), now),
            str(one.get("message", "")),
        )
        for one in conditions
    ]


def event_rows(events: Sequence[Mapping[str, Any]], now: float) -> list[tuple[str, ...]]:
    """The latest last."""

    def at(event: Mapping[str, Any]) -> float:
        known = (moment(event.get(name)) for name in ("lastTimestamp", "eventTime", "firstTimestamp"))
        return next((one for one in known if one is not None), 0.0)

    return [
        (ago(at(one), now), str(one.get("type", "")), str(one.get("reason", "")), str(one.get("message", "")))
        for one in sorted(events, key=at)
    ]


def _when(at: float | None, now: float) -> str:
    return "never" if at is None else _date(at, f"{ago(at, now)} ago")


def _date(at: float, said: str) -> str:
    return f"{format_rfc3339(at)} ({said})"
