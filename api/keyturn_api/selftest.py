"""`python -m keyturn_api.selftest URL DIRECTORY`: gets a token as the client whose Secret is mounted, and has it confirmed.

For `helm test`, in the API's own image: the way of any client, over the installation's Service.
"""

import base64
import json
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


def call(url: str, *, headers: Mapping[str, str], form: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A request's JSON. Raises `Failed` with what was answered instead of 200."""
    body = None if form is None else urlencode(form).encode("ascii")
    request = urllib.request.Request(url, data=body, headers=dict(headers))  # noqa: S310 - the chart's own Service
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            document: dict[str, Any] = json.load(answer)
            return document
    except urllib.error.HTTPError as error:
        with error:
            raise Failed(f"{url} answered {error.code}: {error.read(500).decode('utf-8', 'replace')}") from None
    except (OSError, ValueError) as error:
        raise Failed(f"{url} cannot be reached: {error}") from None


def run(url: str, directory: Path) -> str:
    """One token, confirmed; what to print. Raises `Failed`."""
    client_id, secret = read_credential(directory)
    token = call(
        f"{url}/oauth/token",
        headers={"authorization": basic(client_id, secret)},
        form={"grant_type": "client_credentials"},
    )["access_token"]
    info = call(f"{url}/tokeninfo", headers={"authorization": f"Bearer {token}"})
    if info.get("sub") != client_id:
        raise Failed(f"/tokeninfo says the token is {info.get('sub')!r}'s, not {client_id!r}'s")
    return f"{client_id} got a token of {info['iss']}, and /tokeninfo confirms it."


def main() -> int:
    """Tries until it works or two minutes have passed; the exit status is 0 or 1."""
    url, directory = sys.argv[1].rstrip("/"), Path(sys.argv[2])
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            print(run(url, directory))  # noqa: T201
            return 0
        except Failed as failed:
            print(failed, file=sys.stderr)  # noqa: T201
            if time.monotonic() > end:
                return 1
        time.sleep(_INTERVAL)


if __name__ == "__main__":
    sys.exit(main())
