"""One source of credentials for kopf and for our own calls: the pod's service account, else the kubeconfig."""

import dataclasses
import datetime
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import kopf

RELOGIN_AFTER = datetime.timedelta(minutes=10)
"""A projected token is replaced long before it ends: reading the file anew in time means that no call ever meets a 401."""

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_ONE_AT_A_TIME = threading.Lock()
_logger = logging.getLogger("keyturn.operator.login")


def login(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo:
    """Reads the credentials as they are now. Raises kopf.LoginError when there are none."""
    # kopf and our own client may log in at once, and the official client keeps what it has read in a global.
    with _ONE_AT_A_TIME:
        return _login(settings)


def _login(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo:
    if _TOKEN.exists():
        info = kopf.login_with_service_account(settings=settings, logger=_logger)
    else:
        # The official client's reader knows contexts, exec plugins and token files of a workstation.
        info = kopf.login_via_client(settings=settings, logger=_logger)
    if info is None:
        raise kopf.LoginError("Found neither a pod's service account nor a usable kubeconfig.")
    return dataclasses.replace(info, expiration=datetime.datetime.now(datetime.UTC) + RELOGIN_AFTER)


def login_source(settings: kopf.OperatorSettings) -> Callable[[], kopf.ConnectionInfo]:
    """`login` for callers without kopf's settings at hand."""
    return lambda: login(settings)
