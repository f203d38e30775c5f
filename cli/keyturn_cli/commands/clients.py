"""`keyturn clients`: who the clients are, which of them wait, and stopping one."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer

from keyturn.durations import InvalidDuration, parse_duration

from .. import change
from ..client_text import (
    CONDITION_HEADINGS,
    EVENT_HEADINGS,
    GRANT_HEADINGS,
    HEADINGS,
    KEY_HEADINGS,
    condition_rows,
    event_rows,
    grant_rows,
    identity,
    key_rows,
    list_row,
    pending_row,
)
from ..client_view import DAY, Filter, ago, chosen, view
from ..editing import CODES as EDIT_CODES
from ..editing import DryRunOption, EditOutputOption, ForceOption, YesOption, edit
from ..errors import CommandError, Exit
from ..help import examples
from ..kube import Absent, ContextOption, Kube, KubeconfigOption, NamespaceOption, Object, Refused, open_kube
from ..listing import Output, OutputOption, print_objects, print_table
from ..output import printable, say

KIND: Final = "clientcredentials"
EPILOG: Final = examples(
    "keyturn clients list",
    "keyturn clients list --unused 30d -o name",
    "keyturn clients pending",
    "keyturn clients approve r-5f0c2a9e6d1b4c1e9a572f4f6c3f7b11 --as-requested",
    "keyturn clients suspend billing",
)
READ_CODES: Final = (
    "\n\nExit codes: 0 done, even where nothing is found; 1 the API server refused; 2 the command line or the kubeconfig can't be used; "
    "3 the API server can't be reached."
)
LIST: Final = examples(
    "keyturn clients list -n shop",
    "keyturn clients list -A --expiring",
    "keyturn clients list -l team=orders --unused 30d -o json",
)
PENDING: Final = examples("keyturn clients pending", "keyturn clients pending -A -o name")
SHOW: Final = examples("keyturn clients show billing", "keyturn clients show billing -o yaml")
APPROVE: Final = examples(
    "keyturn clients approve billing --permission orders:read --audience orders",
    "keyturn clients approve billing --as-requested --yes",
    "keyturn clients approve billing --as-requested --dry-run",
)
SUSPEND: Final = examples("keyturn clients suspend billing", "keyturn clients suspend billing --yes -n shop")
RESUME: Final = examples("keyturn clients resume billing", "keyturn clients resume billing --dry-run")

clients = typer.Typer(
    name="clients",
    no_args_is_help=True,
    epilog=EPILOG,
    help="See the clients, approve those that registered themselves, stop one. Everything is done with your own rights in the cluster.",
)

NameArgument = Annotated[str, typer.Argument(help="The ClientCredential.", show_default=False)]
EverywhereOption = Annotated[bool, typer.Option("--all-namespaces", "-A", help="In all namespaces.")]
SelectorOption = Annotated[
    str, typer.Option("--selector", "-l", metavar="LABELS", help="Only those with these labels.", show_default=False)
]


def read_days(value: str | None) -> str | None:
    if value is not None:
        seconds_of(value)
    return value


def seconds_of(text: str) -> float:
    """`30d`, or a duration as manifests have it. Raises typer.BadParameter."""
    days = text.removesuffix("d")
    if days != text and days.isascii() and days.isdigit() and len(days) <= 5:
        return int(days) * DAY
    try:
        return float(parse_duration(text))
    except InvalidDuration as error:
        raise typer.BadParameter(f"{error} (or days, such as 30d)") from None


@clients.command("list", epilog=LIST + READ_CODES)
def list_clients(
    text: Annotated[
        str, typer.Argument(metavar="[TEXT]", help="Only those with it in a name or the client id.", show_default=False)
    ] = "",
    selector: SelectorOption = "",
    suspended: Annotated[bool, typer.Option("--suspended", help="Only those that are suspended.")] = False,
    expiring: Annotated[bool, typer.Option("--expiring", help="Only those with a key that ends soon.")] = False,
    unused: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", callback=read_days, help="Only those not used for so long, such as 30d.", show_default=False
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
    everywhere: EverywhereOption = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """List the clients; several filters take what fits all of them."""
    wanted = Filter(
        text=text,
        suspended=suspended,
        expiring=expiring,
        unused_for=None if unused is None else seconds_of(unused),
    )
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        found = read_clients(kube, everywhere=everywhere, selector=selector)
    now = time.time()
    pairs = chosen(found, wanted, now)
    if output is not Output.TABLE:
        print_objects([obj for obj, _ in pairs], output)
    elif pairs:
        prefix = ("NAMESPACE",) if everywhere else ()
        rows = [((one.namespace,) if everywhere else ()) + list_row(one, now) for _, one in pairs]
        print_table((*prefix, *HEADINGS), rows)
    else:
        say("There is no such client.")


@clients.command(epilog=PENDING + READ_CODES)
def pending(
    selector: SelectorOption = "",
    output: OutputOption = Output.TABLE,
    everywhere: EverywhereOption = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """List those that registered themselves and wait for approval, with what they ask for."""
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        found = read_clients(kube, everywhere=everywhere, selector=selector)
    now = time.time()
    pairs = chosen(found, Filter(pending=True), now)
    if output is not Output.TABLE:
        print_objects([obj for obj, _ in pairs], output)
    elif pairs:
        prefix = ("NAMESPACE",) if everywhere else ()
        rows = [((one.namespace,) if everywhere else ()) + pending_row(one, now) for _, one in pairs]
        print_table((*prefix, "NAME", "CALLED", "ASKS FOR", "WAITS"), rows)
        say("`keyturn clients approve NAME --as-requested` grants what one asks for.")
    else:
        say("Nobody waits for approval.")


@clients.command(epilog=SHOW + READ_CODES)
def show(
    name: NameArgument,
    output: OutputOption = Output.TABLE,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show one client: who it is, its keys, what it may do beside what it asked for, and what happened to it."""
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        obj = kube.get(kube.path(KIND, name))
        if output is not Output.TABLE:
            print_objects([obj], output, single=True)
            return
        events = read_events(kube, obj)
    now, client = time.time(), view(obj)
    pairs = identity(client, now)
    width = max(len(label) for label, _ in pairs) + 1
    for label, value in pairs:
        typer.echo(f"{(label + ':').ljust(width)}  {printable(value)}")
    tables = (
        (KEY_HEADINGS, key_rows(client, now)),
        (GRANT_HEADINGS, [*grant_rows("permission", client.permissions), *grant_rows("audience", client.audiences)]),
        (CONDITION_HEADINGS, condition_rows(client.conditions, now)),
        (EVENT_HEADINGS, None if events is None else event_rows(events, now)),
    )
    for headings, rows in tables:
        if rows:
            typer.echo("")
            print_table(headings, rows)
    if events is None:
        say("Its events can't be read with your rights.")


