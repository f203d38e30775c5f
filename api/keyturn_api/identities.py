"""From what another service says of somebody to a caller: what counts is picked out, bounded, and made fit for headers."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from keyturn.expressions import Subject
from keyturn.rules.syntax import is_permission
from keyturn_api.answers import Caller

MAX_NAMES: Final = 1000
MAX_NAME: Final = 256
MAX_PROPERTIES_BYTES: Final = 8192
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class NoUser(ValueError):
    """It names nobody, or not in a way that a header could carry."""


def make_caller(
    *,
    user_id: object,
    groups: object = None,
    permissions: object = None,
    user_properties: object = None,
    audiences: tuple[str, ...] = (),
) -> Caller:
    """Raises NoUser. Groups and permissions are lists of texts (permissions also one text, as `scope` is); what is not is nothing.

    Headers hold UTF-8. A group with a comma counts in expressions, but cannot stand in the header's list.
    """
    if (
        not isinstance(user_id, str)
        or not user_id
        or len(user_id) > MAX_NAME
        or _CONTROL.search(user_id)
        or user_id != user_id.strip()
    ):
        raise NoUser("no user id that could be used")
    of_groups = [name for name in _names(groups) if not _CONTROL.search(name)]
    of_permissions = permissions.split(" ") if isinstance(permissions, str) else _names(permissions)
    properties = user_properties if isinstance(user_properties, Mapping) else {}
    header = json.dumps(properties, separators=(",", ":")).encode("ascii") if properties else b""
    if len(header) > MAX_PROPERTIES_BYTES:
        raise NoUser("too many user properties")
    return Caller(
        Subject(
            permissions=frozenset(name for name in of_permissions[:MAX_NAMES] if is_permission(name)),
            groups=frozenset(of_groups),
            user_properties=properties,
        ),
        audiences,
        user_id=user_id.encode(),
        groups=",".join(name for name in of_groups if "," not in name and name == name.strip()).encode(),
        user_properties=header,
    )


def _names(value: Any) -> list[str]:
    if not isinstance(value, list):
        return []
    return [name for name in value[:MAX_NAMES] if isinstance(name, str) and 0 < len(name) <= MAX_NAME]
