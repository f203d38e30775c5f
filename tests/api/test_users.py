"""Users whose tokens are not ours, against real processes: a userinfo endpoint, a trusted issuer, trusted headers, and the settings."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from keyturn.records import Kind
from keyturn.rules.state import Condition, RouteState, RuleState
from tests.api.conftest import APP
from tests.api.identity import Issuer, Served, served
from tests.api.installation import ISSUER, ApiProcess, Installation, assertion, form
from tests.sample_keys import sample_key

ANN = {"sub": "ann", "groups": ["ops"], "permissions": ["orders:read"], "userProperties": {"plan": "gold"}}
RULES = RuleState(
    routes=(
        RouteState("/ops", ("GET",), Condition(expression='groups.ops && userProperties.plan == "gold"')),
        RouteState("/anybody", ("GET",), Condition(expression="true")),
    )
)
KEY, NEXT_KEY = sample_key(number=41), sample_key(number=42)


@pytest.fixture
def server() -> Iterator[Served]:
    with served() as state:
        yield state


async def auth(process: ApiProcess, path: str, **headers: str) -> httpx2.Response:
    question = {"Original-Request-Uri": path, "Original-Request-Method": "GET"}
    async with httpx2.AsyncClient(base_url=process.url, timeout=20) as http:
        return await http.get("/auth", headers={**question, **headers})


async def until(status: int, process: ApiProcess, path: str, **headers: str) -> httpx2.Response:
    for _ in range(200):
        answer = await auth(process, path, **headers)
        if answer.status_code == status:
            return answer
        await asyncio.sleep(0.1)
    raise AssertionError(f"{path} did not come to {status}: {answer.status_code} {answer.text}\n{process.output()}")


async def test_a_userinfo_endpoint_says_who_is_asking_in_every_worker(
    installation: Installation, server: Served
) -> None:
    await installation.put(Kind.ACCESS_RULE, "users", RULES.to_body())
    server.users = {"Bearer opaque": ANN, "sid=1": {**ANN, "sub": "bob"}}
    process = await installation.start(userinfo_url=f"{server.url}/userinfo", workers="2").ready()

    for _ in range(8):
        answer = await auth(process, "/ops", Authorization="Bearer opaque")
        assert answer.status_code == 200, answer.text
        assert (answer.headers["mia-userid"], answer.headers["mia-groups"]) == ("ann", "ops")
        assert json.loads(answer.headers["mia-userproperties"]) == {"plan": "gold"}
    assert (await auth(process, "/ops", Cookie="sid=1")).headers["mia-userid"] == "bob"
    assert (await auth(process, "/orders", Cookie="sid=1")).status_code == 200
    assert (await auth(process, "/ops", Cookie="sid=2")).status_code == 401
    assert (await auth(process, "/ops")).status_code == 401
    # One question for each worker and credential; what one answer set as a cookie went out with no other.
    assert sum(headers.get("authorization") == "Bearer opaque" for _, headers in server.asked) <= 2
    assert not any("somebody" in headers.get("cookie", "") for _, headers in server.asked)

    # Our own clients cost no question, and are no users here.
    async with httpx2.AsyncClient(base_url=process.url) as http:
        token = (await http.post("/oauth/token", data=form(assertion(APP, "team.app")))).json()["access_token"]
    before = len(server.asked)
    own = await auth(process, "/orders", Authorization=f"Bearer {token}", Cookie="sid=1")
    assert (own.status_code, own.headers["mia-userid"], own.headers["mia-clientid"]) == (200, "", "team.app")
    tampered = await auth(process, "/orders", Authorization=f"Bearer {token[:-8]}AAAAAAAA", Cookie="sid=1")
    assert (tampered.status_code, len(server.asked)) == (401, before)

    server.answers["/userinfo"] = (500, ANN)
    failed = await auth(process, "/ops", Cookie="sid=3")
    assert (failed.status_code, failed.headers["retry-after"]) == (503, "1")
    assert (await auth(process, "/open", Cookie="sid=4")).status_code == 200
    assert "opaque" not in process.output()
    assert "sid=" not in process.output()


async def test_a_trusted_issuers_tokens_are_verified_here_and_its_file_and_keys_may_change(
    installation: Installation, server: Served, tmp_path: Path
) -> None:
    await installation.put(Kind.ACCESS_RULE, "users", RULES.to_body())
    issuer = Issuer(server, KEY)
    mounted = tmp_path / "mounted"

    def mount(version: str, *issuers: dict[str, Any]) -> Path:
        """As the kubelet changes a mounted ConfigMap: a new folder, and a link put in the old one's place."""
        folder = mounted / f"..{version}"
        folder.mkdir(parents=True)
        (folder / "issuers.yaml").write_text(json.dumps({"issuers": list(issuers)}))
        link = mounted / "..new"
        link.symlink_to(folder.name)
        link.rename(mounted / "..data")
        named = mounted / "issuers.yaml"
        if not named.is_symlink():
            named.symlink_to("..data/issuers.yaml")
        return named

    trusted = {
        "issuer": issuer.url,
        "audiences": ["orders"],
        "algorithms": ["RS256"],
        "claims": {"groups": ["realm_access", "roles"], "userProperties": "profile"},
    }
    process = await installation.start(trusted_issuers_file=str(mount("1", trusted))).ready()
    claims: dict[str, Any] = {
        "realm_access": {"roles": ["ops"]},
        "profile": {"plan": "gold"},
        "permissions": ["orders:read"],
    }
    bearer = f"Bearer {issuer.token(KEY, **claims)}"

    answer = await until(200, process, "/ops", Authorization=bearer)
    assert (answer.headers["mia-userid"], answer.headers["mia-clientid"]) == ("ann", "")
    assert (await auth(process, "/orders", Authorization=bearer)).status_code == 403
    for wrong in (
        issuer.token(KEY, typ="JWT"),
        issuer.token(KEY, nonce="n"),
        issuer.token(KEY, aud="elsewhere"),
        issuer.token(KEY, exp=1),
        issuer.token(NEXT_KEY),
        issuer.token(KEY, iss=ISSUER),
        issuer.token(KEY, iss="https://evil.example"),
    ):
        assert (await auth(process, "/anybody", Authorization=f"Bearer {wrong}")).status_code == 401

    # A new key is fetched when a token names it; for how long others wait at most is another matter.
    issuer.publish(KEY, NEXT_KEY)
    fresh = f"Bearer {issuer.token(NEXT_KEY)}"
    await until(200, process, "/anybody", Authorization=fresh)
    # What has been fetched goes on to count while the issuer is away.
    server.answers.clear()
    assert (await auth(process, "/ops", Authorization=bearer)).status_code == 200

    mount("2", {**trusted, "claims": {"permissions": "permissions"}})
    await until(200, process, "/orders", Authorization=bearer)
    assert (await auth(process, "/ops", Authorization=bearer)).status_code == 403
    mount("3")
    await until(401, process, "/anybody", Authorization=bearer)


