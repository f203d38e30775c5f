"""TLS of the service's own: certificate and key from mounted files, taken anew when these change."""

import asyncio
import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography import x509

from keyturn_api.logs import get_logger

_log = get_logger("tls")
_POLL: Final = 1.0

Mark = tuple[tuple[str, int, int], ...]


class ServerCertificate:
    """The context of all connections. A changed pair serves those that come after; a damaged one changes nothing and is logged."""

    def __init__(self, certificate: Path, key: Path, *, on_end: Callable[[float], None] = lambda _: None) -> None:
        """Raises OSError (ssl.SSLError among them) for files that are not there or do not fit each other.

        `on_end`: told when each certificate that is taken ends, in seconds since the epoch.
        """
        self._on_end = on_end
        self._certificate, self._key = certificate, key
        self.context = _context()
        self._mark: Mark | None = None
        self._load(*self._resolved())

    async def run(self) -> None:
        """Looks once a second, forever."""
        while True:
            await asyncio.sleep(_POLL)
            self.look()

    def look(self) -> None:
        """Takes the files anew if they are others than before."""
        try:
            certificate, key = self._resolved()
            if _mark(certificate, key) == self._mark:
                return
            # First on trial: a pair that does not fit would leave the context without any.
            _context().load_cert_chain(certificate, key, password=_no_password)
            self._load(certificate, key)
        except OSError as error:
            _log.warning("tls_certificate_unusable", cause=f"{type(error).__name__}: {error.strerror or error}")

    def _resolved(self) -> tuple[Path, Path]:
        # A mounted Secret changes by a swap of one symlink: both names are followed before either is read, so both are of one version.
        return Path(os.path.realpath(self._certificate)), Path(os.path.realpath(self._key))

    def _load(self, certificate: Path, key: Path) -> None:
        mark = _mark(certificate, key)
        self.context.load_cert_chain(certificate, key, password=_no_password)
        self._mark = mark
        ends = None
        with suppress(ValueError):
            end = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
            ends = end.isoformat()
            self._on_end(end.timestamp())
        _log.info("tls_certificate_loaded", not_after=ends)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 9325 section 3.1.1: nothing older.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    """Asked for when the key is encrypted: nobody sits at a terminal, so it is refused."""
    raise PermissionError("the key is encrypted")


def _mark(*paths: Path) -> Mark:
    stats = [(str(path), path.stat()) for path in paths]
    return tuple((name, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)
