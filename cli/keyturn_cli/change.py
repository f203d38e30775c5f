"""An edit of an object: shown as a difference of manifests, applied only to the version that was looked at."""

from __future__ import annotations

import copy
import difflib
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from keyturn.clients.registration import APPROVAL_LABEL, GRANTED
from keyturn.timestamps import format_rfc3339

from .errors import CommandError, Exit
from .kube import Refused
from .manifest import API_VERSION, to_yaml
from .signing_key import ROTATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .kube import Kube, Object

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_KINDS: Final = {
    "ClientCredential": "clientcredentials",
    "SigningKey": "signingkeys",
    "AccessRule": "accessrules",
}


class Conflict(CommandError):
    """Somebody edited the object since it was read. `difference`: what they changed, as lines."""

    def __init__(self, name: str, difference: list[str]) -> None:
        super().__init__(
            f"{name} was changed by somebody else meanwhile; nothing was overwritten.",
            "Look at their change, then give the command again.",
            Exit.REFUSED,
        )
        self.difference = difference


@dataclass(frozen=True, slots=True)
class Change:
    """What one edit does. `before`: the object as it was read. `wanted`: a merge patch (RFC 7386) of it, without a resourceVersion."""

    before: Object
    wanted: Object

    @property
    def after(self) -> Object:
        """The object as it is to be."""
        after: Object = merged(self.before, self.wanted)
        return after

    @property
    def changes_nothing(self) -> bool:
        return manifest_of(self.before) == manifest_of(self.after)

    @property
    def patch(self) -> Object:
        """The merge patch that the API server refuses (409) for any other version of the object than the one that was read."""
        metadata = {
            **self.wanted.get("metadata", {}),
            "resourceVersion": self.before["metadata"]["resourceVersion"],
            "uid": self.before["metadata"]["uid"],
        }
        return {**self.wanted, "metadata": metadata}

    def difference(self) -> list[str]:
        """A unified difference of the two manifests, without its file names; empty when nothing changes."""
        return difference(self.before, self.after)

    def to_yaml(self) -> str:
        """The manifest to commit by whoever keeps manifests in Git."""
        return to_yaml(manifest_of(self.after))


def approve(before: Object, *, permissions: Iterable[str], audiences: Iterable[str]) -> Change:
    """Grants these besides what is granted already, and takes the client off the list of those that wait."""
    spec: Object = {}
    for member, added in (("permissions", permissions), ("audiences", audiences)):
        present = list(before["spec"].get(member) or ())
        every = list(dict.fromkeys([*present, *added]))
        if every != present:
            spec[member] = every
    wanted: Object = {"spec": spec} if spec else {}
    # Any other value than ours is a person's own and stays.
    if (before["metadata"].get("labels") or {}).get(APPROVAL_LABEL) == "pending" and (spec or _grants(before)):
        wanted["metadata"] = {"labels": {APPROVAL_LABEL: GRANTED}}
    return Change(before, wanted)


def withdraw(before: Object, *, permissions: Iterable[str] = (), audiences: Iterable[str] = ()) -> Change:
    """Takes these away; from tokens already issued, too. Those that are not there are passed over."""
    spec: Object = {}
    for member, taken in (("permissions", frozenset(permissions)), ("audiences", frozenset(audiences))):
        present = list(before["spec"].get(member) or ())
        kept = [one for one in present if one not in taken]
        if kept != present:
            spec[member] = kept
    return Change(before, {"spec": spec} if spec else {})


def suspend(before: Object) -> Change:
    """Stops the client and its tokens."""
    return Change(before, {"spec": {"suspended": True}})


def resume(before: Object) -> Change:
    """Ends a suspension. The member goes, as in a manifest that never had it."""
    return Change(before, {"spec": {"suspended": None}})


def revoke_tokens(before: Object, now: float) -> Change:
    """Refuses the tokens issued before `now` (epoch seconds), of a client or, on a SigningKey, of the whole installation.

    Times have whole seconds: of the second that runs, no token stays.
    """
    return Change(before, {"spec": {"revokeTokensIssuedBefore": format_rfc3339(now + 1)}})


def request_rotation(before: Object, value: str) -> Change:
    """Asks the operator for one rotation; any new value does."""
    return Change(before, {"metadata": {"annotations": {ROTATE: value}}})


def apply(kube: Kube, change: Change) -> Object:
    """Applies the change and returns the object as it is then.

    Raises:
        Conflict: the object is not the one that was read any more.
        CommandError: the API server refused, or can't be reached.
    """
    metadata = change.before["metadata"]
    path = kube.path(_KINDS[change.before["kind"]], metadata["name"], namespace=metadata["namespace"])
    try:
        return kube.patch(path, change.patch)
    except Refused as error:
        if error.status != 409:
            raise
    raise Conflict(metadata["name"], difference(change.before, kube.get(path)))


def manifest_of(obj: Mapping[str, Any]) -> Object:
    """What a person would keep of an object: no status, and of the metadata what people write."""
    metadata = obj.get("metadata") or {}
    kept: Object = {name: metadata[name] for name in ("name", "namespace") if metadata.get(name)}
    if labels := metadata.get("labels"):
        kept["labels"] = dict(labels)
    annotations = {name: value for name, value in (metadata.get("annotations") or {}).items() if name != _LAST_APPLIED}
    if annotations:
        kept["annotations"] = annotations
    return {
        "apiVersion": obj.get("apiVersion") or API_VERSION,
        "kind": obj.get("kind", ""),
        "metadata": kept,
        "spec": copy.deepcopy(dict(obj.get("spec") or {})),
    }


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between the manifests of two versions, as lines of YAML that begin with ` `, `+`, `-` or `@@`."""
    old, new = (to_yaml(manifest_of(one)).splitlines() for one in (before, after))
    lines = list(difflib.unified_diff(old, new, lineterm="", n=3))[2:]
    return [_visible(line) for line in lines]


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _grants(obj: Mapping[str, Any]) -> bool:
    return any(obj["spec"].get(member) for member in ("permissions", "audiences"))


def _visible(line: str) -> str:
    """Without what a terminal or a page would act upon, such as a reversal of the writing direction."""
    return "".join(
        f"\\u{ord(character):04x}" if unicodedata.category(character)[0] == "C" else character for character in line
    )
