"""The token service as a client sees it: its metadata (RFC 8414) and its token endpoint (RFC 6749 §4.4)."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from urllib.parse import urlencode, urlsplit

import httpx2

from keyturn import __version__

from .assertion import ASSERTION_TYPE
from .errors import CommandError, Exit
from .output import printable
from .progress import working

METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
TOKEN_PATH: Final = "/oauth/token"
TIMEOUT_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 64 * 1024
# RFC 6750 §2.1; anything else would not survive `Authorization: Bearer …`, or the terminal.
ACCESS_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")

Form = list[tuple[str, str]]


class AnotherIssuer(CommandError):
    """The server calls itself by another name than the one it was asked under."""

    def __init__(self, url: str, issuer: str) -> None:
        super().__init__(
            f"The server at {url} calls itself {printable(issuer)}.",
            f"If you trust it, add --issuer {shlex.quote(printable(issuer))}; else check --url.",
            Exit.REFUSED,
        )
        self.issuer = issuer


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where to ask for a token, and what the server calls itself."""

    issuer: str
    token_endpoint: str


def open_client() -> httpx2.Client:
    """The one place where connections come from."""
    # No redirects: an assertion goes to the server that was named, and to no other.
    return httpx2.Client(
        timeout=TIMEOUT_SECONDS, follow_redirects=False, headers={"User-Agent": f"keyturn/{__version__}"}
    )


def check_url(text: str) -> str:
    """`text` as a base URL without a slash at its end. Raises ValueError for what is none; never repeats a password."""
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, TypeError):
        raise ValueError("is not a URL; write it like https://tokens.example.org") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("must begin with https:// or http:// and name a host")
    if url.userinfo or url.query or url.fragment:
        raise ValueError("must hold no user name, query or fragment")
    return text.rstrip("/")


def is_loopback(url: str) -> bool:
    host = httpx2.URL(url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def discover(client: httpx2.Client, url: str) -> Endpoints:
    """Asks the server at `url` for its issuer and token endpoint.

    Raises:
        AnotherIssuer: the metadata is another issuer's.
        CommandError: no answer, or no metadata.
    """
    for place in metadata_urls(url):
        answer = fetch(client, client.build_request("GET", place, headers={"Accept": "application/json"}))
        metadata = answer.json()
        issuer = metadata.get("issuer") if answer.status == 200 else None
        if isinstance(issuer, str) and issuer:
            break
    else:
        if answer.status >= 500:
            raise cannot_serve(answer)
        raise CommandError(
            f"{url} gave no metadata of a token service (HTTP {answer.status} at {METADATA_PATH}).",
            "Check --url, or name the issuer with --issuer.",
            Exit.UNREACHABLE,
        )
    if issuer.rstrip("/") == url:
        endpoint = metadata.get("token_endpoint")
        return Endpoints(issuer, endpoint if is_safe_endpoint(endpoint, url) else url + TOKEN_PATH)
    # RFC 8414 §3.3: metadata under another issuer's name must not be used, or a false server could collect assertions that
    # count at the real one. A port forwarded to this machine is the exception that people need every day.
    if not is_loopback(url):
        raise AnotherIssuer(url, issuer)
    return Endpoints(issuer, url + TOKEN_PATH)


def metadata_urls(url: str) -> tuple[str, ...]:
    """Where a server's metadata may lie: RFC 8414 §3.1 puts an issuer's path behind the well-known part, many servers before it."""
    path = urlsplit(url).path
    if not path:
        return (url + METADATA_PATH,)
    return (url.removesuffix(path) + METADATA_PATH + path, url + METADATA_PATH)


def is_safe_endpoint(endpoint: object, url: str) -> TypeGuard[str]:
    """Whether metadata may send the assertion to `endpoint`: to the same server only."""
    if not isinstance(endpoint, str):
        return False
    try:
        there, here = httpx2.URL(endpoint), httpx2.URL(url)
    except httpx2.InvalidURL:
        return False
    return (there.scheme, there.host, there.port) == (here.scheme, here.host, here.port)


def token_form(*, assertion: str, audiences: list[str], scope: str | None) -> Form:
    """The fields of a token request (RFC 6749 §4.4.2, RFC 7523 §2.2); `audience` may repeat."""
    form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", assertion),
        *(("audience", audience) for audience in audiences),
    ]
    if scope is not None:
        form.append(("scope", scope))
    return form


@dataclass(frozen=True, slots=True)
class Granted:
    """An access token, and for how many seconds it holds; None where the server does not say."""

    token: str = field(repr=False)
    seconds: int | None = None


