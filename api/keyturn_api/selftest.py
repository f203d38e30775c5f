"""`python -m keyturn_api.selftest URL DIRECTORY [CERTIFICATE]`: gets a token as the client whose Secret is mounted, and has it confirmed.

For `helm test`, in the API's own image: the way of any client, over the installation's Service. Where that speaks TLS the certificate
which it must show is named: it may be made out to another name than the Service's, by an authority that nobody here knows.
"""

import base64
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

# An installation that was made a moment ago still makes its keys and starts its pods.
_PATIENCE: Final = 120.0
_INTERVAL: Final = 2.0
_TIMEOUT: Final = 10.0
_END: Final = "-----END CERTIFICATE-----"


class Failed(Exception):
    """What did not work, in one sentence."""


def read_credential(directory: Path) -> tuple[str, str]:
    """Client id and secret from a Secret that the operator made, mounted as a directory. Raises `Failed` when one is missing."""
    try:
        return (directory / "client_id").read_text(encoding="utf-8"), (directory / "client_secret").read_text("utf-8")
    except OSError as error:
        raise Failed(f"the client's Secret is not complete: {error.strerror} {Path(error.filename).name}") from None


def basic(client_id: str, secret: str) -> str:
    """RFC 6749 section 2.3.1: both form-encoded before they are joined."""
    joined = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return "Basic " + base64.b64encode(joined.encode()).decode("ascii")


def trusting(certificate: Path) -> ssl.SSLContext:
    """Trusts the first certificate of a PEM file and nothing else, whatever name it bears. Raises `Failed` when there is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # RFC 5280 section 6.1 leaves the choice of anchors to who verifies: here it is a server's own certificate.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        first, end, _ = certificate.read_text(encoding="ascii").partition(_END)
        context.load_verify_locations(cadata=first + end)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise Failed(f"the API's certificate {certificate.name} cannot be read: {error}") from None
    return context


def call(
    url: str, *, headers: Mapping[str, str], form: Mapping[str, str] | None = None, trust: ssl.SSLContext | None = None
) -> dict[str, Any]:
    """A request's JSON. Raises `Failed` with what was answered instead of 200."""
    body = None if form is None else urlencode(form).encode("ascii")
    request = urllib.request.Request(url, data=body, headers=dict(headers))  # noqa: S310 - the chart's own Service
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT, context=trust) as answer:  # noqa: S310
            document: dict[str, Any] = json.load(answer)
            return document
    except urllib.error.HTTPError as error:
        with error:
            raise Failed(f"{url} answered {error.code}: {error.read(500).decode('utf-8', 'replace')}") from None
    except (OSError, ValueError) as error:
        raise Failed(f"{url} cannot be reached: {error}") from None


def run(url: str, directory: Path, certificate: Path | None = None) -> str:
    """One token, confirmed; what to print. Raises `Failed`."""
    client_id, secret = read_credential(directory)
    # Read at each try: it may have been renewed a moment ago.
    trust = None if certificate is None else trusting(certificate)
    token = call(
        f"{url}/oauth/token",
        headers={"authorization": basic(client_id, secret)},
        form={"grant_type": "client_credentials"},
        trust=trust,
    )["access_token"]
    info = call(f"{url}/tokeninfo", headers={"authorization": f"Bearer {token}"}, trust=trust)
    if info.get("sub") != client_id:
        raise Failed(f"/tokeninfo says the token is {info.get('sub')!r}'s, not {client_id!r}'s")
    return f"{client_id} got a token of {info['iss']}, and /tokeninfo confirms it."


def main() -> int:
    """Tries until it works or two minutes have passed; the exit status is 0 or 1."""
    url, directory, *certificate = sys.argv[1].rstrip("/"), *map(Path, sys.argv[2:4])
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            print(run(url, directory, *certificate))  # noqa: T201
            return 0
        except Failed as failed:
            print(failed, file=sys.stderr)  # noqa: T201
            if time.monotonic() > end:
                return 1
        time.sleep(_INTERVAL)


if __name__ == "__main__":
    sys.exit(main())
