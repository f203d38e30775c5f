"""A change as it is shown, offered as YAML, confirmed and made; and an edit that came in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    try:
        carry_out(console.kube, proposal)
    except Conflict as conflict:
        console.proposals.drop(proposal.id)
        now = console.kube.get(console.kube.path(proposal.resource, proposal.name))
        propose = propose_for_client if proposal.resource == CLIENTS else propose_for_signing_key
        return show(
            call,
            propose(now, proposal.form, call.now),
            status=409,
            problem=conflict.problem,
            theirs=conflict.difference,
        )
    console.proposals.drop(proposal.id)
    return call.go("/clients?done=1" if proposal.change is None else f"{_back(proposal)}?done=1")


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
