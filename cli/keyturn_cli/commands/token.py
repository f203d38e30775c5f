"""`keyturn token`: an access token for a client, or the assertion that asks for it."""

from __future__ import annotations

import os
import time
from typing import Annotated, Final

import typer

from keyturn.clients.client_id import is_client_id

from ..assertion import LIFETIME_SECONDS, make_assertion
from ..curl import curl_command
from ..help import examples
from ..keyfile import read_private_key
from ..output import say
from ..server import TOKEN_PATH, Endpoints, check_url, discover, is_loopback, open_client, request_token, token_form
from ..token_cache import MARGIN_SECONDS, Kept, TokenCache, cache_folder

EPILOG: Final = examples(
    "keyturn token --url https://tokens.example.org --client-id team-a.billing --key billing.pem",
    "keyturn token --url http://127.0.0.1:8080 --client-id team-a.billing --key billing.pem --scope orders:read --curl",
    "keyturn token --url https://tokens.example.org --client-id team-a.billing --key billing.pem --cache",
    "keyturn token --issuer https://tokens.example.org --client-id team-a.billing --key billing.pem --assertion-only",
) + (
    "\n\nExit codes: 0 done; 1 the server refused; 2 the command line or the key can't be used; "
    "3 the server can't be reached or can't serve now."
)


def check_client_id(value: str) -> str:
    if not is_client_id(value):
        raise typer.BadParameter("is not a client id: letters, digits and . _ ~ - only, at most 200")
    return value


def check_server(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return check_url(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def token(
    client_id: Annotated[
        str,
        typer.Option(
            callback=check_client_id,
            help="The client's id; by default NAMESPACE.NAME of its object.",
            show_default=False,
        ),
    ],
    key: Annotated[
        str,
        typer.Option(
            "--key", "-k", metavar="FILE", help="The client's private key in PEM; - reads stdin.", show_default=False
        ),
    ],
    url: Annotated[
        str | None,
        typer.Option(envvar="KEYTURN_URL", callback=check_server, help="The token service's URL.", show_default=False),
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option(help="The server's issuer; read from its metadata unless given.", show_default=False),
    ] = None,
    kid: Annotated[
        str | None, typer.Option(help="The key's id; its RFC 7638 thumbprint unless given.", show_default=False)
    ] = None,
    audience: Annotated[
        list[str] | None, typer.Option(help="Ask for this audience only; may repeat.", show_default=False)
    ] = None,
    scope: Annotated[
        str | None, typer.Option(help="Ask for these permissions only, separated by spaces.", show_default=False)
    ] = None,
    assertion_only: Annotated[
        bool, typer.Option("--assertion-only", help="Print the client assertion and ask for no token.")
    ] = False,
    curl: Annotated[
        bool, typer.Option("--curl", help="Print the request as a curl command and do not send it.")
    ] = False,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache",
            help="Keep the token in your cache folder, readable by you alone, and print the same one as long as it holds for "
            f"{MARGIN_SECONDS} seconds more.",
        ),
    ] = False,
    renew: Annotated[
        bool, typer.Option("--renew", help="With --cache: get a new one all the same, such as after a revocation.")
    ] = False,
) -> None:
    """Get an access token with a client's private key; stdout holds the token and nothing else.

    Signs a client assertion (RFC 7523) that counts once, within 60 seconds, and sends it to the token service.
    """
    if assertion_only and curl:
        raise typer.BadParameter("can't go with --curl: choose one", param_hint="'--assertion-only'")
    if url is None and not (assertion_only and issuer):
        raise typer.BadParameter("is needed (or KEYTURN_URL)", param_hint="'--url'")
    if cache and (assertion_only or curl):
        raise typer.BadParameter("needs a token that is asked for", param_hint="'--cache'")
    if renew and not cache:
        raise typer.BadParameter("goes with --cache only", param_hint="'--renew'")
    signer = read_private_key(key, kid=kid)
    kept = TokenCache(cache_folder(os.environ))
    # Everything that the token depends on: another key, server or scope is another token.
    asked = (url, issuer, client_id, signer.kid, signer.public.thumbprint, sorted(set(audience or ())), scope)
    if cache and not renew and (found := kept.find(asked, time.time())) is not None:
        typer.echo(found)
        return
    with open_client() as client:
        endpoints = Endpoints(issuer, f"{url}{TOKEN_PATH}") if issuer else discover(client, url or "")
        assertion = make_assertion(signer, client_id=client_id, issuer=endpoints.issuer, now=time.time())
        if assertion_only:
            typer.echo(assertion)
            return
        form = token_form(assertion=assertion, audiences=audience or [], scope=scope)
        if curl:
            typer.echo(curl_command(endpoints.token_endpoint, form))
            say(f"The assertion in it counts once, within {LIFETIME_SECONDS} s.")
            return
        if endpoints.token_endpoint.startswith("http:") and not is_loopback(endpoints.token_endpoint):
            say("Warning: the token comes over plain HTTP; whoever listens can use it.", style="yellow")
        # The lifetime counts from before the request: rather too short than too long.
        now = time.time()
        granted = request_token(client, endpoints.token_endpoint, form, client_id=client_id)
        typer.echo(granted.token)
        if (
            cache
            and granted.seconds is not None
            and not kept.keep(asked, Kept(granted.token, now + granted.seconds), now)
        ):
            say("Warning: the token could not be kept; check XDG_CACHE_HOME.", style="yellow")
