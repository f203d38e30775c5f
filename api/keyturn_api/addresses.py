"""Whose request it is, as an address: the TCP peer, or what trusted proxies say of the hop before them."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal

from keyturn_api.http import Scope

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
ForwardedHeader = Literal["x-forwarded-for", "forwarded"]

# More proxies in a row do not exist; more entries are a caller's invention.
_MAX_HOPS: Final = 16
_MAX_BYTES: Final = 4096
# RFC 7239 section 4: parameters of one element, values as tokens or quoted strings. No backtracking: each part ends before the next begins.
_PARAMETER: Final = re.compile(rb"""([!#$%&'*+.^_`|~0-9A-Za-z-]++)=("(?:[^"\\]|\\.)*+"|[^";,\s]++)""")
_HOST_BITS: Final = 64


class CallerAddresses:
    """Tells the address of a request's caller.

    The peer counts, unless it is a trusted proxy: then the chosen header is read from its end, for as long as the hop that wrote an entry
    is trusted too. What stands before that may come from the caller. An entry that is no address ends the walk at the last trusted hop.
    Only one header is read: a proxy that writes one of them hands the other on as it came.
    """

    def __init__(self, trusted: Sequence[Network], chosen: ForwardedHeader = "x-forwarded-for") -> None:
        self._trusted = tuple(trusted)
        self._chosen = chosen.encode()

    def of(self, scope: Scope) -> str:
        """The caller's address as text, in one form; empty where the connection has none (a Unix socket)."""
        client = scope.get("client")
        current = _parse(client[0]) if client else None
        if current is None:
            return ""
        if self._trusted and self._is_trusted(current):
            lines = [value for name, value in scope["headers"] if name == self._chosen]
            raw = b",".join(lines)
            if len(raw) <= _MAX_BYTES:
                current = self._walk(current, raw)
        return str(current)

    def settle(self, scope: Scope) -> None:
        """Puts the caller's address in the place of the peer's, for everything that looks at the request afterwards."""
        client = scope.get("client")
        if client and self._trusted:
            scope["client"] = (self.of(scope), client[1])

    def _walk(self, current: Address, raw: bytes) -> Address:
        entries = _forwarded(raw) if self._chosen == b"forwarded" else _listed(raw)
        for hop, entry in enumerate(entries):
            if hop >= _MAX_HOPS or not self._is_trusted(current):
                break
            before = None if entry is None else _parse(entry)
            if before is None:
                break
            current = before
        return current

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def caller_address(scope: Scope) -> str:
    """The address that was settled for this request; empty where the connection has none."""
    client = scope.get("client")
    return client[0] if client else ""


def counted(address: str) -> str:
    """What a limit counts by: the address, and of IPv6 the network of 64 bits, since one subscriber has all of its addresses."""
    if ":" not in address:
        return address
    parsed = _parse(address)
    if not isinstance(parsed, IPv6Address) or parsed.is_loopback or parsed.is_link_local:
        return address
    return str(IPv6Address(int(parsed) >> _HOST_BITS << _HOST_BITS))


def _listed(raw: bytes) -> Iterator[str | None]:
    for entry in reversed(raw.split(b",")):
        yield entry.strip().decode("latin-1")


def _forwarded(raw: bytes) -> Iterator[str | None]:
    # RFC 7239 section 4: a comma or semicolon may stand within quotes, so elements are read from the start.
    elements: list[str | None] = []
    for element in _elements(raw):
        values = [match[2] for match in _PARAMETER.finditer(element) if match[1].lower() == b"for"]
        elements.append(values[0].strip(b'"').decode("latin-1") if len(values) == 1 else None)
    yield from reversed(elements)


def _elements(raw: bytes) -> Iterator[bytes]:
    begin, quoted, escaped = 0, False, False
    for position, byte in enumerate(raw):
        if escaped:
            escaped = False
        elif quoted and byte == 0x5C:
            escaped = True
        elif byte == 0x22:
            quoted = not quoted
        elif byte == 0x2C and not quoted:
            yield raw[begin:position]
            begin = position + 1
    yield raw[begin:]


def _parse(text: str) -> Address | None:
    """An address, with or without a port; IPv4 within IPv6 as IPv4. None where it is none."""
    host = text
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port.removeprefix(":"))):
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not _is_port(port):
            return None
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5
