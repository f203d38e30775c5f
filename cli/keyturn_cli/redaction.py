"""Objects without what may be secret in them: data of Secrets, copies of whole objects, values of variables, options and annotations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from .kube import GROUP
from .listing import without_field_managers

if TYPE_CHECKING:
    from .kube import Object

LEFT_OUT: Final = "(left out)"
# Annotations that repeat a whole object, data and all.
_WHOLE: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
_OURS: Final = "KEYTURN_"
# Of our own settings these may be secret; the others are described, and help.
_OUR_SECRETS: Final = re.compile(r"PASS|SECRET|TOKEN|CREDENTIAL|PRIVATE", re.IGNORECASE)
# What others call their variables, options and annotations. Not our own name.
_NAMES: Final = (
    r"(?:KEY(?!TURN)|PASS|PWD|SECRET|TOKEN|CREDENTIAL|CRED\b|PRIVATE|AUTH|DSN|COOKIE|SESSION|SALT|SIGNATURE)"
)
_SECRET_NAME: Final = re.compile(_NAMES, re.IGNORECASE)
# From a word's beginning and bounded, so that a long text costs no more than its length.
_ASSIGNED: Final = re.compile(
    rf"((?<![\w.-])[\w.-]{{0,128}}?{_NAMES}[\w.-]{{0,128}}[\"']?(?:\s*=\s*|:\s+|:(?=[\"'])))[^\s=]\S*", re.IGNORECASE
)
_PASSWORD_IN_URL: Final = re.compile(r"(://[^\s/:@]*:)[^\s/@]+@")
# Of variables that are not ours only these are shown: there is no telling what the others hold.
_HARMLESS: Final = frozenset(
    ("HOME", "LANG", "LC_ALL", "NO_PROXY", "PATH", "PGDATA", "POSTGRES_DB", "POSTGRES_USER", "SSL_CERT_FILE", "TZ")
)
_PLAIN_VALUE: Final = re.compile(r"/.*|[0-9]{1,6}(?:\.[0-9]+)?[smhd]?|true|false", re.IGNORECASE)


def without_secrets(obj: Object) -> dict[str, Any]:
    """The object as it may leave the machine."""
    kept = without_field_managers(obj)
    for member in ("data", "stringData"):
        kept.pop(member, None)
    cleaned: dict[str, Any] = _cleaned(kept, "")
    return cleaned


def _cleaned(value: Any, field: str) -> Any:
    """`field`: the name of the member in which it stands."""
    if isinstance(value, dict):
        if field == "annotations":
            return {name: _annotation(name, one) for name, one in value.items() if name not in _WHOLE}
        if isinstance(value.get("name"), str) and isinstance(value.get("value"), str):
            shown = _variable if field == "env" else _assigned
            return {**value, "value": shown(value["name"], value["value"])}
        return {name: _cleaned(one, name) for name, one in value.items()}
    if isinstance(value, list):
        if field in ("args", "command"):
            return _arguments(value)
        return [_cleaned(one, field) for one in value]
    return value


def _variable(name: str, value: str) -> str:
    """What of a container's variable is shown."""
    if name.startswith(_OURS):
        hidden = "PASS" in name or (_OUR_SECRETS.search(name) and not _PLAIN_VALUE.fullmatch(value))
        return LEFT_OUT if hidden else _without_passwords(value)
    return _without_passwords(value) if name in _HARMLESS else LEFT_OUT


def _assigned(name: str, value: str) -> str:
    return LEFT_OUT if _SECRET_NAME.search(name) else _text(value)


def _annotation(name: str, value: Any) -> Any:
    """Ours ask the operator for something; what others keep in theirs is theirs."""
    if name.startswith(f"{GROUP}/") or not isinstance(value, str):
        return value
    return _assigned(name.rpartition("/")[2], value)


def _arguments(words: list[Any]) -> list[Any]:
    """A command line: an option whose name says so loses its value, which may be the next word."""
    shown: list[Any] = []
    hidden = False
    for word in words:
        if not isinstance(word, str):
            shown.append(word)
            continue
        shown.append(LEFT_OUT if hidden and not word.startswith("-") else _text(word))
        hidden = word.startswith("-") and not re.search(r"[=\s]", word) and _SECRET_NAME.search(word) is not None
    return shown


def _text(value: str) -> str:
    """Without passwords in URLs, and without what is assigned to something that is called a secret."""
    return _ASSIGNED.sub(rf"\1{LEFT_OUT}", _without_passwords(value))


def _without_passwords(value: str) -> str:
    return _PASSWORD_IN_URL.sub(rf"\1{LEFT_OUT}@", value)
