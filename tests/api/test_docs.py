"""The documentation at `/docs`: complete, runnable, and without any other server."""

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus, urljoin

import pytest

from tests.api.conftest import APP, SECRET, Running
from tests.api.installation import ISSUER, assertion
from tests.api.test_replicas import get_token
from tests.documents import PROJECT, RUN_BY, blocks

pytestmark = pytest.mark.asyncio(loop_scope="session")

COMMAND = re.compile(r"```sh\n(.*?)\n```", re.DOTALL)


async def document(shared: Running) -> dict[str, Any]:
    read: dict[str, Any] = (await shared.http.get("/openapi.json")).json()
    return read


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


async def test_every_operation_says_what_it_takes_and_what_it_answers(shared: Running) -> None:
    schema = await document(shared)
    tags = {tag["name"] for tag in schema["tags"]}
    for name, operation in operations(schema):
        assert operation["summary"], name
        assert set(operation["tags"]) <= tags, name
        answers = operation["responses"]
        assert any(status.startswith("2") for status in answers), name
        assert all(answer["description"] for answer in answers.values()), name
        for parameter in operation.get("parameters", []):
            assert parameter["description"], name
        body = operation.get("requestBody", {}).get("content", {})
        for media in body.values():
            assert media.get("example") or media.get("examples") or _has_examples(media, schema), name
        assert COMMAND.search(operation["description"]), f"{name}: no command is shown"
        if operation["tags"] not in (["Probes"], ["Metadata"]):
            assert any(status.startswith("4") for status in answers), name
            assert "503" in answers, name


async def test_every_operation_names_the_answers_to_what_is_too_long_or_too_slow(shared: Running) -> None:
    for name, operation in operations(await document(shared)):
        answers = operation["responses"]
        assert set(answers["431"]["content"]) == {"application/problem+json"}, name
        kinds = {"application/problem+json"}
        if "requestBody" in operation:
            kinds |= set(answers["413"]["content"])
        assert set(answers["408"]["content"]) == kinds, name


def _has_examples(media: dict[str, Any], schema: dict[str, Any]) -> bool:
    reference = media["schema"].get("$ref", "")
    return "example" in json.dumps(schema["components"]["schemas"].get(reference.rpartition("/")[2], {}))


async def test_every_reference_and_every_security_scheme_is_there(shared: Running) -> None:
    schema = await document(shared)
    text = json.dumps(schema)
    for reference in re.findall(r'"#/components/(\w+)/(\w+)"', text):
        assert reference[1] in schema["components"][reference[0]]
    for name, operation in operations(schema):
        for way in operation.get("security", []):
            assert way.keys() <= schema["components"]["securitySchemes"].keys(), name


async def test_the_document_names_every_path_that_is_served(shared: Running) -> None:
    paths = set((await document(shared))["paths"])
    assert paths >= {
        *("/oauth/token", "/oauth/introspect", "/oauth/revoke", "/tokeninfo", "/auth", "/.well-known/jwks.json"),
        *("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/healthz", "/readyz"),
    }


async def test_each_command_that_is_shown_runs(shared: Running) -> None:
    schema = await document(shared)
    environment = {
        "PATH": os.environ["PATH"],
        "CLIENT_ID": "team.secret",
        "CLIENT_SECRET": quote_plus(SECRET),  # form-encoded, as the document says
        "ASSERTION": assertion(APP, "team.app"),
        "TOKEN": await get_token(shared.http),
    }
    ran = []
    for name, operation in operations(schema):
        for command in COMMAND.findall(operation.get("description", "")):
            if "$KUBERNETES_TOKEN" in command or "$REGISTRATION" in command or "$INITIAL" in command:
                continue  # these need a cluster
            shown = command.replace(ISSUER, shared.process.url)
            assert shared.process.url in shown, f"{name}: the command does not name the service"
            process = await asyncio.create_subprocess_exec(
                "bash", "-c", shown, env=environment, stdout=-1, stderr=-1, stdin=asyncio.subprocess.DEVNULL
            )
            output, errors = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode == 0, (name, command, output, errors)
            ran.append(name)
    assert len(ran) == 11


