"""What each part of an installation must be allowed by RBAC, as one asks the API server about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .kube import GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping


class Right(NamedTuple):
    """`group` "" is the core group; `resource` may name a subresource after a slash; `name` is that of the one object, or "" for all."""

    group: str
    resource: str
    verb: str
    name: str = ""

    def __str__(self) -> str:
        return (
            f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}{f'/{self.name}' if self.name else ''}"
        )


def _of(group: str, resources: tuple[str, ...], verbs: tuple[str, ...]) -> tuple[Right, ...]:
    return tuple(Right(group, resource, verb) for resource in resources for verb in verbs)


LEASE: Final = "keyturn-operator"
_OURS: Final = ("clientcredentials", "signingkeys", "accessrules")

# The same as the chart gives; a test holds them together.
NEEDED: Final[dict[str, tuple[Right, ...]]] = {
    "operator": (
        *_of(GROUP, _OURS, ("get", "list", "watch")),
        *_of(GROUP, tuple(f"{one}/status" for one in _OURS), ("patch",)),
        *_of("", ("secrets",), ("get", "list", "watch", "create", "patch", "delete")),
        *_of("", ("serviceaccounts",), ("get", "list", "watch")),
        *_of("", ("events",), ("create",)),
        *_of("events.k8s.io", ("events",), ("create",)),
        *_of("coordination.k8s.io", ("leases",), ("create",)),
        Right("coordination.k8s.io", "leases", "get", LEASE),
        Right("coordination.k8s.io", "leases", "update", LEASE),
    ),
    "api": (
        *_of(GROUP, ("clientcredentials",), ("create", "patch", "delete")),
        *_of("", ("secrets",), ("create",)),
        *_of("authentication.k8s.io", ("tokenreviews",), ("create",)),
        *_of("authorization.k8s.io", ("subjectaccessreviews",), ("create",)),
    ),
}
_REVIEWS: Final = ("authentication.k8s.io", "authorization.k8s.io")
# The API answers the whole internet: with these it would be worth breaking into.
FORBIDDEN: Final[dict[str, tuple[Right, ...]]] = {
    "api": (*_of("", ("secrets",), ("get", "list", "watch")), *_of(GROUP, ("signingkeys",), ("patch",))),
}


def needed(part: str, settings: Mapping[str, str]) -> tuple[Right, ...]:
    """What a part needs with these settings of the API: the chart gives it no more than what is switched on takes."""
    if part != "api":
        return NEEDED.get(part, ())
    administration = settings.get("KEYTURN_ADMINISTRATION", "true").lower() not in ("false", "0", "no", "off", "f", "n")
    return tuple(right for right in NEEDED[part] if administration or right.group not in _REVIEWS)


def review(account: str, namespace: str, right: Right) -> dict[str, object]:
    """The SubjectAccessReview that asks whether this ServiceAccount has the right in its namespace."""
    resource, _, subresource = right.resource.partition("/")
    attributes = {"namespace": namespace, "group": right.group, "resource": resource, "verb": right.verb}
    attributes |= {"name": right.name} if right.name else {}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{account}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
            "resourceAttributes": attributes | ({"subresource": subresource} if subresource else {}),
        },
    }
