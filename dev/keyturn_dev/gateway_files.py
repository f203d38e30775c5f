"""The configurations in `docs/gateways` as a machine's own: the addresses, ports and places in them replaced, nothing else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

FILES = PROJECT / "docs" / "gateways"


@dataclass(frozen=True)
class Kind:
    """A gateway and its configuration. `files` are those of `docs/gateways`, the one that the program is started with first."""

    name: str
    program: str
    profile: str
    files: tuple[str, ...]
    command: Callable[[Path, Path], list[str]]
    # Keyturn's port in the files: that of HTTP or that of gRPC.
    keyturn: int = 8080


def _envoy(program: Path, folder: Path) -> list[str]:
    (file,) = folder.glob("envoy*.yaml")
    return [str(program), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]


def _nginx(program: Path, folder: Path) -> list[str]:
    (file,) = folder.glob("*.conf")
    # In the foreground, as the user who runs the tests, with its files in the test's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    return [
        str(program),
        "-c",
        str(file),
        "-p",
        str(folder),
        "-e",
        "stderr",
        "-g",
        f"daemon off; pid nginx.pid; {user}",
    ]


KINDS = (
    Kind("envoy", "envoy", "envoy", ("envoy.yaml",), _envoy),
    Kind("envoy-grpc", "envoy", "envoy-grpc", ("envoy-grpc.yaml",), _envoy, keyturn=9191),
    Kind("nginx", "nginx", "nginx", ("nginx.conf",), _nginx),
    Kind(
        "traefik",
        "traefik",
        "traefik",
        ("traefik.yaml", "traefik-dynamic.yaml"),
        lambda program, folder: [str(program), f"--configfile={folder / 'traefik.yaml'}"],
    ),
    Kind(
        "caddy",
        "caddy",
        "caddy",
        ("Caddyfile",),
        lambda program, folder: [str(program), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"],
    ),
    Kind(
        "haproxy",
        "haproxy",
        "haproxy",
        ("haproxy.cfg", "keyturn.lua"),
        lambda program, folder: [str(program), "-db", "-f", str(folder / "haproxy.cfg")],
    ),
    Kind("envoy, original-request", "envoy", "original-request", ("envoy-original-request.yaml",), _envoy),
    Kind("nginx, original-request", "nginx", "original-request", ("nginx-original-request.conf",), _nginx),
)
BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Ports:
    """Where the gateway listens, and where it finds Keyturn and the API."""

    http: int
    https: int
    keyturn: int
    api: int


def replacements(kind: Kind, ports: Ports, folder: Path, certificates: Path) -> Mapping[str, str]:
    """Return what stands in the shipped files, and what is to stand there."""
    places = {
        "/etc/gateway/": f"{certificates}/",
        "/etc/haproxy/": f"{folder}/",
        "/etc/traefik/": f"{folder}/",
    }
    if kind.program == "envoy":
        numbers = {"8000": ports.http, "8443": ports.https, str(kind.keyturn): ports.keyturn, "3000": ports.api}
        listen = {f"port_value: {old}}}": f"port_value: {new}}}" for old, new in numbers.items()}
        return {**places, "0.0.0.0": "127.0.0.1", **listen}
    addresses = {f"127.0.0.1:{kind.keyturn}": f"127.0.0.1:{ports.keyturn}", "127.0.0.1:3000": f"127.0.0.1:{ports.api}"}
    if kind.program == "nginx":
        listen = {"listen 8000;": f"listen 127.0.0.1:{ports.http};", "listen 8443 ": f"listen 127.0.0.1:{ports.https} "}
        # The folders that the packaged nginx writes bodies to are for its own user.
        names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f" {name}_temp_path {folder / name};" for name in names)
        return {**places, **addresses, **listen, "http {\n": f"http {{{temporary}\n"}
    return {**places, **addresses, ":8000": f":{ports.http}", ":8443": f":{ports.https}"}


def write_files(kind: Kind, ports: Ports, folder: Path, certificates: Path) -> None:
    """Write the shipped files with other addresses, ports and places; raise `DevError` where one of them is not in the files."""
    replaced = replacements(kind, ports, folder, certificates)
    written = {name: (FILES / name).read_text(encoding="utf-8") for name in kind.files}
    for old in replaced:
        # Not every file names every folder; the rest must be there, or something of the file's own would stay.
        if not old.startswith("/etc/") and not any(old in text for text in written.values()):
            raise DevError(f"{old!r} stands in none of {', '.join(kind.files)}")
    # All at once: what is put in is not looked at again. A number is whole or another one.
    found = re.compile("|".join(rf"{re.escape(old)}(?!\d)" for old in replaced))
    for name, text in written.items():
        content = found.sub(lambda match: replaced[match[0]], text)
        (folder / name).write_text(content, encoding="utf-8")