def request_token(client: httpx2.Client, endpoint: str, form: Form, *, client_id: str) -> Granted:
    """The access token that the server gives for `form`.

    Raises:
        CommandError: refused (with the server's reason), or no usable answer.
    """
    body = urlencode(form).encode("ascii")
    answer = fetch(
        client,
        client.build_request(
            "POST",
            endpoint,
            content=body,
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        ),
    )
    if answer.status >= 500:
        raise cannot_serve(answer)
    members = answer.json()
    if answer.status != 200:
        # A server, or a proxy before it, that quotes the request must not bring the assertion onto the screen.
        assertion = dict(form)["client_assertion"]
        raise refusal(answer.status, members, answer.retry_after, client_id=client_id, hidden=assertion)
    token = members.get("access_token")
    if not isinstance(token, str) or not ACCESS_TOKEN.match(token):
        raise CommandError(
            f"{endpoint} answered without an access token.",
            "Check --url: it may be no token service.",
            Exit.UNREACHABLE,
        )
    # RFC 6749 §5.1: recommended, in seconds.
    seconds = members.get("expires_in")
    return Granted(token, seconds if type(seconds) is int and seconds > 0 else None)


NEXT_STEPS: Final = {
    "invalid_client": (
        "Check with `kubectl get cc` that the client with id {client_id} is Ready and lists this key, and that the clocks agree."
    ),
    "invalid_target": "Ask only for audiences that the client's `spec.audiences` lists, or leave out --audience.",
    "invalid_scope": "Ask only for permissions that the client's `spec.permissions` lists, or leave out --scope.",
    "unauthorized_client": "Check the client's `spec.authMethod` with `kubectl get cc -o yaml`.",
}


def refusal(
    status: int, members: dict[str, Any], retry_after: str | None, *, client_id: str, hidden: str
) -> CommandError:
    """The server's no as RFC 6749 §5.2 words it, with what to do about it."""
    said = [members.get("error"), members.get("error_description")]
    parts = [printable(part.replace(hidden, "…")) for part in said if isinstance(part, str) and part]
    reason = ": ".join(parts) if parts else f"HTTP {status}"
    if status == 429:
        next_step = f"Try again in {retry_after} s." if retry_after else "Try again in a minute."
    elif parts and parts[0] in NEXT_STEPS:
        next_step = NEXT_STEPS[parts[0]].format(client_id=client_id)
    else:
        next_step = "Check --url and the client's state with `kubectl get cc`."
    return CommandError(f"The server refused: {reason.rstrip('.')}.", next_step, Exit.REFUSED)


@dataclass(frozen=True, slots=True)
class Answer:
    """A bounded copy of an HTTP answer."""

    url: str
    status: int
    retry_after: str | None
    content: bytes
    date: str | None = None

    def json(self) -> dict[str, Any]:
        """The members of a JSON object; none when the body is something else."""
        try:
            value = json.loads(self.content)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


def fetch(client: httpx2.Client, request: httpx2.Request, *, limit: int = MAX_ANSWER_BYTES) -> Answer:
    """A request's answer of at most `limit` bytes. Raises CommandError where there is none."""
    url = str(request.url)
    try:
        with working("Waiting for the service"):
            response = client.send(request, stream=True)
            try:
                content = b""
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > limit:
                        raise CommandError(
                            f"{url} answered with more than a token service would.", "Check --url.", Exit.UNREACHABLE
                        )
            finally:
                response.close()
    except httpx2.TimeoutException:
        raise CommandError(
            f"{url} gave no answer within {TIMEOUT_SECONDS:.0f} s.",
            "Check that the service runs, then try again.",
            Exit.UNREACHABLE,
        ) from None
    except httpx2.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise CommandError(
                f"{url} shows a certificate that this machine doesn't trust.",
                "Name the authority's file in SSL_CERT_FILE, or check --url.",
                Exit.UNREACHABLE,
            ) from None
        # The kind of failure only: an exception's text may hold parts of the request.
        raise CommandError(
            f"{url} can't be reached ({type(error).__name__}).",
            "Check --url and that the service runs.",
            Exit.UNREACHABLE,
        ) from None
    retry_after = response.headers.get("Retry-After")
    # RFC 9110 §10.2.3 allows a date too; only seconds make a useful sentence.
    seconds = retry_after if retry_after is not None and re.fullmatch(r"[0-9]{1,5}", retry_after) else None
    return Answer(url, response.status_code, seconds, content, response.headers.get("Date"))


def cannot_serve(answer: Answer) -> CommandError:
    return CommandError(
        f"{answer.url} can't serve now (HTTP {answer.status}).",
        f"Try again in {answer.retry_after} s." if answer.retry_after else "Try again in a moment.",
        Exit.UNREACHABLE,
    )