@clients.command(epilog=APPROVE + EDIT_CODES)
def approve(
    name: NameArgument,
    permission: Annotated[
        list[str] | None, typer.Option(help="Grant this permission; may repeat.", show_default=False)
    ] = None,
    audience: Annotated[
        list[str] | None, typer.Option(help="Grant this audience; may repeat.", show_default=False)
    ] = None,
    as_requested: Annotated[
        bool, typer.Option("--as-requested", help="Grant what the client asked for when it was registered.")
    ] = False,
    yes: YesOption = False,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    output: EditOutputOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Grant a client permissions and audiences, besides those that it has.

    Shows the difference of the manifests and asks. An edit that somebody else makes meanwhile is shown, never overwritten.
    """
    if not (permission or audience or as_requested):
        raise typer.BadParameter(
            "say what it may have: --permission, --audience or --as-requested", param_hint="the grants"
        )
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        before = kube.get(kube.path(KIND, name))
        client = view(before)
        permissions, audiences = list(permission or ()), list(audience or ())
        if as_requested:
            if not (client.permissions.asked or client.audiences.asked):
                raise CommandError(
                    f"{printable(name)} asked for nothing.", "Say what it may have with --permission.", Exit.USAGE
                )
            permissions += client.permissions.asked
            audiences += client.audiences.asked
        edit(
            kube,
            change.approve(before, permissions=permissions, audiences=audiences),
            question=f"Grant this to {client.client_id}?",
            done=f"Granted. {client.client_id} can use it within a second.",
            yes=yes,
            force=force,
            dry_run=dry_run,
            output=output,
        )


@clients.command(epilog=SUSPEND + EDIT_CODES)
def suspend(
    name: NameArgument,
    yes: YesOption = False,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    output: EditOutputOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Stop a client at once: it gets no tokens, and those it has are refused everywhere."""
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        before = kube.get(kube.path(KIND, name))
        client = view(before)
        if (used := client.last_use()) is not None:
            say(f"It was last seen at work {ago(used, time.time())} ago.")
        edit(
            kube,
            change.suspend(before),
            question=f"Stop {client.client_id} now?",
            done=f"Suspended. `keyturn clients resume {printable(name)}` lets it go on.",
            yes=yes,
            force=force,
            dry_run=dry_run,
            output=output,
        )


@clients.command(epilog=RESUME + EDIT_CODES)
def resume(
    name: NameArgument,
    yes: YesOption = False,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    output: EditOutputOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Let a suspended client go on. Its tokens from before count again, as long as they last."""
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        before = kube.get(kube.path(KIND, name))
        edit(
            kube,
            change.resume(before),
            question=f"Let {view(before).client_id} go on?",
            done="Resumed.",
            yes=yes,
            force=force,
            dry_run=dry_run,
            output=output,
        )


def read_clients(kube: Kube, *, everywhere: bool, selector: str) -> list[Object]:
    """The ClientCredentials of the namespace, or of all."""
    return kube.list(kube.everywhere(KIND) if everywhere else kube.path(KIND), selector=selector)


def read_events(kube: Kube, obj: Object) -> list[Object] | None:
    """The Events about an object; None where they may not be read."""
    metadata = obj["metadata"]
    try:
        path = f"/api/v1/namespaces/{metadata['namespace']}/events"
        return kube.list(path, fields=f"involvedObject.uid={metadata['uid']}")
    except (Refused, Absent):
        return None
