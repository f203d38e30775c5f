"""One service for all libraries, a second one with the audience that older libraries send, and the programs in other languages."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from keyturn_dev.errors import DevError
from tests.api.installation import Installation
from tests.realclients.service import Service, filled_installation, running_service
from tests.realclients.toolchains import Program, go_program, java_program, node_program
from tests.realclients.trust import Trust, make_trust


@pytest.fixture(scope="session")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return make_trust(tmp_path_factory.mktemp("trust"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def clients(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with filled_installation(tmp_path_factory.mktemp("realclients")) as installation:
        yield installation


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(clients: Installation, trust: Trust) -> AsyncIterator[Service]:
    """As it comes: an assertion's audience is the issuer."""
    async with running_service(clients, trust) as one:
        yield one


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lenient(clients: Installation, trust: Trust) -> AsyncIterator[Service]:
    """The token endpoint's URL counts as an assertion's audience too."""
    async with running_service(clients, trust, token_endpoint_as_audience="true") as one:
        yield one


@pytest.fixture(scope="session")
def node(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Program:
    try:
        return node_program(tmp_path_factory.mktemp("node"), service.environ)
    except DevError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def go(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Program:
    try:
        return go_program(tmp_path_factory.mktemp("go"), service.environ)
    except DevError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def java(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Program:
    try:
        return java_program(tmp_path_factory.mktemp("java"), service.environ, *service.java_properties)
    except DevError as error:
        pytest.fail(str(error))
