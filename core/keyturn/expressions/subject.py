"""Who is asking, as far as expressions and permissions look at them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Subject:
    """The caller's effective permissions and attributes. For Keyturn's own tokens groups and user properties are empty."""

    permissions: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    client_type: str = ""
    is_backoffice: bool = False
    user_properties: Mapping[str, Any] = field(default_factory=dict)
