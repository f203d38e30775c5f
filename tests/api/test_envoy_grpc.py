"""Envoy's checks by gRPC against real processes: every worker answers, health follows readiness, a port that is taken ends the start."""

import asyncio
import datetime
import socket
import time
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from envoy.service.auth.v3 import external_auth_pb2
from grpc_health.v1 import health_pb2

from keyturn_dev.certificates import Authority
from tests.api.conftest import APP
from tests.api.installation import ApiProcess, Installation, assertion, form, free_port
from tests.api.test_replicas import soon

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROFILE = {"gateway_profile": "envoy-grpc"}
SERVICE = "envoy.service.auth.v3.Authorization"


async def call(port: int, method: str, request: Any, answer: Any, *, channels: int = 1) -> list[Any]:
    """One call on each of several connections."""
    answers = []
    for _ in range(channels):
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            sent = channel.unary_unary(
                method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
            )
            answers.append(await sent(request, timeout=10))
    return answers


async def check(port: int, path: str, token: str | None, *, channels: int = 1) -> list[Any]:
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host = "GET", path, "shop.example"
    if token is not None:
        http.headers["authorization"] = f"Bearer {token}"
    return await call(port, f"/{SERVICE}/Check", request, external_auth_pb2.CheckResponse, channels=channels)


async def health(port: int, service: str = "") -> Any:
    request = health_pb2.HealthCheckRequest(service=service)
    return (await call(port, "/grpc.health.v1.Health/Check", request, health_pb2.HealthCheckResponse))[0].status


async def token(process: ApiProcess) -> str:
    async with httpx2.AsyncClient(base_url=process.url) as http:
        answer = await http.post("/oauth/token", data=form(assertion(APP, "team.app")))
    access: str = answer.json()["access_token"]
    return access


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_every_worker_answers_checks(installation: Installation, workers: str) -> None:
    port = free_port()
    process = await installation.start(workers=workers, grpc_port=str(port), **PROFILE).ready()
    access = await token(process)
    # The kernel spreads connections: with sixteen, all on one of two workers has a chance of one in 32,768.
    allowed = await check(port, "/orders/7", access, channels=16)
    assert {each.status.code for each in allowed} == {0}
    assert {each.header.key: each.header.value for each in allowed[0].ok_response.headers}["mia-clientid"] == "team.app"
    denied = await check(port, "/orders/7", None)
    assert denied[0].denied_response.status.code == 401
    for service in ("", SERVICE):

        async def serves(service: str = service) -> bool:
            return bool(await health(port, service) == health_pb2.HealthCheckResponse.SERVING)

        # Each worker tells it at intervals.
        await soon(serves, within=5)
    async with httpx2.AsyncClient(base_url=process.url) as http:
        assert (await http.get("/auth/open")).status_code == 403, "under this profile nothing is asked over HTTP"
    assert process.end() == 0


async def test_health_is_not_serving_before_the_end(installation: Installation) -> None:
    port = free_port()
    process = await installation.start(grpc_port=str(port), shutdown_delay="5", **PROFILE).ready()
    process.process.terminate()
    statuses: list[Any] = []
    while not statuses or statuses[-1] == health_pb2.HealthCheckResponse.SERVING:
        assert len(statuses) < 100, "health stayed SERVING while the process was ending"
        statuses.append(await health(port))
    assert statuses[-1] == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await check(port, "/open", None))[0].status.code == 0, "meanwhile checks are still answered"
    assert process.end() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_that_is_taken_ends_the_start(installation: Installation, workers: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = installation.start(workers=workers, grpc_port=str(taken.getsockname()[1]), **PROFILE)
        assert process.process.wait(30) == 1
    assert "cannot_start" in process.output()


async def test_a_message_that_is_none_is_no_decision(installation: Installation) -> None:
    port = free_port()
    await installation.start(grpc_port=str(port), **PROFILE).ready()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        junk = channel.unary_unary(f"/{SERVICE}/Check")
        with pytest.raises(grpc.aio.AioRpcError):
            await junk(b"\xff\xff\xff", timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await junk(b"\x0a" + b"\xff" * 2_000_000, timeout=10)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await check(port, "/open", None))[0].status.code == 0


async def test_with_a_certificate_checks_are_encrypted_and_a_renewed_one_is_taken(
    installation: Installation, tmp_path: Path
) -> None:
    port = free_port()
    files = tmp_path / "tls.crt", tmp_path / "tls.key"

    def renew() -> bytes:
        authority = Authority("renewed", datetime.datetime.now(datetime.UTC))
        pair = authority.issue("localhost", names=("localhost",))
        files[0].write_bytes(pair.certificate)
        files[1].write_bytes(pair.key)
        return authority.certificate

    async def health_over(certificate: bytes) -> Any:
        credentials = grpc.ssl_channel_credentials(certificate)
        # Connections are made anew, or the renewed certificate would not be seen.
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options) as channel:
            sent = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            return (await sent(health_pb2.HealthCheckRequest(), timeout=10)).status

    first = renew()
    tls = {"tls_cert_file": str(files[0]), "tls_key_file": str(files[1])}
    process = installation.start(grpc_port=str(port), **PROFILE, **tls)
    end = time.monotonic() + 30
    while "serving_grpc" not in process.output():
        assert time.monotonic() < end, process.output()
        await asyncio.sleep(0.05)
    known = (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)
    assert await health_over(first) in known
    with pytest.raises(grpc.aio.AioRpcError):
        await health(port)
    second = renew()
    assert await health_over(second) in known
    with pytest.raises(grpc.aio.AioRpcError):
        await health_over(first)
