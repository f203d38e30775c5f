"""The running service, asked why a request was denied: with a Kubernetes token that the person may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..admin_api import admin_token, ask, audience_of
from ..server import open_client
from ..service_access import not_named

if TYPE_CHECKING:
    from ..kube import Kube


class Service:
    """`url` None: it was not named, and is not asked. The kubeconfig's own token is shown only if it is for us."""

    def __init__(self, kube: Kube, url: str | None, account: str | None) -> None:
        self._kube = kube
        self._url = url
        self._account = account

    def denials(self, request_id: str) -> dict[str, Any]:
        """What is known of the denials with this id.

        Raises:
            CommandError: it can't be asked, or knows none.
        """
        url = self._url
        if url is None:
            raise not_named(self._kube)
        with open_client() as client:
            audience = audience_of(client, url, self._kube)
            token = admin_token(self._kube, audience=audience, account=self._account, own_token=self._kube.own_token)
            return ask(client, url, token, {"requestId": request_id})
