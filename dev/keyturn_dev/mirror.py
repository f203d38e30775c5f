"""Mirrors one Secret into a directory, as the kubelet does for a pod: the API outside a cluster reads its signing keys there.

Runs under a ServiceAccount that may get and watch that one Secret. A change appears at once and whole: the files lie in a folder of
their own, and the symlink `..data` is swapped to it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import secrets
import shutil
import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DATA = "..data"
_WATCH_SECONDS = 300
_RETRY_SECONDS = 1.0


def write_directory(directory: Path, data: Mapping[str, bytes]) -> None:
    """Make `directory` hold exactly `data`, in one step for a reader that goes through `..data`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = directory / f"..{time.time_ns()}-{secrets.token_hex(4)}"
    fresh.mkdir(mode=0o700)
    for name, content in data.items():
        descriptor = os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(directory / DATA)
    for name in data:
        visible = directory / name
        if not visible.is_symlink():
            visible.symlink_to(Path(DATA) / name)
    for path in directory.iterdir():
        if path.name.startswith("..") and path.is_dir() and not path.is_symlink() and path != fresh:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_symlink() and path.name != DATA and path.name not in data:
            path.unlink()


class SecretWatch:
    """The events of one Secret, by the API server's watch; each connection starts with the Secret as it is."""

    def __init__(self, kubeconfig: Path, namespace: str, name: str) -> None:
        document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster = document["clusters"][0]["cluster"]
        self._token = document["users"][0]["user"]["token"]
        self._server = urlsplit(cluster["server"])
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode("ascii")
        self._tls = ssl.create_default_context(cadata=authority)
        selector = quote(f"metadata.name={name}")
        self._path = (
            f"/api/v1/namespaces/{namespace}/secrets?watch=1&fieldSelector={selector}&timeoutSeconds={_WATCH_SECONDS}"
        )

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events of one connection; raise OSError or HTTPException when it fails."""
        assert self._server.hostname is not None
        connection = http.client.HTTPSConnection(
            self._server.hostname, self._server.port, context=self._tls, timeout=_WATCH_SECONDS + 30
        )
        with contextlib.closing(connection):
            connection.request("GET", self._path, headers={"Authorization": f"Bearer {self._token}"})
            response = connection.getresponse()
            if response.status != 200:
                raise http.client.HTTPException(f"the API server answers {response.status}")
            while line := response.readline():
                yield json.loads(line)


def apply_event(directory: Path, event: Mapping[str, Any]) -> None:
    """Bring one event into the directory; a deleted Secret leaves it empty, as an optional mount would be."""
    if event["type"] in ("ADDED", "MODIFIED"):
        members = event["object"].get("data") or {}
        write_directory(directory, {name: base64.b64decode(value) for name, value in members.items()})
    elif event["type"] == "DELETED":
        write_directory(directory, {})


def main() -> int:
    """Mirror until ended by a signal."""
    parser = argparse.ArgumentParser(prog="python -m keyturn_dev.mirror", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    watch = SecretWatch(options.kubeconfig, options.namespace, options.secret)
    while True:
        try:
            for event in watch.events():
                apply_event(options.directory, event)
        except (OSError, http.client.HTTPException, ValueError) as error:
            print(f"the watch ended: {error}", file=sys.stderr, flush=True)
            time.sleep(_RETRY_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
