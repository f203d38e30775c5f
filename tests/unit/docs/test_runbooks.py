"""The words in the alerts' runbooks that a reader will look for are there: settings, reasons, conditions, lines of the log."""

import re
from functools import cache
from pathlib import Path

import pytest

from keyturn.settings_table import variable
from keyturn_api.settings import ApiSettings
from keyturn_operator.settings import OperatorSettings
from tests.documents import PROJECT, name_of

PAGES = sorted((PROJECT / "docs" / "runbooks").glob("*.md"))
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
# Constants of reasons and the names of log events are one word each.
_WORD = re.compile(r"[A-Z][a-z]+([A-Z][a-z]+)+|[a-z]+(_[a-z]+)+")
# The language of the rules and of Kubernetes.
_ELSEWHERE = {"request_id"}


@cache
def settings() -> set[str]:
    return {
        variable(program.model_config.get("env_prefix", ""), name, field)
        for program in (ApiSettings, OperatorSettings)
        for name, field in program.model_fields.items()
    }


@cache
def sources() -> str:
    files = [path for root in ("core", "operator", "api", "crds") for path in (PROJECT / root).rglob("*.[py]*")]
    return "".join(path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".yaml"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_runbook_names_is_there(page: Path) -> None:
    named = set(_CODE.findall(page.read_text(encoding="utf-8")))
    variables = {one for one in named if one.startswith("KEYTURN_")}
    assert variables <= settings()
    words = {one for one in named if _WORD.fullmatch(one)} - _ELSEWHERE
    assert {one for one in words if f'"{one}"' not in sources() and f"{one}:" not in sources()} == set()
