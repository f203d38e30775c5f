"""The Kubernetes API as commands use it: a few calls under the caller's own kubeconfig, each bounded, with failures in words."""

from __future__ import annotations

import contextlib
import json
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import httpx2
import typer

from .connection import TIMEOUT_SECONDS, Connection
from .errors import CommandError, Exit
from .kubeconfig import find_access
from .output import printable
from .progress import working
from .server import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

GROUP: Final = "keyturn.dev"
VERSION: Final = "v1alpha1"
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
PAGE: Final = 500
MAX_PAGES: Final = 1000

JSON: Final = "application/json"

Object = dict[str, Any]

# The options of every command that talks to a cluster.
KubeconfigOption = Annotated[
    str | None,
    typer.Option("--kubeconfig", metavar="FILE", help="The kubeconfig; KUBECONFIG unless given.", show_default=False),
]
ContextOption = Annotated[
    str | None,
    typer.Option("--context", help="The kubeconfig's context; the current one unless given.", show_default=False),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="The namespace; the context's unless given.", show_default=False),
]


WATCH_IDLE_SECONDS: Final = 90.0
MAX_EVENT_BYTES: Final = 4 * 1024 * 1024


class Gone(CommandError):
    """410: what happened since the version that was named is not known any more; list anew."""


class Absent(CommandError):
    """404: the object, or its kind, is not there."""


class Refused(CommandError):
    """The API server said no. `status` is HTTP's."""

    def __init__(self, problem: str, next_step: str, status: int) -> None:
        super().__init__(problem, next_step, Exit.REFUSED)
        self.status = status


