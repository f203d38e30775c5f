"""Every secret that a run of the tests makes is remembered here, and so is everything that the programs wrote meanwhile.

What is sent to a service to prove somebody, what a service hands out, and each private key: planted values. Logs, store dumps and the
cluster's objects: leavings. At the end of a process's tests no planted value may stand in any of them.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus

# A window of a value is looked for: enough to be no accident, and little to search for. What is shorter than the least is no secret.
WINDOW = 24
LEAST = 12
# Members of requests, answers and Secrets that hold a secret whatever it looks like.
SECRET_MEMBERS = frozenset(
    {
        *("client_secret", "client_assertion", "access_token", "token", "registration_access_token", "assertion"),
        *("d", "p", "q", "dp", "dq", "qi", "k", "password", "passphrase"),
    }
)
# Members of Secrets that are no secret.
PUBLIC_MEMBERS = frozenset(
    {"client_id", "key_id", "issuer", "token_endpoint", "keyring.json", "ca.crt", "namespace", "jwks"}
)
# Such a Secret holds hashes, which the store has too.
HASHES_ONLY = "keyturn.dev/registration"
_PRIVATE_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)
_JWT = re.compile(r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{24,}")


@dataclass(frozen=True)
class Found:
    """A planted value where none may stand. The value itself is not told."""

    name: str
    place: str


@dataclass
class Planted:
    """What was planted, by its windows; what was left behind, as files."""

    folder: Path
    windows: dict[bytes, str] = field(default_factory=dict)
    logs: set[Path] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)
    kept: int = 0

    def value(self, name: str, value: str | bytes) -> None:
        """Plants a value, as it is and as it is written in JSON and in URLs."""
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        # A hash stands in the store by design, also where a test has tried it as a secret.
        if len(text) < LEAST or unquote_plus(text).startswith(("$2", "$keyturn-")):
            return
        if _PRIVATE_PEM.search(text):
            self.pem(name, text)
        elif _JWT.fullmatch(text):
            # The signature makes a token of what may be told of its claims.
            self._window(name, text.rpartition(".")[2][:WINDOW])
        else:
            for form in {text, json.dumps(text)[1:-1], quote(text), quote_plus(text)}:
                self._window(name, form[-WINDOW:])
            self._window(f"{name} in base64", base64.b64encode(text.encode()).decode().rstrip("=")[-WINDOW:])

    def pem(self, name: str, text: str) -> None:
        """Plants the private part of PEM blocks. Their beginning is the same for all keys, then the modulus follows, which is public."""
        for body in _PRIVATE_PEM.findall(text):
            lines = [line for line in body.split() if len(line) >= WINDOW]
            if len(lines) == 1:
                # Ed25519: 16 bytes that are always the same, then the key.
                self._window(name, lines[0][24 : 24 + WINDOW])
            elif len(lines) <= 4:
                # An elliptic key: the private number, then the public point.
                self._window(name, lines[1][:WINDOW])
            else:
                for line in lines[len(lines) // 2 :]:
                    self._window(name, line[:WINDOW])

    def members(self, name: str, value: Any) -> None:
        """Plants what stands under a name of a secret in an answer, a request or a JWK, at any depth."""
        if isinstance(value, Mapping):
            for member, inner in value.items():
                if member in SECRET_MEMBERS and isinstance(inner, str):
                    self.value(f"{name}: {member}", inner)
                else:
                    self.members(name, inner)
        elif isinstance(value, list):
            for inner in value:
                self.members(name, inner)

    def authorization(self, value: str) -> None:
        """Plants what a request's Authorization header proves somebody by."""
        scheme, _, credentials = value.partition(" ")
        if scheme.lower() == "bearer" and len(credentials) >= WINDOW:
            self.value("a bearer token", credentials.strip())
        elif scheme.lower() == "basic":
            try:
                pair = base64.b64decode(credentials, validate=True).decode()
            except ValueError:
                return
            sent = pair.partition(":")[2]
            # A test that tries a stored hash, or the name of a client, in place of its secret finds it where it has it from.
            if not unquote_plus(sent).startswith("$"):
                self.value("a secret in Basic", sent)
            if len(pair.partition(":")[2]) >= LEAST:
                self._window("a Basic header", credentials.rstrip("=")[-WINDOW:])

    def exchange(self, headers: Mapping[str, str], body: bytes, answer: bytes, answer_type: str) -> None:
        """Plants what a request and its answer hold."""
        for name, value in headers.items():
            if name.lower() == "authorization":
                self.authorization(value)
        if body[:1] in (b"{", b"["):
            self._json("a request", body)
        else:
            for name, value in parse_qsl(body.decode("utf-8", "replace")[:100_000]):
                if name in SECRET_MEMBERS:
                    self.value(f"a request: {name}", value)
        if "json" in answer_type:
            self._json("an answer", answer)

    def secret(self, given: Mapping[str, Any]) -> None:
        """Plants what a Kubernetes Secret holds."""
        if given.get("type") == HASHES_ONLY:
            return
        name = f"Secret {given['metadata']['name']}"
        for member, encoded in (given.get("data") or {}).items():
            if member not in PUBLIC_MEMBERS:
                value = base64.b64decode(encoded)
                if value[:1] == b"{":
                    self._json(f"{name}: {member}", value)
                else:
                    self.value(f"{name}: {member}", value)

    def watch(self, log: Path) -> None:
        """A log that will be looked through at the end."""
        self.logs.add(log)

    def keep(self, name: str, text: str | bytes) -> None:
        """Keeps what would be gone by the end of the run."""
        self.kept += 1
        content = text.encode("utf-8", "replace") if isinstance(text, str) else text
        (self.folder / f"{self.kept:04}-{re.sub(r'[^a-z0-9.-]+', '-', name.lower())}").write_bytes(content)

    def leavings(self) -> list[Path]:
        return sorted([*self.folder.iterdir(), *(log for log in self.logs if log.is_file())])

    def found(self, places: Iterable[Path] | None = None) -> list[Found]:
        """Every place with a planted value, by the names of both. One pass for all values: grep builds one automaton of them."""
        looked = list(self.leavings() if places is None else places)
        if not looked or not self.windows:
            return []
        with tempfile.NamedTemporaryFile(dir=self.folder.parent, suffix=".planted") as patterns:
            patterns.write(b"\n".join(self.windows) + b"\n")
            patterns.flush()
            command = ["grep", "--text", "--only-matching", "--with-filename", "--null", "--fixed-strings"]
            done = subprocess.run(
                [*command, f"--file={patterns.name}", "--", *map(str, looked)],
                env={**os.environ, "LC_ALL": "C"},
                capture_output=True,
                timeout=100,
                check=False,
            )
        assert done.returncode in (0, 1), done.stderr.decode("utf-8", "replace")[:2000]
        hits = {tuple(line.split(b"\0", 1)) for line in done.stdout.splitlines()}
        return sorted(
            (Found(self.windows[value], Path(os.fsdecode(place)).name) for place, value in hits),
            key=lambda one: (one.place, one.name),
        )

    def _window(self, name: str, window: str) -> None:
        encoded = window.encode("utf-8", "replace")
        if len(encoded) >= LEAST and b"\n" not in encoded:
            self.windows.setdefault(encoded, name)

    def _json(self, name: str, body: bytes) -> None:
        try:
            self.members(name, json.loads(body))
        except (ValueError, RecursionError):
            return


PLANTED = Planted(Path(tempfile.mkdtemp(prefix="keyturn-leavings-")))
"""Of this run."""
