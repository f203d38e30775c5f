"""Looks for secrets in what is about to leave the machine. Pure; what it finds is named, never repeated."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Lines have no end: whatever may begin anywhere is bounded, so that a long one costs no more than its length.
# In JSON, YAML and log lines alike: quotes may be there, escaped, or absent.
_Q: Final = r"""\\{0,8}["']?"""
# What others call theirs, whatever stands before it.
_OTHERS: Final = r"(?:password|passwd|passphrase|api[_-]?key|access[_-]?key|secret[_-]?key|auth[_-]?token)"
# Not a word that says that there is none, nor a file's name, nor a reference to another variable.
_VALUE: Final = r"(?!null\b|none\b|true\b|false\b|[/$])[^\s\"'\\,{}\[\]]{6,}"
PATTERNS: Final[Mapping[str, re.Pattern[str]]] = {
    "a private key in PEM": re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY"),
    # RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1: members that only private and symmetric keys have.
    "a private JWK": re.compile(rf"\b(?:d|dp|dq|qi|p|q|k)\b{_Q}\s*:\s*{_Q}[A-Za-z0-9_-]{{20,}}"),
    # RFC 7515 section 7.1: three parts, the first of which is a JSON object.
    "a token": re.compile(r"\bey[A-Za-z0-9_-]{8,2048}\.ey[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    "an Authorization header": re.compile(
        r"\b(?:Bearer|Basic)\s+(?!realm|error)[A-Za-z0-9._~+/-]{12,}={0,2}", re.IGNORECASE
    ),
    "the hash of a secret": re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}|\$keyturn-sha256\$[A-Za-z0-9_-]+\$"),
    "a URL with a password": re.compile(r"\b[a-z][a-z0-9+.-]{0,32}://[^\s/:@\"']*:[^\s/@\"']+@", re.IGNORECASE),
    "a secret's value": re.compile(
        rf"(?:client_secret|registration_access_token|client_assertion|{_OTHERS})\b{_Q}\s*[:=]\s*{_Q}{_VALUE}",
        re.IGNORECASE,
    ),
    # What well-known services begin their keys with.
    "a key of another service": re.compile(
        r"\b(?:[sr]k_(?:live|test)_[A-Za-z0-9]{10,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
        r"|xox[abeprs]-[A-Za-z0-9-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{16}\b|AIza[A-Za-z0-9_-]{30,})"
    ),
}
# A container's variable has its name on one line and its value on the next.
_VARIABLE: Final = re.compile(rf"\bname\s*:\s*{_Q}[A-Za-z0-9_.-]{{0,64}}(?:{_OTHERS}|secret|_token)\b", re.IGNORECASE)
_NEXT_VALUE: Final = re.compile(rf"^\s*value\s*:\s*{_Q}{_VALUE}", re.IGNORECASE)
# In base64 the same text has three forms, by where it begins.
_ENCODED_PEM: Final = "LS0tLS1CRUdJTi"
_MIN_VALUE: Final = 6


@dataclass(frozen=True, slots=True)
class Found:
    """A kind of secret, and where."""

    file: str
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} in {self.file}, line {self.line}"


def scan(files: Mapping[str, str], values: Iterable[bytes] = ()) -> list[Found]:
    """What looks like a secret, and each of these known `values` (as they are, and in base64), with the place of it."""
    known = {form for value in values if len(value) >= _MIN_VALUE for form in _forms(value)}
    found = []
    for name, content in files.items():
        before = ""
        for number, line in enumerate(content.splitlines(), start=1):
            kinds = [kind for kind, pattern in PATTERNS.items() if pattern.search(line)]
            if _encoded_key(line):
                kinds.append("a private key in base64")
            if any(form in line for form in known):
                kinds.append("a Secret's value")
            if _NEXT_VALUE.search(line) and _VARIABLE.search(before):
                kinds.append("a secret's value")
            before = line
            found += [Found(name, number, kind) for kind in kinds]
    return found


def works() -> bool:
    """Whether the scan finds what is planted for it: it is asked before it is trusted."""
    # Put together here, so that no file of ours holds what looks like a key.
    planted = {
        "pem": "x -----BEGIN " + "PRIVATE KEY-----",
        "jwk": '{"kty": "EC", "d": "' + "A" * 43 + '"}',
        "token": "got " + ".".join(("ey" + "A" * 20, "ey" + "B" * 20, "C" * 20)),
        "value": "x " + base64.b64encode(b"planted value").decode(),
    }
    return {one.file for one in scan(planted, [b"planted value"])} == set(planted)


def _forms(value: bytes) -> Iterable[str]:
    text = value.decode("utf-8", "replace").strip()
    # A PEM has lines; the longest says enough.
    yield max(text.splitlines(), key=len, default="") if "\n" in text else text
    yield base64.b64encode(value).decode("ascii")


def _encoded_key(line: str) -> bool:
    for start in re.finditer(_ENCODED_PEM, line):
        text = re.match(r"[A-Za-z0-9+/]*", line[start.start() : start.start() + 80])
        if text is not None and b"PRIVATE" in base64.b64decode(text[0][: len(text[0]) // 4 * 4]):
            return True
    return False