async def test_each_command_of_the_page_about_tokens_runs(shared: Running) -> None:
    scripts = [block.text for block in blocks(PROJECT / "docs" / "tokens.md") if RUN_BY.fullmatch(block.mark)]
    assert len(scripts) == 3
    environment = {
        "PATH": os.environ["PATH"],
        "KEYTURN_URL": shared.process.url,
        "CLIENT_ID": "team.secret",
        "CLIENT_SECRET": quote_plus(SECRET),
    }
    answers = []
    for script in scripts:
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", script, env=environment, stdout=-1, stderr=-1, stdin=asyncio.subprocess.DEVNULL
        )
        output, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, (script, output, errors)
        answers.append(output)
        if len(answers) == 1:
            environment["TOKEN"] = json.loads(output)["access_token"]
    assert json.loads(answers[1])["scope"] == "orders:read"
    bearer = {"Authorization": f"Bearer {environment['TOKEN']}"}
    assert (await shared.http.get("/tokeninfo", headers=bearer)).status_code == 401


async def test_the_examples_of_bodies_are_read_by_the_endpoints(shared: Running) -> None:
    schema = await document(shared)
    for path in ("/oauth/token", "/oauth/introspect", "/oauth/revoke"):
        body = schema["paths"][path]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]
        known = schema["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]["properties"]
        for example in body["examples"].values():
            assert example["value"].keys() <= known.keys()
            answer = await shared.http.post(path, data=example["value"])
            # Well-formed, and of nobody that this service knows.
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_the_page_loads_nothing_from_elsewhere_and_may_not(shared: Running) -> None:
    page = await shared.http.get("/docs")
    policy = dict(part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page.text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|\bstyle=", page.text)
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"(?: integrity=\"([^\"]+)\")?", page.text)
    assert {name.rpartition(".")[2] for name, _ in loaded} == {"js", "css", "png", "json"}
    for name, integrity in loaded:
        asset = await shared.http.get(urljoin("/docs", name))
        assert asset.status_code == 200
        if name.endswith((".js", ".css")):
            digest = base64.b64encode(hashlib.sha384(asset.content).digest()).decode()
            assert integrity == f"sha384-{digest}"
            assert asset.headers["content-type"].partition(";")[0] == (
                "text/css" if name.endswith("css") else "text/javascript"
            )


@pytest.mark.parametrize(
    "path", ["/docs/x", "/docs/../settings.py", "/docs/%2e%2e/__init__.py", "/docs/swagger-ui.css/x", "/redoc"]
)
async def test_nothing_else_lies_below_the_page(shared: Running, path: str) -> None:
    assert (await shared.http.get(path)).status_code == 404


async def test_no_parameter_chooses_what_is_served(shared: Running) -> None:
    plain = await shared.http.get("/docs/favicon-32x32.png")
    asked = await shared.http.get("/docs/favicon-32x32.png?name=__init__.py&media_type=text/html")
    assert (asked.content, asked.headers["content-type"]) == (plain.content, "image/png")


async def test_a_browser_shows_every_operation_and_complains_of_nothing(shared: Running) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "the page is looked at with chromium: install it (Debian: apt-get install chromium)"
    process = await asyncio.create_subprocess_exec(
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr", "--log-level=0"),
        *("--virtual-time-budget=20000", "--dump-dom", f"{shared.process.url}/docs"),
        stdout=-1,
        stderr=-1,
        stdin=asyncio.subprocess.DEVNULL,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 120)
    dom = output.decode("utf-8", "replace")
    complaints = [line for line in errors.decode("utf-8", "replace").splitlines() if "CONSOLE" in line]
    assert complaints == []
    shown = set(re.findall(r'data-path="([^"]+)"', dom))
    assert shown == set((await document(shared))["paths"])
