"""`keyturn bundle`: a support archive in which there is no secret."""

from __future__ import annotations

import base64
import binascii
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import CommandError, Exit
from ..examination import examine
from ..facts import gather
from ..files import NewFile, write_all
from ..help import examples
from ..kube import ContextOption, KubeconfigOption, NamespaceOption, open_kube
from ..output import say
from ..progress import working
from ..secret_scan import scan, works
from ..server import fetch, open_client
from ..support import LOG_BYTES, archive, collect
from .doctor import MetricsOption, UrlOption  # noqa: TC001 - typer reads the annotations

if TYPE_CHECKING:
    from ..kube import Kube

EPILOG: Final = (
    examples(
        "keyturn bundle -n shop",
        "keyturn bundle --out support.tar.gz --compare-secrets",
        "keyturn bundle --log api.log --log operator.log",
    )
    + "\n\nExit codes: 0 written; 1 not written, since something in it looks like a secret, or the file is in the way; 2 the command line "
    "or the kubeconfig can't be used; 3 the API server can't be reached."
)
SHOWN: Final = 10


def bundle(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to write; keyturn-NAMESPACE-TIME.tar.gz unless given.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    log: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Take this log along, too; may repeat.", show_default=False),
    ] = None,
    compare_secrets: Annotated[
        bool,
        typer.Option(
            "--compare-secrets",
            help="Read the namespace's Secrets, in memory only, and make sure that none of their values is in the archive.",
        ),
    ] = False,
    url: UrlOption = None,
    metrics_url: MetricsOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Pack what helps to find a fault: the installation's objects, events, logs, metrics, versions, and what doctor finds.

    What others have in the namespace stays out. Secrets are left out: of them there are names and labels only. The rest is searched for
    keys, tokens and passwords; if one is found, nothing is written. Look at it yourself before you send it: names of clients and hosts
    are in it.
    """
    if not works():
        raise CommandError(
            "The search for secrets does not work here; nothing was written.", "Report this.", Exit.REFUSED
        )
    with (
        open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube,
        open_client() as http,
        working("Collecting"),
    ):
        kube.clock()
        metrics = {
            f"replica-{number}": fetch(http, http.build_request("GET", place), limit=LOG_BYTES).content.decode(
                "utf-8", "replace"
            )
            for number, place in enumerate(metrics_url or ())
        }
        files = collect(kube, metrics)
        findings = examine(gather(kube, http, url=url, public_url=None, profile=None, metrics=metrics_url or ()))
        files["doctor.json"] = json.dumps([one.to_body() for one in findings], ensure_ascii=False, indent=2) + "\n"
        files |= {f"logs/{path.name}": tail(path) for path in log or ()}
        values = secret_values(kube) if compare_secrets else []
        home = kube.namespace
    if found := scan(files, values):
        for one in found[:SHOWN]:
            say(f"Found {one}.", style="red")
        raise CommandError(
            f"Nothing was written: {len(found)} place(s) look like a secret.",
            "Replace the secret if it is one, for it stands where it should not; then look at where it came from.",
            Exit.REFUSED,
        )
    now = time.time()
    stamp = datetime.fromtimestamp(now, tz=UTC).strftime("%Y%m%dT%H%M%SZ")
    path = out or Path(f"keyturn-{home}-{stamp}.tar.gz")
    write_all([NewFile(path, archive(files, root=f"keyturn-{home}", now=now), private=True)], overwrite=force)
    say(f"Wrote {len(files)} file(s); no secret was found in them.")
    typer.echo(str(path))


def tail(path: Path) -> str:
    """The end of a log. Raises CommandError where it can't be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - LOG_BYTES))
            return stream.read(LOG_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}.", "Check --log.", Exit.USAGE) from None


def secret_values(kube: Kube) -> list[bytes]:
    """What the namespace's Secrets hold, for comparison alone, but what says nothing: ids, URLs."""
    plain = {"client_id", "key_id", "issuer", "token_endpoint", "ca.crt", "namespace"}
    found = []
    for secret in kube.list(f"/api/v1/namespaces/{kube.namespace}/secrets"):
        for name, value in (secret.get("data") or {}).items():
            try:
                if name not in plain and not name.endswith((".crt", ".pub")):
                    found.append(base64.b64decode(value, validate=True))
            except binascii.Error:
                continue
    return found
