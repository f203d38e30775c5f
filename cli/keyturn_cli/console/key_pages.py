"""The signing keys on a time line, and what can be done with them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from ..client_view import managed_by, moment
from ..errors import Exit
from ..kube import Absent
from .change_pages import show
from .proposals import SIGNING_KEYS, propose_for_signing_key
from .timeline import WIDTH, timeline_of

if TYPE_CHECKING:
    from starlette.responses import Response

    from .app import Call

_NAME: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


def list_keys(call: Call) -> Response:
    console = call.console
    snapshot = console.keys.snapshot()
    signing_keys: list[dict[str, Any]] = []
    for name, obj in snapshot.items.items():
        may_patch = console.rights.may("patch", SIGNING_KEYS, name)
        tool = managed_by(obj)
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        signing_keys.append(
            {
                "name": name,
                "spec": spec,
                "conditions": [one for one in status.get("conditions") or () if isinstance(one, dict)],
                "next_rotation": moment(status.get("nextRotationAt")),
                "timeline": timeline_of(obj, call.now),
                "tool": tool,
                "read_only": tool is not None and not console.edit_managed,
                "proposable": may_patch or tool is not None,
            }
        )
    return call.page(
        "keys.html", signing_keys=signing_keys, snapshot=snapshot, width=WIDTH, done=call.query.get("done") == "1"
    )


def change_key(call: Call) -> Response:
    """Shows what a form of the page would change; changes nothing."""
    name = call.path["name"]
    if not _NAME.fullmatch(name):
        raise Absent("No SigningKey has this name.", "Go back to the keys.", Exit.REFUSED)
    obj = call.console.kube.get(call.console.kube.path(SIGNING_KEYS, name))
    return show(call, propose_for_signing_key(obj, call.form, call.now))
