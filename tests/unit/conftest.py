"""Unit tests use no network."""

import pytest
from pytest_socket import disable_socket


@pytest.fixture(autouse=True)
def no_network() -> None:
    """Any socket but a Unix one (the event loop's own) fails the test."""
    disable_socket(allow_unix_socket=True)
