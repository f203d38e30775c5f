"""Which addresses the operator connects to when somebody else's object names a host: public ones, unless the installation says more.

Without this a ClientCredential could make the operator ask what only the cluster's inside can reach (server-side request forgery).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 6052 section 2.1: an address of this prefix leads to the IPv4 address in its last 32 bits.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_MAX_ADDRESSES: Final = 16


class AddressRefused(OSError):
    """A host has an address that the operator must not connect to. The text names the host, not the address."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """`allowed`: networks that may be reached although they are not public; `cluster`: the pods' and services' own, never public."""

    allowed: tuple[Network, ...] = ()
    cluster: tuple[Network, ...] = ()

    def permits(self, text: str) -> bool:
        """Whether this address may be connected to. What is no address may not."""
        try:
            address: Address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            return False
        # Every address that this one leads to must be permitted: an IPv6 form must open no way to an IPv4 address that is closed.
        return all(self._permits(one) for one in _leads_to(address))

    def _permits(self, address: Address) -> bool:
        if any(address in network for network in self.allowed):
            return True
        if any(address in network for network in self.cluster):
            return False
        # RFC 3879: site-local addresses are deprecated, and private where they are in use still.
        site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
        closed = (
            site_local or address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
        )
        return address.is_global and not (closed or address.is_private or address.is_link_local)


def _leads_to(address: Address) -> list[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64:
        # What a network without IPv4 reaches the public IPv4 hosts by.
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    inner: list[Address] = []
    if address.sixtofour is not None:
        inner.append(address.sixtofour)
    if address.teredo is not None:
        inner += address.teredo
    return [address, *inner]


class CheckedResolver(AbstractResolver):
    """Resolves names and refuses a host of which any address is not permitted. What it returns is what is connected to: there is no second
    look-up that could answer otherwise."""

    def __init__(self, policy: AddressPolicy, pool: ThreadPoolExecutor) -> None:
        self._policy = policy
        self._pool = pool

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises AddressRefused; OSError where the name is not known."""
        loop = asyncio.get_running_loop()
        # In threads of its own: a name server that does not answer must hold up nothing else.
        found = await loop.run_in_executor(self._pool, _look_up, host, port, family)
        return [self._checked(host, port, one_family, address) for one_family, address in found]

    async def close(self) -> None:
        """Nothing is held."""

    def _checked(self, host: str, port: int, family: int, address: str) -> ResolveResult:
        if not self._policy.permits(address):
            raise AddressRefused(f"{host} has an address that is not public, or belongs to the cluster")
        return ResolveResult(
            hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
        )


def _look_up(host: str, port: int, family: int) -> Sequence[tuple[int, str]]:
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return [(one[0], str(one[4][0])) for one in found[:_MAX_ADDRESSES]]
