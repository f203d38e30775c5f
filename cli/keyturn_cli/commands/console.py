"""`keyturn console`: clients, rules and keys on a page of the person's own machine."""

from __future__ import annotations

import importlib.util
import socket
import time
import webbrowser
from typing import Annotated, Final

import typer

from ..errors import CommandError, Exit
from ..help import examples
from ..kube import ContextOption, KubeconfigOption, NamespaceOption, open_kube
from ..output import say
from ..server import check_url, open_client

EPILOG: Final = (
    examples(
        "keyturn console",
        "keyturn console --namespace shop --context production --no-browser --port 8123",
        "keyturn console --edit-managed --metrics http://127.0.0.1:9090/metrics",
    )
    + "\n\nExit codes: 0 ended by Ctrl-C; 2 the command line or the kubeconfig can't be used, or the port is taken."
)
LOOPBACK: Final = "127.0.0.1"
BACKLOG: Final = 128


def check_urls(values: list[str] | None) -> list[str]:
    try:
        return [check_url(value) for value in values or ()]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def check_one(value: str | None) -> str | None:
    return None if value is None else check_urls([value])[0]


def console(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0: any free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only; open nothing.")] = False,
    edit_managed: Annotated[
        bool,
        typer.Option(
            "--edit-managed",
            help="Let objects be changed that Argo CD, Flux or Helm manage. They may undo it.",
        ),
    ] = False,
    service: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="KEYTURN_URL",
            callback=check_one,
            help="The service's URL inside the cluster, to ask why a request was denied; a forwarded port will do.",
            show_default=False,
        ),
    ] = None,
    service_account: Annotated[
        str | None,
        typer.Option(help="The ServiceAccount whose token is shown to the service.", show_default=False),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            callback=check_urls,
            help="Where an API replica's metrics are, for what Audit counts; may repeat. The pods' unless given.",
            show_default=False,
        ),
    ] = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show clients, rules and signing keys on a page, and change them.

    It runs on this machine, for this machine's browser alone, until Ctrl-C. It may do what your kubeconfig may, and nothing else:
    nothing is installed in the cluster. stdout holds the address, which is a secret as long as the console runs.
    """
    if importlib.util.find_spec("starlette") is None or importlib.util.find_spec("jinja2") is None:
        raise CommandError("The console's libraries are not installed.", "Install keyturn[console].", Exit.USAGE)
    from ..console.app import Console
    from ..console.counts import AuditCounts
    from ..console.guard import Door
    from ..console.serve import serve
    from ..console.service import Service

    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube, listen(port) as listening:
        door = Door(listening.getsockname()[1])
        shared = Console(
            kube=kube,
            door=door,
            counts=AuditCounts(kube, metrics or (), open_client=open_client),
            service=Service(kube, service, service_account),
            context=context or "",
            edit_managed=edit_managed,
        )
        typer.echo(door.url)
        say("Open this address in a browser of this machine; keep it to yourself. Ctrl-C ends the console.")
        if not no_browser:
            webbrowser.open(door.issue_ticket(time.time()))
        serve(shared, listening)


def listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        # From here on a browser waits instead of being refused.
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise CommandError(
            f"Port {port} can't be used: {error.strerror}.", "Leave --port out, or name another.", Exit.USAGE
        ) from None
    return listening
