"""The running service, asked why a request was denied: with a Kubernetes token that the person may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..admin_api import admin_token, ask, audience_of, find_url
from ..errors import CommandError, Exit
from ..server import open_client

if TYPE_CHECKING:
    from ..kube import Kube


class Service:
    """`url` None: where the release's Deployment says that it is. The kubeconfig's own token is shown only if it is for us."""

    def __init__(self, kube: Kube, url: str | None, account: str | None) -> None:
        self._kube = kube
        self._url = url
        self._account = account

    def denials(self, request_id: str) -> dict[str, Any]:
        """What is known of the denials with this id.

        Raises:
            CommandError: it can't be asked, or knows none.
        """
        url = self._url or find_url(self._kube)
        if url is None:
            raise CommandError(
                "Nothing in the namespace says where the service is.",
                "Start the console with --url; a port forwarded to its Service will do.",
                Exit.USAGE,
            )
        with open_client() as client:
            audience = audience_of(client, url)
            token = admin_token(self._kube, audience=audience, account=self._account, own_token=self._kube.own_token)
            return ask(client, url, token, {"requestId": request_id})
