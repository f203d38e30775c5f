"""`keyturn rotate`: the next key takes over, planned or because the present one is in the wrong hands."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyturn import reasons
from keyturn.durations import InvalidDuration, parse_duration

from .. import change
from ..client_view import view
from ..editing import confirm_on_terminal
from ..errors import CommandError, Exit
from ..help import examples
from ..kube import ContextOption, KubeconfigOption, NamespaceOption, open_kube
from ..output import printable, say
from ..progress import working
from ..signing_key import (
    Progress,
    annotations_to_withdraw,
    kids_to_withdraw,
    request_rotation,
    rotation_progress,
    withdrawal_progress,
    young_next,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EPILOG: Final = examples(
    "keyturn rotate signing-key keyturn --wait",
    "keyturn rotate signing-key keyturn --compromised --only-active -n shop",
    "keyturn rotate signing-key keyturn --compromised --wait --timeout 10m",
    "keyturn rotate client billing --wait",
)
SIGNING_KEY: Final = examples(
    "keyturn rotate signing-key keyturn --wait",
    "keyturn rotate signing-key keyturn --compromised --only-active -n shop",
)
CLIENT: Final = examples("keyturn rotate client billing", "keyturn rotate client billing -n shop --wait --timeout 2m")
CODES: Final = (
    "\n\nExit codes: 0 done (without --wait: asked for); 1 the API server refused, or not agreed to; "
    "2 the command line or the kubeconfig can't be used; 3 the API server can't be reached, or it is not done in time."
)
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Don't ask on a terminal. Without a terminal nobody is asked.")
]
POLL_SECONDS: Final = 0.5
ATTEMPTS: Final = 5

rotate = typer.Typer(
    name="rotate",
    no_args_is_help=True,
    epilog=EPILOG,
    help="Let the next key take over. Nothing else than the object's annotations is changed; the operator does the rest.",
)


def check_timeout(value: str) -> str:
    try:
        parse_duration(value)
    except InvalidDuration as error:
        raise typer.BadParameter(str(error)) from None
    return value


@rotate.command("signing-key", epilog=SIGNING_KEY + CODES)
def signing_key(
    name: Annotated[str, typer.Argument(help="The SigningKey.", show_default=False)],
    compromised: Annotated[
        bool,
        typer.Option(
            "--compromised",
            help="Withdraw the keys for ever, at once: their tokens are refused everywhere. New ones are made; until every "
            "API replica has them, /oauth/token answers 503.",
        ),
    ] = False,
    only_active: Annotated[
        bool,
        typer.Option(
            "--only-active",
            help="With --compromised: withdraw the active key only; the next one signs at once, without a gap.",
        ),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when every API replica signs with the new key.")] = False,
    timeout: Annotated[str, typer.Option(callback=check_timeout, help="How long to wait.")] = "5m",
    yes: YesOption = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Rotate the installation's signing key; with --wait, stdout holds the id of the key that signs then.

    A planned rotation fails no request: the next key is published and loaded already. It waits until that has been so for publishBefore.
    """
    if only_active and not compromised:
        raise typer.BadParameter("goes with --compromised only", param_hint="'--only-active'")
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        path = kube.path("signingkeys", name)
        withdrawn: frozenset[str] = frozenset()
        agreed: frozenset[str] | None = None
        for attempt in range(ATTEMPTS):
            before = kube.get(path)
            if compromised:
                withdrawn = kids_to_withdraw(before, only_active=only_active)
                annotations = annotations_to_withdraw(before, withdrawn)
            else:
                annotations = request_rotation(datetime.now(tz=UTC).isoformat())
            # After somebody else's edit the keys may be others than those that were agreed to.
            if agreed != withdrawn:
                confirm_on_terminal(question(name, withdrawn, only_active=only_active), yes=yes)
                agreed = withdrawn
            change = {
                "metadata": {"resourceVersion": before["metadata"]["resourceVersion"], "annotations": annotations}
            }
            try:
                kube.patch(path, change)
                break
            except CommandError as error:
                if getattr(error, "status", None) != 409 or attempt == ATTEMPTS - 1:
                    raise
        for kid in sorted(withdrawn):
            say(f"Withdrawn for ever: {printable(kid)}")
        if only_active and (warning := young_next(before, now=time.time())):
            say(warning)
        if not wait:
            say(f"Asked for. `kubectl get signingkey {name} -n {kube.namespace}` shows how far it is.")
            return

        def progress() -> Progress:
            now = kube.get(path)
            return withdrawal_progress(now, withdrawn) if compromised else rotation_progress(now, before)

        typer.echo(await_progress(progress, seconds=parse_duration(timeout)))


