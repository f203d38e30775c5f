"""golang.org/x/oauth2/clientcredentials: the styles of sending a secret, scopes and further parameters, refusals."""

import pytest

from tests.realclients.service import AUDIENCE, CHOSEN_SECRET, SECRET, Service, claims_are_whole
from tests.realclients.toolchains import Program

DETECTED, IN_PARAMETERS, IN_HEADER = 0, 1, 2


@pytest.mark.parametrize(
    ("client_id", "secret", "style"),
    [
        pytest.param("team.basic", SECRET, DETECTED, id="by default, for a client of client_secret_basic"),
        pytest.param("team.post", SECRET, DETECTED, id="by default, for a client of client_secret_post"),
        pytest.param("team.chosen", CHOSEN_SECRET, DETECTED, id="by default, with a secret that needs encoding"),
        pytest.param("team.basic", SECRET, IN_HEADER, id="in the header"),
        pytest.param("team.post", SECRET, IN_PARAMETERS, id="in the parameters"),
        pytest.param("team.chosen-post", CHOSEN_SECRET, IN_PARAMETERS, id="in the parameters, needing encoding"),
    ],
)
def test_go_gets_and_uses_a_token(go: Program, service: Service, client_id: str, secret: str, style: int) -> None:
    result = go.run("grant", issuer=service.issuer, client_id=client_id, client_secret=secret, auth_style=style)
    assert (result.get("status"), result.get("token_type")) == (200, "Bearer"), result
    assert 800 < result["seconds"] <= 900
    claims_are_whole(result["info"], service, client_id)


def test_go_narrows_scopes_and_names_an_audience(go: Program, service: Service) -> None:
    wanted = {"scopes": ["orders:read"], "parameters": {"audience": [AUDIENCE]}}
    result = go.run("grant", issuer=service.issuer, client_id="team.basic", client_secret=SECRET, **wanted)
    assert (result["info"]["permissions"], result["info"]["aud"]) == (["orders:read"], [AUDIENCE])


@pytest.mark.parametrize(
    ("given", "status", "error"),
    [
        pytest.param({"client_secret": "wrong"}, 401, "invalid_client", id="a wrong secret"),
        pytest.param(
            {"client_secret": SECRET, "scopes": ["admin"], "auth_style": IN_HEADER},
            400,
            "invalid_scope",
            id="a permission not held",
        ),
    ],
)
def test_go_understands_a_refusal(
    go: Program, service: Service, given: dict[str, object], status: int, error: str
) -> None:
    result = go.run("grant", issuer=service.issuer, client_id="team.basic", **given)
    assert (result["error_status"], result["error"]) == (status, error)
    assert result["error_description"]
