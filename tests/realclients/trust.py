"""Certificates for a service on loopback: libraries talk to nothing else but TLS by default."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

from keyturn_dev.certificates import Authority

TRUSTSTORE_PASSWORD = "changeit"


@dataclass(frozen=True)
class Trust:
    """An authority for one run, with a server's certificate for loopback, in the forms that the languages read."""

    authority: Path
    truststore: Path
    certificate: Path
    key: Path


def make_trust(folder: Path) -> Trust:
    own = Authority("keyturn-tests", datetime.datetime.now(datetime.UTC))
    server = own.issue("localhost", names=["localhost", "127.0.0.1"], client=False)
    made = Trust(folder / "ca.pem", folder / "ca.p12", folder / "server.pem", folder / "server.key")
    made.authority.write_bytes(own.certificate)
    made.certificate.write_bytes(server.certificate)
    made.key.write_bytes(server.key)
    trusted = PKCS12Certificate(x509.load_pem_x509_certificate(own.certificate), b"keyturn-tests")
    made.truststore.write_bytes(
        serialize_java_truststore([trusted], BestAvailableEncryption(TRUSTSTORE_PASSWORD.encode()))
    )
    return made