class Kube:
    """One API server, one namespace to begin with. Every method raises CommandError in words that a person can act on."""

    def __init__(self, client: httpx2.Client | Connection, *, namespace: str, tls_name: str | None = None) -> None:
        self._client = client
        self._extensions = {"sni_hostname": tls_name} if tls_name else {}
        self.namespace = namespace

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def own_token(self) -> str | None:
        """The token by which the API server knows the caller now; None where it is another proof."""
        return self._client.token if isinstance(self._client, Connection) else None

    def path(self, plural: str, name: str = "", *, namespace: str | None = None) -> str:
        """The path of a collection of ours, or of an object in it."""
        base = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace or self.namespace}/{plural}"
        return f"{base}/{name}" if name else base

    def everywhere(self, plural: str) -> str:
        """The path of a collection of ours in all namespaces."""
        return f"/apis/{GROUP}/{VERSION}/{plural}"

    def get(self, path: str) -> Object:
        """Raises Absent when there is nothing."""
        return self._call("GET", path)

    def list(self, path: str, *, selector: str = "", fields: str = "", accept: str = JSON) -> list[Object]:
        """All objects of a collection, or those that the label and field selectors take, each with its kind."""
        with working("Reading from the cluster"):
            return [
                one for page, _ in self.pages(path, selector=selector, fields=fields, accept=accept) for one in page
            ]

    def pages(
        self, path: str, *, selector: str = "", fields: str = "", accept: str = JSON
    ) -> Iterator[tuple[Sequence[Object], str]]:
        """The same a page at a time, each with the collection's version, after which a watch goes on."""
        token = ""
        fixed = {"limit": str(PAGE), "labelSelector": selector, "fieldSelector": fields}
        for _ in range(MAX_PAGES):
            query = {name: value for name, value in {**fixed, "continue": token}.items() if value}
            page = self._call("GET", path, query=query, accept=accept)
            items, metadata = page.get("items"), page.get("metadata") or {}
            # The API server leaves out of a list's elements what the list says itself.
            typed = {"apiVersion": page.get("apiVersion"), "kind": str(page.get("kind", "")).removesuffix("List")}
            typed = {name: value for name, value in typed.items() if value}
            found = [{**typed, **one} for one in items if isinstance(one, dict)] if isinstance(items, list) else []
            yield found, str(metadata.get("resourceVersion") or "")
            token = str(metadata.get("continue") or "")
            if not token:
                return
        raise CommandError("The API server's list does not end.", "Try again.", Exit.UNREACHABLE)

    def watch(self, path: str, version: str, *, seconds: int) -> Iterator[tuple[str, Object]]:
        """What happens to a collection after `version`, until `seconds` are over: each event's type, and its object.

        Raises:
            Gone: `version` is too old.
            CommandError: the API server refused, or the connection broke.
        """
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        try:
            request = self._client.build_request(
                "GET",
                path,
                params={**query, "timeoutSeconds": str(seconds)},
                headers={"Accept": JSON},
                extensions=self._extensions,
                timeout=httpx2.Timeout(TIMEOUT_SECONDS, read=min(WATCH_IDLE_SECONDS, seconds + TIMEOUT_SECONDS)),
            )
            answer = self._client.send(request, stream=True)
            with contextlib.closing(answer):
                if answer.status_code >= 300:
                    raise _refusal(path, answer.status_code, None)
                for line in _lines(answer):
                    yield _event(path, line)
        except httpx2.HTTPError as error:
            raise _unreachable(error) from None

    def text(self, path: str, query: Mapping[str, str] | None = None, *, limit: int = MAX_ANSWER_BYTES) -> str:
        """What is no JSON, such as metrics: at most the first `limit` bytes of it."""
        _, read = self._send("GET", path, query=query, accept="*/*", limit=limit, cut=True)
        return read.decode("utf-8", "replace")

    def end_of(self, path: str, query: Mapping[str, str], *, limit: int) -> tuple[str, bool]:
        """The last `limit` bytes of a text, such as a pod's log, and whether there was more before them."""
        _, read = self._send("GET", path, query=query, accept="*/*", limit=MAX_ANSWER_BYTES, cut=True)
        return read[-limit:].decode("utf-8", "replace"), len(read) > limit

    def ask(self, path: str, headers: Mapping[str, str], *, limit: int) -> Answer:
        """GETs what answers behind the API server: whatever the status, the caller judges it."""
        status, given, read = self._exchange("GET", path, accept=JSON, headers=headers, limit=limit)
        return Answer(path, status, given.get("Retry-After"), read, given.get("Date"))

    def clock(self) -> float | None:
        """The API server's time in epoch seconds, in whole seconds; None where it does not say."""
        headers, _ = self._send("GET", "/version", accept=JSON)
        return http_time(headers.get("Date"))

    def patch(self, path: str, change: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Merge-patches (RFC 7386) an object; with a `metadata.resourceVersion`, only as long as it is that one.

        With `dry_run` the API server only says whether it would.
        """
        query = {"dryRun": "All"} if dry_run else None
        return self._call("PATCH", path, query=query, body=change, content="application/merge-patch+json")

    def delete(self, path: str, *, uid: str, version: str) -> None:
        """Deletes an object as long as it is the one that was read. Refused with status 409 for any other."""
        self._call("DELETE", path, body={"preconditions": {"uid": uid, "resourceVersion": version}})

    def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """POSTs an object, or a review."""
        return self._call("POST", path, body=body)

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = JSON,
        accept: str = JSON,
    ) -> Object:
        _, read = self._send(method, path, query=query, body=body, content=content, accept=accept)
        told = _parsed(read)
        if not isinstance(told, dict):
            raise CommandError("The API server's answer is no JSON object.", "Check the kubeconfig.", Exit.UNREACHABLE)
        return told

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = JSON,
        accept: str,
        limit: int = MAX_ANSWER_BYTES,
        cut: bool = False,
    ) -> tuple[Mapping[str, str], bytes]:
        """An answer's headers and body. One that is longer than `limit` is an error, or `cut` there."""
        status, headers, read = self._exchange(
            method, path, query=query, body=body, content=content, accept=accept, limit=limit, cut=cut
        )
        if status >= 300:
            raise _refusal(path, status, _parsed(read))
        return headers, read

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = JSON,
        accept: str,
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_ANSWER_BYTES,
        cut: bool = False,
    ) -> tuple[int, Mapping[str, str], bytes]:
        written = {"fieldManager": "keyturn"} if method in ("POST", "PATCH") else {}
        own = {"Accept": accept} | ({} if body is None else {"Content-Type": content})
        try:
            request = self._client.build_request(
                method,
                path,
                params={**written, **(query or {})},
                content=None if body is None else json.dumps(body).encode(),
                headers={**(headers or {}), **own},
                extensions=self._extensions,
            )
            with working("Waiting for the API server"):
                answer = self._client.send(request, stream=True)
                with contextlib.closing(answer):
                    read = b""
                    for chunk in answer.iter_bytes():
                        read += chunk
                        if len(read) > limit:
                            if cut:
                                break
                            raise CommandError("The API server's answer is too long.", "Try again.", Exit.UNREACHABLE)
        except httpx2.HTTPError as error:
            raise _unreachable(error) from None
        return answer.status_code, answer.headers, read[:limit]


