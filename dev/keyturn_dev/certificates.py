"""Certificates for the local cluster: two authorities (the cluster's, etcd's), one for each part, a token key."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import ipaddress
import os
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

API_SERVER_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "127.0.0.1",
)
_LIFETIME = datetime.timedelta(days=365)
_CLOCK_TOLERANCE = datetime.timedelta(hours=1)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, both PEM. The key never shows in a representation."""

    certificate: bytes
    key: bytes = dataclasses.field(repr=False)

    def certificate_data(self) -> str:
        """Return the certificate as a kubeconfig embeds it."""
        return base64.b64encode(self.certificate).decode("ascii")

    def key_data(self) -> str:
        """Return the private key as a kubeconfig embeds it."""
        return base64.b64encode(self.key).decode("ascii")


class Authority:
    """A certificate authority that lives as long as this object: its own key is never written anywhere."""

    def __init__(self, name: str, now: datetime.datetime) -> None:
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        public = self._key.public_key()
        builder = _builder(self._name, self._name, public, now)
        self._certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, common_name: str, *, organization: str | None = None, names: Sequence[str] = (), client: bool = True
    ) -> Certificate:
        """Issue a certificate: for a server if it has `names` (DNS names or addresses), for a client if `client`.

        Kubernetes reads a client's user name from the common name and its group from the organization.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key()
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] if client else []
        if names:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        # RFC 5280 section 4.2.1.1: what an authority issues names the authority's key.
        issuer_key = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(x509.Name(attributes), self._name, public, self._now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        signed = builder.sign(self._key, hashes.SHA256())
        return Certificate(signed.public_bytes(serialization.Encoding.PEM), _private_pem(key))


@dataclasses.dataclass(frozen=True)
class ClusterCertificates:
    """All key material of one local cluster."""

    authority: bytes
    api_server: Certificate
    admin: Certificate
    controller_manager: Certificate
    kubelet: Certificate | None
    etcd_authority: bytes
    etcd: Certificate
    etcd_client: Certificate
    service_account_key: bytes = dataclasses.field(repr=False)
    service_account_public_key: bytes


def make_certificates(
    now: datetime.datetime, *, addresses: Sequence[str] = (), node: str | None = None
) -> ClusterCertificates:
    """Make everything anew; `now` (aware) is the time of issue. `addresses`: further ones of the API server; `node`: a node's name.

    etcd trusts an authority of its own, so that no client of the API server can read the Secrets past it. The key of
    ServiceAccount tokens is RSA, as in most clusters.
    """
    cluster = Authority("keyturn-local", now)
    etcd = Authority("keyturn-local-etcd", now)
    token_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ClusterCertificates(
        authority=cluster.certificate,
        api_server=cluster.issue("kube-apiserver", names=(*API_SERVER_NAMES, *addresses), client=False),
        admin=cluster.issue("keyturn-admin", organization="system:masters"),
        # Its controllers share this one identity, which therefore needs all of their permissions.
        controller_manager=cluster.issue("system:kube-controller-manager", organization="system:masters"),
        # The Node authorizer reads the node's name from here.
        kubelet=None if node is None else cluster.issue(f"system:node:{node}", organization="system:nodes"),
        etcd_authority=etcd.certificate,
        etcd=etcd.issue("etcd", names=("localhost", "127.0.0.1")),
        etcd_client=etcd.issue("kube-apiserver"),
        service_account_key=_private_pem(token_key),
        service_account_public_key=token_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


def write_certificates(certificates: ClusterCertificates, folder: Path) -> None:
    """Write the files that the servers read, each for its owner only."""
    folder.mkdir(mode=0o700)
    write_private(folder / "ca.crt", certificates.authority)
    write_private(folder / "etcd-ca.crt", certificates.etcd_authority)
    write_private(folder / "service-account.key", certificates.service_account_key)
    write_private(folder / "service-account.pub", certificates.service_account_public_key)
    pairs = {
        "api-server": certificates.api_server,
        "admin": certificates.admin,
        "etcd": certificates.etcd,
        "etcd-client": certificates.etcd_client,
    }
    for name, pair in pairs.items():
        write_private(folder / f"{name}.crt", pair.certificate)
        write_private(folder / f"{name}.key", pair.key)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all, whatever the umask and the file before it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_TOLERANCE)
        .not_valid_after(now + _LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