async def test_identity_headers_are_believed_from_trusted_peers_alone_and_that_is_warned_of(
    installation: Installation,
) -> None:
    await installation.put(Kind.ACCESS_RULE, "users", RULES.to_body())
    said = {"mia-userid": "ann", "mia-groups": "ops", "mia-userproperties": '{"plan":"gold"}'}
    near = await installation.start(trust_user_headers="true", trusted_peers="127.0.0.0/8").ready()
    far = await installation.start(trust_user_headers="true", trusted_peers="192.0.2.0/24").ready()
    without = await installation.start().ready()
    assert (await auth(near, "/ops", **said)).headers["mia-userid"] == "ann"
    assert (await auth(far, "/ops", **said, **{"X-Forwarded-For": "192.0.2.1"})).status_code == 401
    assert (await auth(without, "/ops", **said)).status_code == 401
    assert '"user_headers_trusted"' in near.output()
    assert '"level":"warning"' in near.output().replace('": "', '":"')
    assert "user_headers_trusted" not in without.output()
    assert "denials_answered_with_200" not in without.output()


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        pytest.param({"TRUST_USER_HEADERS": "true"}, "needs KEYTURN_TRUSTED_PEERS", id="trust without peers"),
        pytest.param({"USERINFO_URL": "users"}, "KEYTURN_USERINFO_URL", id="a userinfo URL that is none"),
        pytest.param({"TRUSTED_ISSUERS_FILE": "/nowhere.yaml"}, "cannot be read", id="issuers that are not there"),
    ],
)
def test_a_process_does_not_start_with_settings_that_it_cannot_follow(
    tmp_path: Path, variables: dict[str, str], complaint: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "keyturn_api.main"],
        env={
            "KEYTURN_ISSUER": ISSUER,
            "KEYTURN_STORE_URL": f"sqlite:///{tmp_path / 'store.sqlite'}",
            "KEYTURN_HTTP_PORT": "0",
            "KEYTURN_METRICS_PORT": "0",
            **{f"KEYTURN_{name}": value for name, value in variables.items()},
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr


async def test_the_references_answers_come_by_settings(installation: Installation) -> None:
    lenient = await installation.start(strict_mode="false", header_prefix="x-acl-").ready()
    reference = await installation.start(unknown_route="reference").ready()
    forged = {"x-acl-userid": "root", "mia-userid": "root"}
    for path, allowed in (("/open", "1"), ("/orders", "0"), ("/nowhere", "0")):
        answer = await auth(lenient, path, **forged)
        assert (answer.status_code, answer.headers["x-acl-allowed"], answer.headers["x-acl-userid"]) == (
            200,
            allowed,
            "",
        )
    unknown = await auth(reference, "/nowhere", **forged)
    assert (unknown.status_code, unknown.headers["mia-allowed"], unknown.headers["mia-userid"]) == (200, "0", "")
    assert (await auth(reference, "/orders")).status_code == 401
