"""What `make run` shows: a manifest becomes a token and a gateway decision, step by step, each with the command to repeat it."""

from __future__ import annotations

import base64
import dataclasses
import json
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.paths import PROJECT
from keyturn_dev.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn_dev.installation import Installation

CLIENT = "billing"
PERMISSION = "orders:read"
_CLI = Path(sys.executable).with_name("keyturn")
_RULES = PROJECT / "examples" / "access-rules.yaml"
_EXAMPLE_CLIENTS = (PROJECT / "examples" / "client.yaml", PROJECT / "examples" / "generated-credentials.yaml")
# The product's own promise: a change is effective in every replica within a second.
_PROMISE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: str


def request(url: str, headers: Mapping[str, str] | None = None) -> Answer:
    """GET a URL of ours; an answer of any status is an answer."""
    asked = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return Answer(answer.status, dict(answer.headers), answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read().decode())


class Walkthrough:
    """The steps, each of which raises `DevError` if what it shows is not so."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self._installation = installation
        self._folder = folder
        self._number = 0
        self._kubectl = f"kubectl -n {installation.namespace}"

    def show(self) -> None:
        """Go through all steps."""
        self._step(
            "A key pair for a client. The private half never leaves this folder; the public half goes into a manifest."
        )
        manifest = self._keygen()
        self._step("The manifest is applied, beside the rules of an API. This is all that a team does.")
        self._apply(manifest)
        self._step("The operator has checked it, and every API replica has it: Ready.")
        self._wait_ready()
        self._step("The client asserts who it is with its private key (RFC 7523).")
        self._show_assertion()
        self._step("It gets an access token for the assertion.")
        token = self._token()
        self._step("What the token says, and the client may still do: /tokeninfo.")
        self._token_info(token)
        self._step("The API gateway asks whether GET /orders is allowed with it.")
        self._decide("GET", token, 200)
        self._step("POST /orders needs orders:write, which this client does not have.")
        self._decide("POST", token, 403)
        self._step(
            f"{PERMISSION} is taken away from the client. The same token, still valid for minutes, must be refused."
        )
        self._take_away(token)

    def _keygen(self) -> Path:
        arguments = ["keygen", CLIENT, "--out", str(self._folder), "--namespace", self._installation.namespace]
        arguments += ["--permission", PERMISSION, "--audience", "orders", "--force"]
        self._command("keyturn", *arguments)
        self._cli(*arguments)
        manifest = self._folder / f"{CLIENT}.yaml"
        self._print(manifest.read_text(encoding="utf-8"))
        return manifest

    def _apply(self, manifest: Path) -> None:
        paths = (manifest, _RULES, *_EXAMPLE_CLIENTS)
        for path in paths:
            self._say(f"  $ {self._kubectl} apply -f {shlex.quote(str(path))}")
            self._print(self._installation.kubectl("apply", "--validate=strict", "-f", str(path)))

    def _wait_ready(self) -> None:
        self._say(f"  $ {self._kubectl} wait --for=condition=Ready --timeout=30s keyturn --all")
        self._installation.kubectl(
            "wait", "--for=condition=Ready", "--timeout=30s", "clientcredentials,signingkeys,accessrules", "--all"
        )
        self._say(f"  $ {self._kubectl} get keyturn")
        self._print(self._installation.kubectl("get", "clientcredentials,signingkeys,accessrules"))

    def _token_arguments(self) -> list[str]:
        client_id = f"{self._installation.namespace}.{CLIENT}"
        return [
            "token",
            "--url",
            self._installation.url,
            "--client-id",
            client_id,
            "--key",
            str(self._folder / f"{CLIENT}.pem"),
        ]

    def _show_assertion(self) -> None:
        arguments = [*self._token_arguments(), "--assertion-only"]
        self._command("keyturn", *arguments)
        assertion = self._cli(*arguments).strip()
        for part in assertion.split(".")[:2]:
            self._print(json.dumps(_decoded(part)))

    def _token(self) -> str:
        arguments = self._token_arguments()
        self._command("keyturn", *arguments)
        token = self._cli(*arguments).strip()
        self._print(f"{token[:60]}…")
        return token

    def _token_info(self, token: str) -> None:
        url = f"{self._installation.url}/tokeninfo"
        self._say(f"  $ curl -H 'Authorization: Bearer …' {url}")
        answer = request(url, {"Authorization": f"Bearer {token}"})
        self._expect(answer.status == 200, f"/tokeninfo answers {answer.status}: {answer.body}")
        claims = json.loads(answer.body)
        self._expect(PERMISSION in claims["permissions"], f"the token does not say {PERMISSION}")
        self._print(json.dumps(claims))

    def _ask(self, method: str, token: str) -> Answer:
        headers = {
            "Original-Request-Method": method,
            "Original-Request-Uri": "/orders",
            "Authorization": f"Bearer {token}",
        }
        return request(f"{self._installation.url}/auth", headers)

    def _decide(self, method: str, token: str, expected: int) -> None:
        self._say(
            f"  $ curl -i -H 'Original-Request-Method: {method}' -H 'Original-Request-Uri: /orders'"
            f" -H 'Authorization: Bearer …' {self._installation.url}/auth"
        )
        answer = self._ask(method, token)
        self._expect(answer.status == expected, f"expected {expected}, got {answer.status}: {answer.body}")
        allowed = answer.headers.get("mia-allowed")
        self._print(f"{answer.status}  mia-allowed: {allowed}  {answer.body}")

    def _take_away(self, token: str) -> None:
        patch = '{"spec":{"permissions":[]}}'
        self._say(f"  $ {self._kubectl} patch clientcredential {CLIENT} --type=merge -p '{patch}'")
        self._installation.kubectl("patch", "clientcredential", CLIENT, "--type=merge", "-p", patch)
        began = time.monotonic()
        wait_until(lambda: self._ask("GET", token).status == 403, "the token to be refused", seconds=10, interval=0.005)
        took = time.monotonic() - began
        self._expect(took <= _PROMISE_SECONDS, f"it took {took:.3f} s, more than a second")
        self._print(f"403, {took * 1000:.0f} ms after kubectl had returned")

    def _cli(self, *arguments: str) -> str:
        done = subprocess.run([str(_CLI), *arguments], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise DevError(f"keyturn {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout

    def _step(self, text: str) -> None:
        self._number += 1
        self._say(f"\n{self._number}. {text}")

    def _command(self, *words: str) -> None:
        self._say(f"  $ {shlex.join(words)}")

    def _print(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            self._say(f"    {line}")

    @staticmethod
    def _say(text: str) -> None:
        print(text, flush=True)

    @staticmethod
    def _expect(condition: bool, otherwise: str) -> None:
        if not condition:
            raise DevError(otherwise)


def _decoded(part: str) -> object:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
