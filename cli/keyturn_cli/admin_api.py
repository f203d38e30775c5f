"""The API as its administrators reach it: where it is, a Kubernetes token for it, and the one question of `keyturn explain`."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from . import release
from .errors import CommandError, Exit
from .kube import Absent, Kube, Object, Refused
from .output import printable, say
from .server import AnotherIssuer, Answer, cannot_serve, discover, fetch, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx2

# The chart makes an account for each verb that the command needs.
_OURS: Final = "keyturn-"
EXPLAIN_ACCOUNT: Final = _OURS + "explain"
REVOKE_ACCOUNT: Final = _OURS + "revoke"
TOKEN_VARIABLE: Final = "KEYTURN_ADMIN_TOKEN"
EXPLAIN_PATH: Final = "/explain"
REVOKE_PATH: Final = "/oauth/revoke"
_TOKEN_SECONDS: Final = 600
# Another replica's denial is in the store a second after it.
_TRIES: Final = 4
_PAUSE: Final = 0.7


class NoAdminToken(CommandError):
    """There is no way to a Kubernetes token for the API."""


def find_url(kube: Kube) -> str | None:
    """Where callers reach the release in this namespace, as its Deployment says. None where nothing says so, or may be read.

    Private paths, /explain among them, are not there.
    """
    return next((url for one in _deployments(kube) if (url := release.public_url(one)) is not None), None)


def _deployments(kube: Kube) -> Sequence[Object]:
    try:
        return release.parts(kube.list(f"/apis/apps/v1/namespaces/{kube.namespace}/deployments"))
    except CommandError:
        return ()


def admin_token(
    kube: Kube | None, *, audience: str, account: str | None, own_token: str | None, default: str = EXPLAIN_ACCOUNT
) -> str:
    """A token for the audience: of the environment, of the kubeconfig if it is for us, else a ServiceAccount's by TokenRequest.

    `default`: the chart's account for what is to be done, where `account` names no other.

    Raises:
        NoAdminToken: none of these ways is open.
    """
    given = os.environ.get(TOKEN_VARIABLE, "").strip()
    if given:
        return given
    if own_token is not None and account is None and audience in _audiences(own_token):
        return own_token
    if kube is None:
        raise NoAdminToken(
            "There is no cluster to get a Kubernetes token from.",
            f"Name a kubeconfig, or put a token for the audience {audience} into {TOKEN_VARIABLE}.",
            Exit.USAGE,
        )
    name = account or default
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": _TOKEN_SECONDS},
    }
    try:
        made = kube.create(f"/api/v1/namespaces/{kube.namespace}/serviceaccounts/{name}/token", body)
    except (Absent, Refused) as error:
        raise NoAdminToken(
            f"No token could be had for the ServiceAccount {kube.namespace}/{name}. {error.problem}",
            f"Name one with --service-account that may `{default.removeprefix(_OURS)}` clientcredentials, and that you may create "
            "tokens for.",
            Exit.REFUSED,
        ) from None
    token = (made.get("status") or {}).get("token")
    if not isinstance(token, str) or not token:
        raise NoAdminToken("The API server gave no token.", "Check the cluster.", Exit.UNREACHABLE)
    return token


def audience_of(client: httpx2.Client, url: str, kube: Kube | None) -> str:
    """The audience of administration at this server. Raises CommandError where it is none of ours.

    Inside the cluster it is reached by other names than its issuer's: then the Deployment has to say that it is this installation's.
    """
    try:
        issuer = discover(client, url).issuer
    except AnotherIssuer as error:
        issuer = error.issuer
        if kube is None or issuer.rstrip("/") not in {release.issuer(one) for one in _deployments(kube)}:
            raise CommandError(
                error.problem,
                "Check --url, --namespace and --context; a port forwarded to its Service will do.",
                error.code,
            ) from None
    return f"{issuer.rstrip('/')}/admin"


def ask(client: httpx2.Client, url: str, token: str, question: Mapping[str, Any]) -> dict[str, Any]:
    """Asks `POST /explain`. Raises CommandError with what the server says."""
    if url.startswith("http:") and not is_loopback(url):
        say("Warning: the Kubernetes token goes over plain HTTP; whoever listens can use it there.", style="yellow")
    tries = _TRIES if "requestId" in question else 1
    for attempt in range(tries):
        answer = fetch(
            client,
            client.build_request(
                "POST",
                url + EXPLAIN_PATH,
                content=json.dumps(question).encode(),
                headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
            ),
        )
        if answer.status != 404 or not _is_problem(answer) or attempt == tries - 1:
            break
        time.sleep(_PAUSE)
    if answer.status == 200:
        return answer.json()
    raise _refusal(answer, question)


def revoke(client: httpx2.Client, url: str, token: str, victim: str) -> None:
    """Gives up an access token at `POST /oauth/revoke` (RFC 7009). Raises CommandError with what the server says."""
    answer = fetch(
        client,
        client.build_request(
            "POST",
            url + REVOKE_PATH,
            content=urlencode({"token": victim, "token_type_hint": "access_token"}).encode("ascii"),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Bearer {token}"},
        ),
    )
    if answer.status == 200:
        return
    if answer.status >= 500:
        raise cannot_serve(answer)
    members = answer.json()
    said = [members.get(name) for name in ("error", "error_description")]
    reason = ": ".join(printable(one.replace(victim, "…")) for one in said if isinstance(one, str) and one)
    next_step = {
        401: "Check that the Kubernetes token is for this installation: its audience is the issuer with /admin.",
        403: "Ask for a role with the verb `revoke` on clientcredentials in the installation's namespace.",
    }.get(answer.status, "Check --url.")
    raise CommandError(
        f"The service refused: {(reason or f'HTTP {answer.status}').rstrip('.')}.", next_step, Exit.REFUSED
    )


def _refusal(answer: Answer, question: Mapping[str, Any]) -> CommandError:
    if answer.status >= 500:
        return cannot_serve(answer)
    if answer.status == 404 and not _is_problem(answer):
        return CommandError(
            f"{answer.url} is not there (HTTP 404): an address for callers does not publish it.",
            "Forward a port to the service's own address, such as `kubectl port-forward service/keyturn-api 8080:http`, and name it with "
            "--url http://127.0.0.1:8080.",
            Exit.REFUSED,
        )
    detail = answer.json().get("detail")
    said = printable(detail) if isinstance(detail, str) and detail else f"HTTP {answer.status}"
    if isinstance(hidden := question.get("token"), str):
        said = said.replace(hidden, "…")
    next_step = {
        401: "Check that the token is for this installation: its audience is the issuer with /admin.",
        403: "Ask for a role with the verb `explain` on clientcredentials in the installation's namespace.",
        404: "Check the name, the namespace and the id; a denial is kept for an hour.",
    }.get(answer.status, "Check the command line.")
    return CommandError(f"The service refused: {said.rstrip('.')}.", next_step, Exit.REFUSED)


def _is_problem(answer: Answer) -> bool:
    """Whether it is the service that says so (RFC 9457), and not what stands before it."""
    members = answer.json()
    return members.get("status") == answer.status and isinstance(members.get("detail"), str)


def _audiences(token: str) -> list[str]:
    """What a JWT says it is for; nothing for anything else."""
    parts = token.split(".")
    if len(parts) != 3:
        return []
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return []
    stated = claims.get("aud") if isinstance(claims, dict) else None
    return [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []
