"""That secrets are found wherever they stand, and that none does: in a log at DEBUG, an event, a status, another object, a
trace or a store.

What a whole run left behind is looked through at its end, by a fixture of all tests.
"""

import base64
import json
from pathlib import Path
from urllib.parse import quote_plus

import httpx2
import pytest

from tests.api.installation import Installation, assertion, form
from tests.people.metrics.collector import collecting
from tests.sample_keys import ALGORITHMS, sample_key
from tests.secrecy.observing import without_mistakes
from tests.secrecy.planted import PLANTED, Planted

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "secrecy-%/:=& s3cret-of-the-last-test"
KEY = sample_key("RS256", 901)


async def use_everything(folder: Path, traces_url: str) -> None:
    """Each way of proving somebody, right and wrong, so that there is always something to look for."""
    installation = Installation(folder)
    try:
        await installation.open()
        await installation.add_key_client("team.app", KEY)
        await installation.add_secret_client("team.secret", SECRET.encode())
        await installation.add_rules()
        process = await installation.start(secret_failures_per_minute="0", traces_url=traces_url).ready()
        basic = (quote_plus("team.secret"), quote_plus(SECRET))
        async with httpx2.AsyncClient(base_url=process.url) as http:
            signed = assertion(KEY, "team.app")
            token = (await http.post("/oauth/token", data=form(signed))).json()["access_token"]
            assert (await http.post("/oauth/token", data=form(signed))).status_code == 401
            for secret in (SECRET, f"wrong-{SECRET}"):
                pair = (basic[0], quote_plus(secret))
                await http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=pair)
            for bearer in (token, f"{token[:-30]}{'A' * 30}"):
                headers = {"Authorization": f"Bearer {bearer}"}
                await http.get("/tokeninfo", headers=headers)
                asked = {"Original-Request-Uri": "/orders", "Original-Request-Method": "GET"}
                await http.get("/auth", headers={**headers, **asked})
                await http.post("/oauth/introspect", data={"token": bearer}, auth=basic)
                await http.post("/oauth/revoke", data={"token": bearer}, auth=basic)
    finally:
        await installation.close()


async def test_no_way_of_proving_somebody_leaves_a_secret_anywhere_at_debug(tmp_path: Path) -> None:
    with collecting() as collector:
        await use_everything(tmp_path, collector.url)
    names = set(PLANTED.windows.values())
    assert names >= {"a secret in Basic", "a request: client_assertion", "an answer: access_token"}
    assert names >= {"a sample key of RS256"}
    leavings = PLANTED.leavings()
    said = b"".join(one.read_bytes() for one in leavings if one.name.startswith("api-"))
    assert b'"level":"debug"' in said
    assert b'"event":"token_refused"' in said
    assert any(one.name.endswith("store.sql") for one in leavings)
    assert any(b"/oauth/revoke" in one.read_bytes() for one in leavings if one.name.endswith("traces"))
    assert PLANTED.found() == []


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    (tmp_path / "kept").mkdir()
    return Planted(tmp_path / "kept")


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(SECRET, id="as it is"),
        pytest.param(json.dumps(SECRET), id="in JSON"),
        pytest.param(f"client_secret={quote_plus(SECRET)}&x=1", id="in a form"),
        pytest.param(base64.b64encode(SECRET.encode()).decode(), id="in base64"),
    ],
)
async def test_a_secret_is_found_where_it_stands(planted: Planted, written: str) -> None:
    planted.exchange({}, f"client_secret={quote_plus(SECRET)}".encode(), b"", "")
    planted.keep("api-0.log", f'{{"event":"quiet"}}\n{{"event":"noise","what":"{written} and more"}}\n')
    planted.keep("api-1.log", '{"event":"quiet"}\n')
    (found,) = {one.place for one in planted.found()}
    assert found == "0001-api-0.log"


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        pytest.param({"Authorization": f"Bearer {assertion(KEY, 'a')}"}, {}, id="a bearer token"),
        pytest.param({}, {"access_token": assertion(KEY, "a")}, id="an access token that was issued"),
        pytest.param({}, {"registration_access_token": "r" * 10 + "0123456789" * 4}, id="a registration token"),
        pytest.param({}, {"client_secret": SECRET}, id="a secret that was made"),
    ],
)
async def test_what_was_sent_or_handed_out_is_found(
    planted: Planted, headers: dict[str, str], answer: dict[str, str]
) -> None:
    planted.exchange(headers, b"", json.dumps(answer).encode(), "application/json")
    for value in (*headers.values(), *answer.values()):
        planted.keep("events", f"it was {value}")
    assert planted.found()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_private_key_is_found_and_its_public_half_is_none(planted: Planted, algorithm: str) -> None:
    key = sample_key(algorithm, 902)
    planted.pem("a key", key.to_pem().decode())
    planted.keep("public", json.dumps(dict(key.public.jwk)))
    assert planted.found() == []
    planted.keep("private", key.to_pem())
    assert {one.place for one in planted.found()} == {"0002-private"}


async def test_the_secret_of_a_namespace_is_planted_but_not_what_is_public_in_it(planted: Planted) -> None:
    data = {
        "client_id": "a-client-id-of-some-length",
        "client_secret": SECRET,
        "private_key.pem": KEY.to_pem().decode(),
    }
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    planted.secret({"metadata": {"name": "s"}, "type": "Opaque", "data": encoded})
    planted.secret({"metadata": {"name": "h"}, "type": "keyturn.dev/registration", "data": {"x": encoded["client_id"]}})
    planted.keep("status", json.dumps({"clientId": data["client_id"]}))
    assert planted.found() == []
    planted.keep("log", SECRET)
    assert planted.found()


async def test_an_object_is_looked_at_whole_unless_its_author_put_a_private_key_into_it() -> None:
    def client(reason: str) -> dict[str, object]:
        return {
            "metadata": {"name": "x", "annotations": {}},
            "spec": {},
            "status": {"conditions": [{"reason": reason}]},
        }

    assert "spec" in without_mistakes(client("Accepted"))
    assert "spec" not in without_mistakes(client("PrivateKeyMaterial"))
    assert "spec" not in without_mistakes(client("InvalidKey"))
