"""Changes as they are shown before they are made: what differs, what follows from it, and what has to be typed first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from keyturn.rules.syntax import is_permission

from .. import change as changes
from ..change import Change, Conflict, difference
from ..client_view import ClientView, ago, view
from ..errors import CommandError, Exit
from ..kube import Refused
from ..manifest import to_yaml
from ..signing_key import annotations_to_withdraw, kids_to_withdraw
from .guard import new_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ..kube import Kube, Object

ATTEMPTS: Final = 5
CLIENTS: Final = "clientcredentials"
SIGNING_KEYS: Final = "signingkeys"

AT_ONCE: Final = "Every API replica knows it within a second."


class NotPossible(CommandError):
    """What was asked for changes nothing, or can't be done to this object."""

    def __init__(self, problem: str, next_step: str = "") -> None:
        super().__init__(problem, next_step, Exit.REFUSED)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One edit of one object. `change` None: its deletion. `confirm`: what must be typed; empty where a button is enough.

    `objection`: why the API server would refuse it, as a dry run told.
    """

    resource: str
    title: str
    button: str
    before: Object = field(repr=False)
    change: Change | None
    consequences: tuple[str, ...]
    form: Mapping[str, tuple[str, ...]]
    confirm: str = ""
    objection: str = ""
    id: str = field(default_factory=new_secret)

    @property
    def name(self) -> str:
        return str(self.before["metadata"]["name"])

    @property
    def verb(self) -> str:
        return "delete" if self.change is None else "patch"

    @property
    def lines(self) -> list[str]:
        """The difference of the manifests; of a deletion, all of it."""
        if self.change is None:
            return [f"-{line}" for line in to_yaml(changes.manifest_of(self.before)).splitlines()]
        return self.change.difference()


def propose_for_client(
    before: Object, form: Mapping[str, Sequence[str]], now: float, *, alone: Collection[str] = ()
) -> Proposal:
    """What a form of a client's page asks for. `alone`: the permissions that no other client holds.

    Raises:
        NotPossible: it can't be done, or would change nothing.
    """
    client = view(before)
    action = (form.get("action") or ("",))[0]
    title, button, confirm = "", "", ""
    change: Change | None
    if action == "permissions":
        change, told = _permissions(before, form)
        title, button = f"Change what {client.name} may do", "Apply"
    elif action == "suspend":
        change = changes.suspend(before)
        title, button = f"Suspend {client.name}", "Suspend"
        told = [f"It gets no tokens, and those it has are refused everywhere. {AT_ONCE}", *_use(client, now)]
    elif action == "resume":
        change = changes.resume(before)
        title, button = f"Resume {client.name}", "Resume"
        told = [f"It gets tokens again, and those that are not over yet count again. {AT_ONCE}"]
    elif action == "revoke":
        change = changes.revoke_tokens(before, now)
        title, button = f"Revoke the tokens of {client.name}", "Revoke"
        told = [f"Tokens issued until now are refused. {AT_ONCE}", "It can get new ones at once.", *_use(client, now)]
    elif action == "rotate":
        change, told = _rotation(before, now)
        title, button = f"Rotate the credential of {client.name}", "Rotate"
    elif action == "delete":
        change, told = None, _deletion(before, client, now, alone)
        title, button, confirm = f"Delete {client.name}", "Delete", client.name
    else:
        raise NotPossible("This page knows no such change.")
    if change is not None and change.changes_nothing:
        raise NotPossible("That is so already: there is nothing to change.")
    return Proposal(
        CLIENTS, title, button, before, change, tuple(told), {name: tuple(form[name]) for name in form}, confirm
    )


def propose_for_signing_key(before: Object, form: Mapping[str, Sequence[str]], now: float) -> Proposal:
    """What a form of the keys' page asks for. Raises CommandError where it can't be done."""
    action = (form.get("action") or ("",))[0]
    name = str(before["metadata"]["name"])
    confirm = name
    if action == "rotate":
        change = changes.request_rotation(before, _stamp(now))
        title, button, confirm = f"Rotate {name}", "Rotate", ""
        told = [
            "The next key signs as soon as it has been published for `publishBefore` and every API replica has it; no request fails.",
            "Tokens signed by the present key count until they end.",
            "Services that verify tokens themselves must have read the JWKS since the next key was published.",
        ]
    elif action in ("compromised", "compromised-active"):
        only_active = action == "compromised-active"
        kids = kids_to_withdraw(before, only_active=only_active)
        change = Change(before, {"metadata": {"annotations": annotations_to_withdraw(before, kids)}})
        title, button = f"Withdraw keys of {name}", "Withdraw for ever"
        told = [
            f"Withdrawn for ever: {', '.join(sorted(kids))}. It can't be undone.",
            "Every token that these keys signed is refused at once; every client must get a new one.",
            "Services that verify tokens themselves accept them until they have read the JWKS anew.",
            "The next key signs at once, without a gap: it must not have been in the wrong hands, too."
            if only_active
            else "New keys are made. Until every API replica has them, nobody gets a token (503 with Retry-After).",
        ]
    elif action == "revoke":
        change = changes.revoke_tokens(before, now)
        title, button = "Revoke the tokens of all clients", "Revoke all"
        told = [
            f"Tokens of all clients issued until now are refused. {AT_ONCE}",
            "The clients can get new ones at once.",
        ]
    else:
        raise NotPossible("This page knows no such change.")
    if change.changes_nothing:
        raise NotPossible("That is so already: there is nothing to change.")
    return Proposal(
        SIGNING_KEYS, title, button, before, change, tuple(told), {key: tuple(form[key]) for key in form}, confirm
    )


def try_out(kube: Kube, proposal: Proposal) -> Proposal:
    """With what the API server objects to, if it does; nothing is changed."""
    if proposal.change is None:
        return proposal
    try:
        kube.patch(_path(kube, proposal), proposal.change.patch, dry_run=True)
    except Refused as error:
        # A newer version meanwhile is no objection: it is looked at when the change is made.
        return proposal if error.status == 409 else replace(proposal, objection=error.problem)
    return proposal


def carry_out(kube: Kube, proposal: Proposal) -> None:
    """Makes the change to the object that was shown. Where only its status moved on meanwhile, the manifest is still the one shown.

    Raises:
        Conflict: somebody edited the object meanwhile.
        CommandError: the API server refused, or can't be reached.
    """
    before = proposal.before
    for _ in range(ATTEMPTS):
        try:
            if proposal.change is None:
                _delete(kube, proposal, before)
            else:
                changes.apply(kube, replace(proposal.change, before=before))
        except Conflict as conflict:
            if conflict.difference:
                raise
            now = kube.get(_path(kube, proposal))
            if now["metadata"]["uid"] != proposal.before["metadata"]["uid"]:
                raise NotPossible(
                    f"{proposal.name} was deleted and made anew meanwhile.", "Look at the new one."
                ) from None
            before = now
        else:
            return
    raise CommandError(f"{proposal.name} changes all the time.", "Try again in a moment.", Exit.UNREACHABLE)


def _delete(kube: Kube, proposal: Proposal, before: Object) -> None:
    path = _path(kube, proposal)
    metadata = before["metadata"]
    try:
        kube.delete(path, uid=metadata["uid"], version=metadata["resourceVersion"])
    except Refused as error:
        if error.status != 409:
            raise
        raise Conflict(proposal.name, difference(before, kube.get(path))) from None


def _path(kube: Kube, proposal: Proposal) -> str:
    return kube.path(proposal.resource, proposal.name, namespace=proposal.before["metadata"]["namespace"])


def _permissions(before: Object, form: Mapping[str, Sequence[str]]) -> tuple[Change, list[str]]:
    added = {
        member: [*form.get(f"grant-{member}", ()), *" ".join(form.get(f"more-{member}", ())).split()]
        for member in ("permissions", "audiences")
    }
    taken = {member: list(form.get(f"take-{member}", ())) for member in ("permissions", "audiences")}
    for name in (*added["permissions"], *added["audiences"]):
        if not is_permission(name):
            raise NotPossible(
                "A permission or an audience is 1 to 256 visible ASCII characters without quotes, backslashes and spaces.",
                "Separate several by spaces.",
            )
    given = changes.approve(before, permissions=added["permissions"], audiences=added["audiences"])
    less = changes.withdraw(given.after, permissions=taken["permissions"], audiences=taken["audiences"])
    wanted: dict[str, Any] = {**given.wanted, **less.wanted}
    if "spec" in given.wanted or "spec" in less.wanted:
        wanted["spec"] = {**given.wanted.get("spec", {}), **less.wanted.get("spec", {})}
    told = []
    if any(added.values()):
        told.append(f"Granted: {', '.join([*added['permissions'], *added['audiences']])}. New tokens have it.")
    if any(taken.values()):
        gone = ", ".join([*taken["permissions"], *taken["audiences"]])
        told.append(f"Taken away: {gone}. It is gone from tokens already issued, too. {AT_ONCE}")
    return Change(before, wanted), told


def _rotation(before: Object, now: float) -> tuple[Change, list[str]]:
    if not rotates(before):
        raise NotPossible(
            "The operator makes no key and no secret for this client, so it can't make a new one.",
            "Add the client's new public key to its manifest instead.",
        )
    spec = before["spec"]
    part = spec.get("generateKey") or spec.get("clientSecret") or {}
    return changes.request_rotation(before, _stamp(now)), [
        f"The operator makes a new one and puts it into the Secret {part.get('secretName', '')}.",
        f"The one before stays valid for {part.get('keepPrevious') or '24h, or `rotateEvery` where that is shorter'}.",
        "Workloads must read the Secret anew within that time.",
    ]


def rotates(obj: Mapping[str, Any]) -> bool:
    """Whether the operator makes the client's key or secret."""
    spec = obj.get("spec") or {}
    secret = spec.get("clientSecret")
    return bool(spec.get("generateKey")) or (isinstance(secret, dict) and secret.get("generate", True) is True)


def _use(client: ClientView, now: float) -> list[str]:
    last = client.last_use()
    if last is None:
        return ["It has never got a token, as far as the cluster knows."]
    if now - last < 2 * 86_400:
        return [f"It is in use: the last sign of life is {ago(last, now)} old. Whatever uses it will fail."]
    return [f"Its last sign of life is {ago(last, now)} old."]


def _deletion(before: Object, client: ClientView, now: float, alone: Collection[str]) -> list[str]:
    spec = before.get("spec") or {}
    told = [f"It gets no tokens any more, and those it has are refused everywhere. {AT_ONCE}", *_use(client, now)]
    held = [name for name in client.permissions.granted if name in alone]
    if held:
        told.append(f"No other client holds {', '.join(held)}: what needs that can be called by nobody then.")
    secret = (before.get("status") or {}).get("secretName")
    if secret and rotates(before):
        stays = spec.get("deletionPolicy") == "Retain"
        told.append(f"The Secret {secret} {'stays' if stays else 'goes, too, if the operator has made it'}.")
    if client.registered:
        told.append(
            "It registered itself: its registration ends, and it gets another client id when it registers anew."
        )
    return told


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, tz=UTC).isoformat()
