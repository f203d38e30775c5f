"""A change as it is shown, offered as YAML, confirmed and made; and an edit that came in between."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.responses import PlainTextResponse

from ..change import Conflict
from ..client_view import managed_by
from .proposals import (
    CLIENTS,
    NotPossible,
    Proposal,
    carry_out,
    propose_for_client,
    propose_for_signing_key,
    try_out,
)

if TYPE_CHECKING:
    from starlette.responses import Response

    from .app import Call


def show(
    call: Call, proposal: Proposal, *, status: int = 200, problem: str = "", theirs: list[str] | None = None
) -> Response:
    """The page of a change. `theirs`: what somebody else changed meanwhile, as lines of a difference."""
    console = call.console
    allowed = console.rights.may(proposal.verb, proposal.resource, proposal.name)
    tool = managed_by(proposal.before)
    read_only = tool is not None and not console.edit_managed
    if allowed and not read_only:
        proposal = try_out(console.kube, proposal)
    console.proposals.keep(proposal, call.now)
    return call.page(
        "change.html",
        status=status,
        proposal=proposal,
        allowed=allowed,
        tool=tool,
        read_only=read_only,
        problem=problem,
        theirs=theirs or [],
        back=_back(proposal),
    )


def apply_change(call: Call) -> Response:
    """Makes the change that was shown, to the object that was shown."""
    console = call.console
    proposal = console.proposals.get(call.path["id"], call.now)
    if managed_by(proposal.before) is not None and not console.edit_managed:
        raise NotPossible(
            f"{proposal.name} is managed by {managed_by(proposal.before)}.",
            "Change its source, or start with --edit-managed.",
        )
    if proposal.confirm and call.field("confirm").strip() != proposal.confirm:
        return show(call, proposal, status=409, problem=f"Type {proposal.confirm} to go on. Nothing was changed.")
    with console.proposals.making(proposal.id, call.now) as shown:
        if not shown.made:
            try:
                carry_out(console.kube, proposal)
            except Conflict as conflict:
                return _show_anew(call, proposal, conflict)
            shown.made = True
    if proposal.change is None:
        return call.go(f"/clients?{urlencode({'deleted': proposal.name})}")
    return call.go(f"{_back(proposal)}?done=1")


def _show_anew(call: Call, proposal: Proposal, conflict: Conflict) -> Response:
    """What was asked for, for the object as it is now."""
    kube = call.console.kube
    now = kube.get(kube.path(proposal.resource, proposal.name))
    if proposal.resource == CLIENTS:
        anew = propose_for_client(now, proposal.form, call.now, alone=call.console.held_alone(now))
    else:
        anew = propose_for_signing_key(now, proposal.form, call.now)
    return show(call, anew, status=409, problem=conflict.problem, theirs=conflict.difference)


def download(call: Call) -> Response:
    """The manifest as it would be, for whoever keeps it in Git."""
    proposal = call.console.proposals.get(call.path["id"], call.now)
    if proposal.change is None:
        raise NotPossible("A deletion has no manifest.", "Remove the file from Git.")
    name = f'attachment; filename="{proposal.name}.yaml"'
    return PlainTextResponse(
        proposal.change.to_yaml(), media_type="application/yaml", headers={"Content-Disposition": name}
    )


def _back(proposal: Proposal) -> str:
    return f"/clients/{proposal.name}" if proposal.resource == CLIENTS else "/keys"
