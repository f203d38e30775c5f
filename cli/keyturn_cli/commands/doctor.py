"""`keyturn doctor`: looks at an installation, and says what is wrong and what to do."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ..errors import Exit
from ..examination import examine
from ..facts import Facts, gather
from ..finding import MORE_RIGHTS, Finding, Outcome
from ..help import examples
from ..kube import ContextOption, KubeconfigOption, NamespaceOption, open_kube
from ..listing import Output, OutputOption, print_table, print_value
from ..output import say
from ..progress import working
from ..server import open_client
from .explain import check_server

EPILOG: Final = (
    examples(
        "keyturn doctor -n shop",
        "keyturn doctor --url http://127.0.0.1:8080 --public-url https://tokens.example.org",
        "keyturn doctor -o json",
    )
    + "\n\nExit codes: 0 nothing is wrong (there may be warnings, and what could not be looked at); 1 something is wrong; 2 the command "
    "line or the kubeconfig can't be used; 3 the API server can't be reached."
)
HEADINGS: Final = ("CHECK", "RESULT", "FOUND")
STYLES: Final = {Outcome.WRONG: "red", Outcome.WARNING: "yellow"}

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="KEYTURN_URL",
        callback=check_server,
        help="The service's URL as the gateway reaches it; its Service, through the API server, unless given.",
        show_default=False,
    ),
]
MetricsOption = Annotated[
    list[str] | None,
    typer.Option("--metrics-url", help="A replica's metrics; may repeat. The pods' unless given.", show_default=False),
]


def doctor(
    url: UrlOption = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            callback=check_server, help="Where callers reach it, to see what is published.", show_default=False
        ),
    ] = None,
    gateway_profile: Annotated[
        str | None,
        typer.Option(help="How the gateway asks; what the Deployment says unless given.", show_default=False),
    ] = None,
    metrics_url: MetricsOption = None,
    output: OutputOption = Output.TABLE,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Look at an installation: CRDs, versions, rights, store, replicas, clocks, keys, gateway.

    Nothing is changed, and no Secret is read. What your own rights don't show is reported as unknown.
    """
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube, open_client() as http:
        # Where the API server is out of reach nothing else can be said.
        kube.clock()
        with working("Looking at the installation"):
            facts = gather(
                kube, http, url=url, public_url=public_url, profile=gateway_profile, metrics=metrics_url or ()
            )
    findings = examine(facts)
    show(facts, findings, output)
    if any(one.outcome is Outcome.WRONG for one in findings):
        raise typer.Exit(Exit.REFUSED)


def show(facts: Facts, findings: list[Finding], output: Output) -> None:
    """The findings to stdout; as a table, what to do follows it."""
    if output is Output.NAME:
        for one in findings:
            if one.outcome is Outcome.WRONG:
                typer.echo(one.check)
        return
    if output is not Output.TABLE:
        print_value({"namespace": facts.namespace, "findings": [one.to_body() for one in findings]}, output)
        return
    print_table(HEADINGS, [(one.check, str(one.outcome), one.message) for one in findings])
    for one in findings:
        if one.todo and one.todo != MORE_RIGHTS:
            say(f"{one.check}: {one.todo}", style=STYLES.get(one.outcome, ""))