def question(name: str, withdrawn: frozenset[str], *, only_active: bool) -> str:
    """What a person agrees to: with its consequences."""
    if not withdrawn:
        return f"Let the next key of SigningKey {name} take over?"
    gap = "the next key signs at once" if only_active else "no token is given until every API replica has new keys"
    return f"Withdraw {', '.join(sorted(withdrawn))} for ever? Their tokens are refused everywhere, and {gap}."


@rotate.command(epilog=CLIENT + CODES)
def client(
    name: Annotated[str, typer.Argument(help="The ClientCredential.", show_default=False)],
    wait: Annotated[bool, typer.Option("--wait", help="Return when the new one is in force everywhere.")] = False,
    timeout: Annotated[str, typer.Option(callback=check_timeout, help="How long to wait.")] = "5m",
    yes: YesOption = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Let the operator make a new key or secret for a client; with --wait, stdout holds its id in the client's status.

    Those before it stay valid for keepPrevious, so nothing fails meanwhile. What the client makes itself is its own to rotate.
    """
    with open_kube(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        path = kube.path("clientcredentials", name)
        asked = False
        for attempt in range(ATTEMPTS):
            before = kube.get(path)
            if not made_by_operator(before):
                raise CommandError(
                    f"The operator makes no key and no secret for {printable(name)}.",
                    "Change its spec.publicKeys, or the Secret that it names, instead.",
                    Exit.REFUSED,
                )
            if not asked:
                confirm_on_terminal(f"Have a new key or secret made for {view(before).client_id}?", yes=yes)
                asked = True
            try:
                kube.patch(path, change.request_rotation(before, datetime.now(tz=UTC).isoformat()).patch)
                break
            except CommandError as error:
                if getattr(error, "status", None) != 409 or attempt == ATTEMPTS - 1:
                    raise
        if not wait:
            say(f"Asked for. `keyturn clients show {printable(name)}` shows the new one.")
            return
        typer.echo(await_progress(lambda: credential_progress(kube.get(path), before), seconds=parse_duration(timeout)))


def made_by_operator(obj: Mapping[str, Any]) -> bool:
    """Whether there is something that the rotate annotation can renew."""
    spec = obj.get("spec") or {}
    return (
        bool(spec.get("generateKey")) or (spec.get("clientSecret") or {"generate": False}).get("generate") is not False
    )


def credential_progress(now: Mapping[str, Any], before: Mapping[str, Any]) -> Progress:
    """Whether a credential is in force that was not there before, at every replica."""
    known = {one.name for one in view(before).credentials}
    fresh = [one.name for one in view(now).credentials if one.name not in known]
    shown = view(now)
    # A client that is stopped gets no tokens at any replica, and never Ready: its new credential is there all the same.
    if fresh and (shown.ready == "True" or shown.reason in (reasons.SUSPENDED, reasons.EXPIRED)):
        return Progress(done=fresh[-1])
    return Progress(waits_for=shown.message if shown.ready != "True" else "")


def await_progress(progress: Callable[[], Progress], *, seconds: float) -> str:
    """The kid that signs when it is done; says on the way what is waited for."""
    end = time.monotonic() + seconds
    said = ""
    while True:
        # Not while something is written: the two would be on one line.
        with working("Waiting for the operator"):
            reached = progress()
            while reached.done is None and reached.waits_for in ("", said) and time.monotonic() < end:
                time.sleep(POLL_SECONDS)
                reached = progress()
        if reached.done is not None:
            return reached.done
        if reached.waits_for not in ("", said):
            said = reached.waits_for
            say(printable(said))
        if time.monotonic() >= end:
            raise CommandError(
                f"It is not done within {seconds:.0f} s.",
                "The operator goes on with it; look at the object's conditions.",
                Exit.UNREACHABLE,
            )
