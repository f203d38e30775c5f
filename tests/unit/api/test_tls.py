"""The certificate of the service's own: what new connections get while the files change under it."""

import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keyturn_api.tls import ServerCertificate
from keyturn_dev.certificates import Authority, Certificate

AUTHORITY = Authority("test", datetime.datetime.now(datetime.UTC))
ONE, TWO = (AUTHORITY.issue(name, names=(name,), client=False) for name in ("one.example", "two.example"))


class Mounted:
    """A mounted Secret: files behind a symlink that is swapped."""

    def __init__(self, folder: Path, pair: Certificate) -> None:
        self.folder = folder
        self.version = 0
        self.swap(pair.certificate, pair.key)
        for name in ("tls.crt", "tls.key"):
            (folder / name).symlink_to(f"..data/{name}")

    def swap(self, certificate: bytes, key: bytes) -> None:
        self.version += 1
        there = self.folder / f"..{self.version}"
        there.mkdir()
        (there / "tls.crt").write_bytes(certificate)
        (there / "tls.key").write_bytes(key)
        link = self.folder / "..new"
        link.symlink_to(there.name)
        link.rename(self.folder / "..data")

    def serve(self) -> ServerCertificate:
        return ServerCertificate(self.folder / "tls.crt", self.folder / "tls.key")


def shake(server: ssl.SSLContext, name: str, *, client: ssl.SSLContext | None = None) -> str:
    """Shakes hands in memory; the version that was agreed on. Raises ssl.SSLError."""
    if client is None:
        client = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides: list[Any] = [
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(10):
        waiting = 0
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            version: str = sides[0].version()
            return version
    raise AssertionError("the handshake does not end")


def test_new_connections_get_the_certificate_of_the_files_as_they_are(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path, ONE)
    served = mounted.serve()
    context = served.context
    assert shake(context, "one.example") == "TLSv1.3"
    mounted.swap(TWO.certificate, TWO.key)
    assert shake(context, "one.example")
    served.look()
    assert shake(context, "two.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context, "one.example")


@pytest.mark.parametrize(
    ("certificate", "key"),
    [
        pytest.param(TWO.certificate, ONE.key, id="a key of another certificate"),
        pytest.param(TWO.certificate, b"", id="no key"),
        pytest.param(b"x", TWO.key, id="no certificate"),
    ],
)
def test_files_that_cannot_serve_change_nothing_until_they_can(
    tmp_path: Path, certificate: bytes, key: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    mounted = Mounted(tmp_path, ONE)
    served = mounted.serve()
    mounted.swap(certificate, key)
    served.look()
    assert shake(served.context, "one.example")
    assert "tls_certificate_unusable" in "".join(capfd.readouterr())
    mounted.swap(TWO.certificate, TWO.key)
    served.look()
    assert shake(served.context, "two.example")


def test_files_that_are_gone_change_nothing(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path, ONE)
    served = mounted.serve()
    (tmp_path / "..data").unlink()
    served.look()
    assert shake(served.context, "one.example")


def test_files_that_stay_are_not_read_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    served = Mounted(tmp_path, ONE).serve()
    assert "tls_certificate_loaded" in "".join(capfd.readouterr())
    served.look()
    assert "".join(capfd.readouterr()) == ""


def test_without_usable_files_nothing_starts(tmp_path: Path) -> None:
    encrypted = load_pem_private_key(ONE.key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    for number, pair in enumerate(
        (Certificate(ONE.certificate, TWO.key), Certificate(b"", b""), Certificate(ONE.certificate, encrypted))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(OSError):
            Mounted(folder, pair).serve()
    with pytest.raises(FileNotFoundError):
        ServerCertificate(tmp_path / "none.crt", tmp_path / "none.key")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path) -> None:
    context = Mounted(tmp_path, ONE).serve().context

    def client(version: ssl.TLSVersion) -> ssl.SSLContext:
        made = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
        made.set_ciphers("ALL:@SECLEVEL=0")
        made.minimum_version = made.maximum_version = version
        return made

    assert shake(context, "one.example", client=client(ssl.TLSVersion.TLSv1_2)) == "TLSv1.2"
    with pytest.raises(ssl.SSLError):
        shake(context, "one.example", client=client(ssl.TLSVersion.TLSv1_1))
