"""AccessRule objects as the API server admits them: how much one holds, and how it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyturn.problems import Problem
from keyturn.reasons import INVALID_SPEC

from .manifest import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The CRD's bounds: they keep an object and its record small.
MAX_ROUTES: Final = 100
MAX_TEXT_BYTES: Final = 16_384
MAX_NAMES: Final = 16
MAX_PERMISSIONS: Final = 32


def access_rule(*, name: str, namespace: str | None, routes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    return {
        "apiVersion": API_VERSION,
        "kind": "AccessRule",
        "metadata": metadata,
        "spec": {"routes": [dict(route) for route in routes]},
    }


def text_bytes(route: Mapping[str, Any]) -> int:
    """What a route counts towards `MAX_TEXT_BYTES`: an expression twice, a permission with what surrounds it in JSON."""
    total = _size(route.get("path"))
    backoffice = route.get("backoffice")
    for part in (route, backoffice if isinstance(backoffice, dict) else {}):
        total += 2 * _size(part.get("expression"))
        total += sum(_size(name) + 3 for _, names in _permissions(part) for name in names)
    return total


def beyond_bounds(spec: Mapping[str, Any]) -> list[Problem]:
    """What the API server would refuse because it is too much for one object, though the rule is understood."""
    problems: list[Problem] = []

    def bound(field: str, value: Any, limit: int) -> None:
        if isinstance(value, list) and len(value) > limit:
            problems.append(Problem(INVALID_SPEC, field, f"At most {limit} elements in one object"))

    bound("spec.hosts", spec.get("hosts"), MAX_NAMES)
    bound("spec.audiences", spec.get("audiences"), MAX_NAMES)
    routes = spec.get("routes")
    if not isinstance(routes, list):
        return problems
    bound("spec.routes", routes, MAX_ROUTES)
    routes = [(index, route) for index, route in enumerate(routes) if isinstance(route, dict)]
    for index, route in routes:
        backoffice = route.get("backoffice")
        for prefix, part in (("", route), ("backoffice.", backoffice if isinstance(backoffice, dict) else {})):
            for name, permissions in _permissions(part):
                bound(f"spec.routes[{index}].{prefix}permissions.{name}", permissions, MAX_PERMISSIONS)
    if sum(text_bytes(route) for _, route in routes) > MAX_TEXT_BYTES:
        problems.append(
            Problem(
                INVALID_SPEC,
                "spec.routes",
                f"The texts of all routes together exceed {MAX_TEXT_BYTES} bytes (an expression's count twice): "
                "use several AccessRules",
            )
        )
    return problems


def _permissions(part: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    permissions = part.get("permissions")
    if not isinstance(permissions, dict):
        return []
    return [(name, permissions[name]) for name in ("anyOf", "allOf") if isinstance(permissions.get(name), list)]


def _size(text: Any) -> int:
    return len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else 0
