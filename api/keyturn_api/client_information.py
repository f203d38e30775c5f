"""The client information response (RFC 7591 section 3.2.1, RFC 7592 section 3)."""

from typing import Any
from urllib.parse import quote

from keyturn.clients.state import PRIVATE_KEY_JWT, SOURCE_PUBLIC_KEYS, ClientState
from keyturn_api.http import JSON, NO_STORE, Response, response
from keyturn_api.settings import ApiSettings
from keyturn_api.token_endpoint import GRANT_TYPE


def configuration_uri(settings: ApiSettings, client_id: str) -> str:
    """Where a client reads and changes its registration."""
    return f"{settings.base_url}/register/{quote(client_id, safe='')}"


def client_information(settings: ApiSettings, state: ClientState, *, token: str | None) -> dict[str, Any]:
    """What is registered of the client, `scope` being what it was granted. With its registration `token`, where to manage it."""
    information: dict[str, Any] = {
        "client_id": state.client_id,
        "client_id_issued_at": int(state.created_at),
        "token_endpoint_auth_method": state.auth_method,
        "grant_types": [GRANT_TYPE],
        "response_types": [],
    }
    if state.registration is not None:
        information |= state.registration.described
    if state.auth_method == PRIVATE_KEY_JWT:
        information["jwks"] = {"keys": [dict(key.jwk) for key in state.keys if key.source == SOURCE_PUBLIC_KEYS]}
    if state.permissions:
        information["scope"] = " ".join(state.permissions)
    if token is not None:
        information["registration_access_token"] = token
        information["registration_client_uri"] = configuration_uri(settings, state.client_id)
    return information


def no_store(status: int, body: bytes) -> Response:
    """JSON that is kept nowhere."""
    return response(status, (JSON, *NO_STORE), body)
