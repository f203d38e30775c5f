"""The addresses of Keyturn in the gateways' objects are those of the Service that the chart makes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.rendering import objects, render_values
from tests.crd_schemas import PROJECT

# The first one waits for Helm where that has to be built.
pytestmark = pytest.mark.timeout(1500)

FILES = sorted((PROJECT / "docs" / "gateways" / "kubernetes").glob("*.yaml"))
_URL = re.compile(r"(https?)://([a-z-]+)\.keyturn\.svc\.cluster\.local(?::(\d+))?/auth")
# It names the provider, which stands in the other file of Istio's.
WITHOUT_ADDRESS = {"istio.yaml"}


def addresses(part: Any) -> Iterator[tuple[str, int]]:
    """Names and ports of Services in Keyturn's namespace, wherever they stand in an object."""
    if isinstance(part, str):
        for scheme, name, port in _URL.findall(part):
            yield name, int(port) if port else {"http": 80, "https": 443}[scheme]
    elif isinstance(part, list):
        for one in part:
            yield from addresses(one)
    elif isinstance(part, dict):
        if part.get("namespace") == "keyturn" and "port" in part:
            yield part["name"], part["port"]
        if str(part.get("service", "")).endswith(".keyturn.svc.cluster.local"):
            yield part["service"].partition(".")[0], part["port"]
        for one in part.values():
            yield from addresses(one)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_the_service_of_the_chart_is_there_on_the_port_that_is_asked(file: Path, tmp_path: Path) -> None:
    text = file.read_text()
    asked = set(addresses(list(yaml.safe_load_all(text))))
    assert bool(asked) == (file.name not in WITHOUT_ADDRESS)
    stated = re.search(r"KEYTURN_GATEWAY_PROFILE=([a-z-]+)", text)
    profile = "envoy-grpc" if stated is None else stated[1]
    listens = {
        (one["metadata"]["name"], port["port"])
        for one in objects(render_values(tmp_path, {"api": {"gatewayProfile": profile}}))
        if one["kind"] == "Service"
        for port in one["spec"]["ports"]
    }
    assert asked <= listens
