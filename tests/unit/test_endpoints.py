"""Where callers reach the service."""

import pytest

from keyturn.endpoints import base_url, token_endpoint
from keyturn_api.settings import ApiSettings
from keyturn_operator.settings import OperatorSettings


@pytest.mark.parametrize(
    ("issuer", "public_url", "prefix", "base"),
    [
        pytest.param("https://i.example", None, "", "https://i.example", id="the issuer"),
        pytest.param("https://i.example/", None, "", "https://i.example", id="the issuer without its slash"),
        pytest.param("https://i.example", None, "/x", "https://i.example/x", id="the issuer with the prefix"),
        pytest.param("https://i.example/t/x", None, "/x", "https://i.example/t/x", id="an issuer that ends with it"),
        pytest.param(
            "https://i.example", "https://p.example/", "/x", "https://p.example", id="the public URL as it is"
        ),
    ],
)
def test_both_programs_tell_the_same_place(issuer: str, public_url: str | None, prefix: str, base: str) -> None:
    assert base_url(issuer, public_url, prefix) == base
    values = {"issuer": issuer, "public_url": public_url, "service_prefix": prefix, "store_url": "memory://"}
    assert ApiSettings.model_validate(values).token_endpoint == token_endpoint(base)
    operator = {
        "KEYTURN_ISSUER": issuer,
        "KEYTURN_PUBLIC_URL": public_url,
        "KEYTURN_SERVICE_PREFIX": prefix,
        "KEYTURN_STORE_URL": "memory://",
        "KEYTURN_NAMESPACES": "team",
    }
    assert OperatorSettings.model_validate(operator).token_endpoint == token_endpoint(base)
