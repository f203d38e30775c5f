"""Sends prepared checks by gRPC, and writes one line of JSON as the load generator does.

A process of its own, so that what sending costs is no part of what answering costs. As Envoy does, it keeps few connections with
many calls on each.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import uvloop
from envoy.service.auth.v3 import external_auth_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

METHOD = "/envoy.service.auth.v3.Authorization/Check"
_CALL_SECONDS = 10.0


def read_messages(content: bytes) -> list[bytes]:
    """Split a file of messages, each with its length in decimal and a line feed in front."""
    messages = []
    at = 0
    while at < len(content):
        end = content.index(b"\n", at)
        length = int(content[at:end])
        messages.append(content[end + 1 : end + 1 + length])
        at = end + 1 + length
    return messages


def quantile(latencies: Sequence[float], share: float) -> float:
    """Return the smallest latency, in ms, that at least this share of all does not exceed."""
    ordered = sorted(latencies)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] * 1000 if ordered else 0.0


async def measure(address: str, messages: list[bytes], *, calls: int, channels: int, seconds: float) -> dict[str, Any]:
    """Keep `calls` under way on `channels` connections, and report."""
    latencies: list[float] = []
    bad: list[str] = []
    source: Iterator[bytes] = itertools.cycle(messages)
    options = (("grpc.use_local_subchannel_pool", 1),)
    opened = [grpc.aio.insecure_channel(address, options=options) for _ in range(channels)]
    begin = time.monotonic()

    async def caller(channel: Any) -> None:
        check = channel.unary_unary(METHOD)
        while time.monotonic() - begin < seconds:
            sent = time.monotonic()
            try:
                answer = await check(next(source), timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                bad.append(str(error.details()))
                continue
            latencies.append(time.monotonic() - sent)
            # A CheckResponse that is OK begins with an empty status; looking closer costs more than the call.
            if not answer.startswith(b"\x0a\x00"):
                bad.append(str(external_auth_pb2.CheckResponse.FromString(answer)))

    await asyncio.gather(*(caller(opened[number % channels]) for number in range(calls)))
    took = time.monotonic() - begin
    for channel in opened:
        await channel.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "answered": len(latencies),
        "unexpected": len(bad),
        "broken": 0,
        "seconds": took,
        "p50_ms": quantile(latencies, 0.5),
        "p99_ms": quantile(latencies, 0.99),
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "ran_out": False,
        "sample": bad[0][:600] if bad else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-address", required=True)
    parser.add_argument("-requests", required=True, type=Path)
    parser.add_argument("-connections", type=int, default=32)
    parser.add_argument("-channels", type=int, default=4)
    parser.add_argument("-seconds", type=float, default=5.0)
    given = parser.parse_args()
    messages = read_messages(given.requests.read_bytes())
    work = measure(
        given.address, messages, calls=given.connections, channels=given.channels, seconds=min(given.seconds, 60.0)
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(runner.run(work), sys.stdout)


if __name__ == "__main__":
    main()
