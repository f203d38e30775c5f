"""The guide for those who move: every setting, endpoint and answer of the reference stands in it, and every setting of ours exists."""

import re

import pytest
from pydantic_settings import BaseSettings

from keyturn.settings_table import variable
from keyturn_api.settings import ApiSettings
from keyturn_operator.settings import OperatorSettings
from tests.documents import PROJECT

PAGE = (PROJECT / "docs" / "migrate.md").read_text(encoding="utf-8")
PROGRAMS: tuple[type[BaseSettings], ...] = (ApiSettings, OperatorSettings)

# The reference's own names, from its public documentation.
SETTINGS = {
    *("LOG_LEVEL", "HTTP_PORT", "SERVICE_PREFIX", "DELAY_SHUTDOWN_SECONDS", "CRUD_CLIENT_BASE_URL"),
    *("CLIENT_SECRET_HASH_COST", "PRIVATE_RSA_KEY_FILE_PATH", "PRIVATE_KEY_PASSWORD", "PRIVATE_RSA_KEY_ID"),
    *("MIA_JWT_ISSUER", "MIA_JWT_EXPIRES_IN", "REQUIRED_AUDIENCE_IN_TOKEN_REQUEST", "ACCEPTED_AUDIENCES"),
    *("OPENID_CONFIG_PATH", "REDIS_*", "CLOCK_SKEW_SECONDS"),
}
ENDPOINTS = (
    "POST /register",
    "POST /clients",
    "POST /oauth/token",
    "GET /tokeninfo",
    "GET /.well-known/jwks.json",
    "GET /.well-known/openid-configuration",
    "/auth",
)
ANSWERS = (
    *("client_id_issued_at", "client_secret_expires_at: 0", "access_token", "token_type", "expires_in", "lastLogin"),
    *("mia-allowed: 1", "mia-allowed: 0", "mia-userid", "mia-groups", "mia-userproperties"),
    *("RSA256", "__STATE__", "requested_audiences", "allowedCustomClaims", "backofficeAuthorization"),
)


def references() -> dict[str, str]:
    """Each setting of the reference that a program names, with the variable that stands for it."""
    named: dict[str, str] = {}
    for program in PROGRAMS:
        for name, field in program.model_fields.items():
            extra = field.json_schema_extra
            assert isinstance(extra, dict)
            for one in str(extra["reference"]).split(","):
                if one.strip():
                    named[one.strip()] = variable(program.model_config.get("env_prefix", ""), name, field)
    return named


def variables() -> set[str]:
    return {
        variable(program.model_config.get("env_prefix", ""), name, field)
        for program in PROGRAMS
        for name, field in program.model_fields.items()
    }


def rows() -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")
    ]


def test_every_setting_of_the_reference_has_an_equivalent_in_a_program() -> None:
    assert references().keys() >= SETTINGS


@pytest.mark.parametrize("name", sorted(SETTINGS | references().keys()))
def test_a_setting_of_the_reference_stands_in_a_row_beside_what_it_becomes(name: str) -> None:
    beside = [row[1] for row in rows() if f"`{name}`" in row[0]]
    assert beside
    if name.startswith("PRIVATE_"):
        # The key is imported by the object that names it, not by a setting.
        assert "SigningKey" in beside[0]
    else:
        assert any(f"`{references()[name]}" in one for one in beside)


def test_every_setting_of_ours_that_is_named_exists() -> None:
    named = set(re.findall(r"KEYTURN_[A-Z_]+", PAGE))
    assert len(named) > 20
    assert named <= variables()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_of_the_reference_has_a_row(endpoint: str) -> None:
    assert [row for row in rows() if f"`{endpoint}`" in row[0]]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_of_the_reference_has_a_row(answer: str) -> None:
    assert [row for row in rows() if re.search(rf"\b{re.escape(answer)}", row[0])]


@pytest.mark.parametrize("anchor", sorted(set(re.findall(r"\]\((?:[\w.-]+\.md)?#([\w-]+)\)", PAGE))))
def test_a_link_into_a_page_leads_to_a_heading(anchor: str) -> None:
    pages = PAGE + (PROJECT / "docs" / "access-rules.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", pages, re.MULTILINE)
    assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
