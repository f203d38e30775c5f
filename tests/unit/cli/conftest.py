"""A client's key file and a token service for the `token` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyturn.jose.signing import PrivateKey, generate

from .command import TokenService

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def client_key() -> PrivateKey:
    return generate("ES256", 256)


@pytest.fixture
def key_file(tmp_path: Path, client_key: PrivateKey) -> str:
    path = tmp_path / "billing.pem"
    path.write_bytes(client_key.to_pem())
    return str(path)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> TokenService:
    service = TokenService()
    monkeypatch.setattr("keyturn_cli.commands.token.open_client", service.open_client)
    return service


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No command reads or writes the cache of whoever runs the tests."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path
