"""Whatever is sent to an endpoint: no 5xx, and no answer that its OpenAPI document does not name."""

from pathlib import Path

import pytest

from tests.api.conftest import APP, SECRET, Running
from tests.api.installation import assertion, form
from tests.api.test_token import basic
from tests.promises import CHECKS, examine

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_nobody_gets_an_undocumented_answer(shared: Running, tmp_path: Path) -> None:
    documented = (await shared.http.get("/openapi.json")).json()["paths"]
    examined = examine(shared.process.url, tmp_path)
    assert examined.failures == []
    operations = [f"{method} {path}" for path, item in documented.items() for method in item]
    assert examined.operations == examined.tested == len(operations)
    assert examined.cases > 10 * len(operations)
    # Every path that the metadata names is one of those.
    metadata = (await shared.http.get("/.well-known/oauth-authorization-server")).json()
    named = {value for name, value in metadata.items() if name.endswith(("_endpoint", "_uri"))}
    assert len(named) >= 4
    assert {place.removeprefix(metadata["issuer"]) for place in named} <= documented.keys()


async def test_a_client_with_a_secret_gets_no_undocumented_answer(shared: Running, tmp_path: Path) -> None:
    examined = examine(shared.process.url, tmp_path, headers=basic("team.secret", SECRET), only="^/oauth/")
    assert examined.failures == []
    assert 200 in examined.statuses("POST", "/oauth/token")
    assert 400 in examined.statuses("POST", "/oauth/token")


async def test_the_bearer_of_a_token_gets_no_undocumented_answer(shared: Running, tmp_path: Path) -> None:
    answer = await shared.http.post("/oauth/token", data=form(assertion(APP, "team.app")))
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    examined = examine(shared.process.url, tmp_path, headers=bearer, only="^/tokeninfo")
    assert examined.failures == []
    assert 200 in examined.statuses("GET", "/tokeninfo")


async def test_a_gateway_gets_no_undocumented_answer(shared: Running, tmp_path: Path) -> None:
    answer = await shared.http.post("/oauth/token", data=form(assertion(APP, "team.app")))
    asked = {"Original-Request-Uri": "/orders", "Original-Request-Method": "GET"}
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}", **asked}
    # Gateways ask with the method of the request in question: none is unsupported.
    checks = [check for check in CHECKS if check != "unsupported_method"]
    examined = examine(shared.process.url, tmp_path, headers=headers, only="^/auth", checks=checks)
    assert examined.failures == []
    assert 200 in examined.statuses("GET", "/auth")


async def test_an_undocumented_answer_is_found(shared: Running, tmp_path: Path) -> None:
    """Below another path nothing of the document is there, and a 404 is not what it promises."""
    examined = examine(f"{shared.process.url}/docs", tmp_path, document="/../openapi.json", only="^/tokeninfo")
    assert examined.failures
    assert "UndefinedStatusCode" in examined.failures[0]
