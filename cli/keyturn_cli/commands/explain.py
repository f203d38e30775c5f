"""`keyturn explain`: why a request would be allowed or denied, or why one was denied."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyturn.jose.strict_json import InvalidJson, parse_object

from ..admin_api import EXPLAIN_ACCOUNT, admin_token, ask, audience_of
from ..cluster_rules import account_from_cluster
from ..errors import CommandError
from ..explanation import denial_lines, lines_of
from ..help import examples
from ..kube import ContextOption, Kube, KubeconfigOption, NamespaceOption, open_kube
from ..output import printable, say
from ..question import NoRequest, Question, parse_request
from ..rule_files import load_rules
from ..server import check_url, open_client
from ..service_access import not_named
from ..tokenfile import read_token

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG: Final = (
    examples(
        "keyturn explain GET https://shop.example/orders/7 --client billing",
        "keyturn explain GET https://shop.example/orders/7 --token token.txt",
        "keyturn explain --request-id 4f1c2a9be03d77aa",
        "keyturn explain GET https://shop.example/orders/7 --rules rules/ --permission orders:read",
        "keyturn explain GET '/info%2f..%2fprivate' --rules rules/ --anonymous -o json",
    )
    + "\n\nExit codes: 0 explained, whatever the decision; 1 refused, or not known; 2 the command line or a file can't be used; "
    "3 the cluster or the service can't be reached."
)


class Format(StrEnum):
    """How an explanation is written to stdout."""

    TEXT = "text"
    JSON = "json"


def check_server(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return check_url(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def read_properties(given: Sequence[str]) -> dict[str, Any]:
    """The properties of `--user-property`: `plan=gold`, `seats=3`, `staff=true`, `plan="3"`."""
    properties: dict[str, Any] = {}
    for one in given:
        name, separator, value = one.partition("=")
        if not name or not separator:
            raise typer.BadParameter("is NAME=VALUE", param_hint="'--user-property'")
        try:
            read = parse_object(b'{"":%b}' % value.encode("utf-8", "replace"))
        except InvalidJson:
            read = {}
        properties[name] = read[""] if set(read) == {""} else value
    return properties


def explain(
    method: Annotated[str | None, typer.Argument(help="The request's method.", show_default=False)] = None,
    url: Annotated[
        str | None, typer.Argument(help="Its URL, or its path where the host is not known.", show_default=False)
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(help="The caller: a ClientCredential's name, or a client id.", show_default=False),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The caller by an access token in a file; - reads stdin.", show_default=False
        ),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Explain the denial with this id instead.", show_default=False)
    ] = None,
    rules: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Decide by AccessRule manifests in files or folders, without a cluster; may repeat.",
            show_default=False,
        ),
    ] = None,
    permission: Annotated[
        list[str] | None, typer.Option(help="A permission of the caller; may repeat.", show_default=False)
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A group of the caller; may repeat.", show_default=False)
    ] = None,
    audience: Annotated[
        list[str] | None, typer.Option(help="An audience of the caller's token; may repeat.", show_default=False)
    ] = None,
    user_property: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A property of the caller, as JSON or else as text; may repeat.",
            show_default=False,
        ),
    ] = None,
    client_type: Annotated[str, typer.Option(help="What the gateway says in Client-Type.", show_default=False)] = "",
    backoffice: Annotated[bool, typer.Option("--backoffice", help="The gateway says isbackoffice: 1.")] = False,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="The request has no token.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    service: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="KEYTURN_URL",
            callback=check_server,
            help="The service's URL inside the cluster, such as a port forwarded to its Service.",
            show_default=False,
        ),
    ] = None,
    service_account: Annotated[
        str | None,
        typer.Option(
            help=f"The ServiceAccount whose token is shown to the service; {EXPLAIN_ACCOUNT} unless given.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to write the explanation.")] = Format.TEXT,
) -> None:
    """Tell which rules decide a request, and what each part of them comes to for a caller.

    Shows every reading of the path, the rule and route that decide each, their conditions part by part, the permission that is missing
    and the clients that have it. Asks the running service at --url; without that, decides by the objects in the cluster. It decides by the
    same code as the gateway's check.
    """
    described = bool(permission or group or audience or user_property)
    if sum((client is not None, token is not None, anonymous, described)) > 1:
        raise typer.BadParameter(
            "choose one of --client, --token, --anonymous, and permissions, groups, audiences and properties",
            param_hint="the caller",
        )
    if request_id is not None:
        if method is not None or rules or client or token or anonymous or described:
            raise typer.BadParameter("stands alone", param_hint="'--request-id'")
        show_denial(
            _Service(kubeconfig, context, namespace, service, service_account).ask({"requestId": request_id}), output
        )
        return
    if method is None or url is None:
        raise typer.BadParameter("are needed, or --request-id", param_hint="METHOD URL")
    try:
        asked = parse_request(method, url)
    except NoRequest as error:
        raise typer.BadParameter(str(error), param_hint="METHOD URL") from None
    question = Question(
        *asked,
        permissions=frozenset(permission or ()),
        groups=frozenset(group or ()),
        audiences=tuple(audience or ()),
        client_type=client_type,
        backoffice=backoffice,
        anonymous=anonymous,
        user_properties=read_properties(user_property or ()),
    )
    if rules:
        if client or token:
            raise typer.BadParameter("asks for permissions, not for --client or --token", param_hint="'--rules'")
        loaded = load_rules(rules, namespace=namespace or "default")
        if loaded.invalid:
            say("Some rules are invalid and closed here; `keyturn test` tells which.", style="yellow")
        show(question.explain(loaded.table).to_body(), output)
        return
    wanted: dict[str, Any] = {"method": method, "url": url, "backoffice": backoffice, "clientType": client_type}
    if token is not None:
        wanted["token"] = read_token(token)
    elif client is not None:
        wanted["client"] = client
    elif anonymous:
        wanted["anonymous"] = True
    else:
        wanted |= {
            "permissions": permission or [],
            "groups": group or [],
            "audiences": audience or [],
            "userProperties": dict(question.user_properties),
        }
    show(_Service(kubeconfig, context, namespace, service, service_account).explain(wanted, question), output)


class _Service:
    """The running service, found by what the command line and the cluster say of it."""

    def __init__(
        self, kubeconfig: str | None, context: str | None, namespace: str | None, url: str | None, account: str | None
    ) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._namespace = namespace
        self._url = url
        self._account = account

    def ask(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if self._url is None:
            with self._open() as kube:
                raise not_named(kube)
        try:
            opened = self._open()
        except CommandError:
            return self._ask(None, self._url, wanted)
        with opened as kube:
            return self._ask(kube, self._url, wanted)

    def explain(self, wanted: dict[str, Any], question: Question) -> dict[str, Any]:
        """From the service; or from the objects in the cluster, where it was not named."""
        if self._url is not None or "token" in wanted:
            return self.ask(wanted)
        with self._open() as kube:
            missing = not_named(kube)
            say(f"The service was not asked. {missing.problem} {missing.next_step}")
            account, notes = account_from_cluster(kube, question, wanted.get("client"))
        say("Decided by the objects in the cluster.")
        for note in notes:
            say(printable(note), style="yellow")
        return account

    def _open(self) -> Kube:
        return open_kube(kubeconfig=self._kubeconfig, context=self._context, namespace=self._namespace)

    def _ask(self, kube: Kube | None, url: str, wanted: dict[str, Any]) -> dict[str, Any]:
        own = None if kube is None else kube.own_token
        if kube is not None and "client" in wanted:
            wanted = {**wanted, "namespace": kube.namespace}
        with open_client() as client:
            audience = audience_of(client, url, kube)
            shown = admin_token(kube, audience=audience, account=self._account, own_token=own)
            return ask(client, url, shown, wanted)


def show(body: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        typer.echo(json.dumps(body, ensure_ascii=False, indent=2))
        return
    for line in lines_of(body):
        typer.echo(line)


def show_denial(body: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        typer.echo(json.dumps(body, ensure_ascii=False, indent=2))
        return
    for line in denial_lines(body):
        typer.echo(line)
