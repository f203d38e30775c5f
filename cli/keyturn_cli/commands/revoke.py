"""`keyturn revoke`: one token, a client's tokens, or those of all clients."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from .. import change
from ..admin_api import REVOKE_ACCOUNT, admin_token, audience_of, find_url
from ..admin_api import revoke as revoke_at
from ..client_view import view
from ..editing import DryRunOption, EditOutputOption, ForceOption, YesOption, edit
from ..errors import CommandError, Exit
from ..help import examples
from ..kube import ContextOption, Kube, KubeconfigOption, NamespaceOption, open_kube
from ..output import say
from ..server import check_url, is_loopback, open_client
from ..tokenfile import read_token

if TYPE_CHECKING:
    from ..listing import Output

EPILOG: Final = (
    examples(
        "keyturn revoke billing",
        "keyturn revoke --token token.txt",
        "keyturn revoke --token - --url http://127.0.0.1:8080",
        "keyturn revoke --all --signing-key keyturn",
    )
    + "\n\nExit codes: 0 done; 1 refused, changed by somebody else meanwhile, or not agreed to; 2 the command line or a file can't be "
    "used, or there is nobody to ask; 3 the cluster or the service can't be reached."
)


def check_server(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return check_url(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def revoke(
    client: Annotated[
        str | None, typer.Argument(help="The ClientCredential whose tokens are refused.", show_default=False)
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Refuse this one access token; - reads stdin.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Refuse the tokens of all clients.")] = False,
    signing_key: Annotated[str, typer.Option(help="With --all: the installation's SigningKey.")] = "keyturn",
    yes: YesOption = False,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    output: EditOutputOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    service: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="KEYTURN_URL",
            callback=check_server,
            help="With --token: the service's URL; what its Deployment says unless given.",
            show_default=False,
        ),
    ] = None,
    service_account: Annotated[
        str | None,
        typer.Option(
            help=f"With --token: the ServiceAccount whose token is shown to the service; {REVOKE_ACCOUNT} unless given.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Refuse tokens that were issued already; clients can get new ones at once.

    To keep a client from getting new ones, suspend it (`keyturn clients suspend`) or take its key out.
    """
    if sum((client is not None, token is not None, everything)) != 1:
        raise typer.BadParameter("choose one: a client, --token or --all", param_hint="what to revoke")
    if token is not None:
        revoke_token(
            read_token(token),
            url=service,
            account=service_account,
            kubeconfig=kubeconfig,
            context=context,
            namespace=namespace,
        )
        return
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        if client is not None:
            path, whose = kube.path("clientcredentials", client), "its tokens"
        else:
            path, whose = kube.path("signingkeys", signing_key), "the tokens of all clients"
        before = kube.get(path)
        if client is not None:
            whose = f"the tokens of {view(before).client_id}"
        _edit(kube, change.revoke_tokens(before, time.time()), whose, yes, force, dry_run, output)


def _edit(
    kube: Kube, made: change.Change, whose: str, yes: bool, force: bool, dry_run: bool, output: Output | None
) -> None:
    edit(
        kube,
        made,
        question=f"Refuse {whose} from before now?",
        done="Revoked: refused everywhere within a second.",
        yes=yes,
        force=force,
        dry_run=dry_run,
        output=output,
    )


def revoke_token(
    victim: str,
    *,
    url: str | None,
    account: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
) -> None:
    """Shows a Kubernetes token to the service and gives up the access token. Raises CommandError."""
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        where = url or find_url(kube)
        if where is None:
            raise CommandError(
                "Nothing in the namespace says where the service is.",
                "Name it with --url or KEYTURN_URL; a port forwarded to its Service will do.",
                Exit.USAGE,
            )
        if where.startswith("http:") and not is_loopback(where):
            say("Warning: both tokens go over plain HTTP; whoever listens can use them.", style="yellow")
        with open_client() as http:
            audience = audience_of(http, where, kube)
            shown = admin_token(
                kube, audience=audience, account=account, own_token=kube.own_token, default=REVOKE_ACCOUNT
            )
            revoke_at(http, where, shown, victim)
    # RFC 7009 section 2.2: the answer is the same where there was nothing to revoke.
    say("Revoked, if it was a token of this installation that still counted.")