def open_kube(*, kubeconfig: str | None = None, context: str | None = None, namespace: str | None = None) -> Kube:
    """The cluster that the caller means, and `namespace` or else the context's. Use it in a `with`.

    Raises:
        CommandError: there is no usable kubeconfig.
    """
    access = find_access(kubeconfig=kubeconfig, context=context)
    # The context by its name: whoever makes another one the current one meanwhile means other commands than this one.
    chosen = access.context or context
    connection = Connection(access, lambda: find_access(kubeconfig=kubeconfig, context=chosen))
    return Kube(connection, namespace=namespace or access.namespace, tls_name=access.tls_name)


def _lines(answer: httpx2.Response) -> Iterator[bytes]:
    rest = b""
    for chunk in answer.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)
        if len(rest) > MAX_EVENT_BYTES:
            raise CommandError("The API server's event is too long.", "Try again.", Exit.UNREACHABLE)


def _event(path: str, line: bytes) -> tuple[str, Object]:
    told = _parsed(line)
    obj = told.get("object") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(obj, dict):
        raise CommandError("The API server's event is no JSON object.", "Try again.", Exit.UNREACHABLE)
    if told.get("type") != "ERROR":
        return str(told.get("type")), obj
    code = obj.get("code")
    raise _refusal(path, code if isinstance(code, int) else 500, obj)


def _parsed(read: bytes) -> object:
    try:
        return json.loads(read)
    except (ValueError, RecursionError):
        return None


def http_time(text: str | None) -> float | None:
    """Epoch seconds of a Date header (RFC 9110 section 5.6.7); None for anything else."""
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


def _unreachable(error: httpx2.HTTPError) -> CommandError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        problem = "The API server shows a certificate that the kubeconfig doesn't vouch for."
    elif isinstance(error, httpx2.TimeoutException):
        problem = f"The API server gave no answer within {TIMEOUT_SECONDS:.0f} s."
    else:
        # The kind of failure only: an exception's text may hold parts of the request.
        problem = f"The API server can't be reached ({type(error).__name__})."
    return CommandError(problem, "Check the kubeconfig's context and that the cluster runs.", Exit.UNREACHABLE)


def _refusal(path: str, status: int, told: object) -> CommandError:
    said = told.get("message") if isinstance(told, dict) else None
    text = printable(said).rstrip(".") if isinstance(said, str) and said else f"HTTP {status}"
    if status == 401:
        return Refused("The API server does not know who asks (HTTP 401).", "Log in to the cluster anew.", status)
    if status == 403:
        return Refused(f"The API server refused: {text}.", "Ask for a role that allows it.", status)
    if status == 404:
        plural, _, name = path.rpartition("/")
        return Absent(
            f"{name} is not there ({plural.rpartition('/')[2]}).",
            "Check the name, --namespace and --context.",
            Exit.REFUSED,
        )
    if status == 410:
        return Gone("The API server has forgotten the version.", "List anew.", Exit.UNREACHABLE)
    if status == 429 or status >= 500:
        return CommandError(
            f"The API server can't serve now (HTTP {status}).", "Try again in a moment.", Exit.UNREACHABLE
        )
    return Refused(f"The API server refused: {text}.", "", status)
