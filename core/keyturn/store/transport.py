"""How PostgreSQL is reached where the URL does not say it: the password on its own, and TLS."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

TlsMode = Literal["disable", "require", "verify-full"]

DISABLE: Final = "disable"
REQUIRE: Final = "require"
VERIFY_FULL: Final = "verify-full"


@dataclass(frozen=True, slots=True)
class Transport:
    """`tls` as libpq's sslmode: None leaves it to the URL, `require` encrypts without looking at who answers, `verify-full` checks
    the server's certificate and name against `ca_file` (PEM), or without one against what the machine trusts.
    """

    password: str | None = field(default=None, repr=False)
    tls: TlsMode | None = None
    ca_file: Path | None = None

    def arguments(self) -> dict[str, Any]:
        """What the driver's `connect` is called with besides the URL. The file is read anew each time: it may be renewed.

        Raises OSError when the file cannot be read, `ssl.SSLError` when it holds no certificate.
        """
        arguments: dict[str, Any] = {}
        if self.password is not None:
            arguments["password"] = self.password
        if self.tls == DISABLE:
            arguments["ssl"] = False
        elif self.tls is not None:
            context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
            if self.tls == REQUIRE:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            arguments["ssl"] = context
        return arguments
