"""The page of settings says what the programs read, no more and no less."""

import os

import pytest
from pydantic_settings import BaseSettings

from keyturn.settings_table import render, variable
from keyturn_api.settings import ApiSettings
from keyturn_operator.settings import OperatorSettings
from tests.documents import PROJECT

PAGE = PROJECT / "docs" / "settings.md"
END = "<!-- end of settings -->"
PROGRAMS: dict[str, type[BaseSettings]] = {"keyturn-api": ApiSettings, "keyturn-operator": OperatorSettings}


def replaced(page: str, program: str, table: str) -> str:
    """The page with another table for a program."""
    before, begin, rest = page.partition(f"<!-- settings of {program} -->\n")
    _, end, after = rest.partition(END)
    assert begin
    assert end
    return f"{before}{begin}{table}{end}{after}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_page_holds_the_current_table_of(program: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    current = replaced(page, program, render(PROGRAMS[program]))
    if os.environ.get("UPDATE_GOLDEN") == "1":
        PAGE.write_text(current, encoding="utf-8")
        page = current
    assert page == current, "docs/settings.md differs from the programs' settings: make golden"


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_setting_is_described_in_a_sentence(program: str) -> None:
    undescribed = [
        name
        for name, field in PROGRAMS[program].model_fields.items()
        if not (field.description or "").endswith(".") or "|" in (field.description or "")
    ]
    assert undescribed == []


def test_a_variable_that_both_programs_read_has_one_default_and_one_equivalent() -> None:
    def shared(settings: type[BaseSettings]) -> dict[str, tuple[object, object]]:
        prefix = settings.model_config.get("env_prefix", "")
        return {
            variable(prefix, name, field): (field.default, field.json_schema_extra)
            for name, field in settings.model_fields.items()
        }

    api, operator = shared(ApiSettings), shared(OperatorSettings)
    both = api.keys() & operator.keys()
    assert {"KEYTURN_STORE_URL", "KEYTURN_SIGNING_KEY"} <= both
    assert {name: api[name] for name in both} == {name: operator[name] for name in both}
