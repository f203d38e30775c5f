"""Certificates of the local cluster: who they are for, who issued them, and files that only their owner reads."""

from __future__ import annotations

import datetime
import ipaddress
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyturn_dev.certificates import (
    Certificate,
    ClusterCertificates,
    make_certificates,
    write_certificates,
    write_private,
)

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.datetime(2026, 5, 4, 3, 2, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def certificates() -> ClusterCertificates:
    return make_certificates(NOW)


def load(certificate: Certificate | bytes) -> x509.Certificate:
    pem = certificate if isinstance(certificate, bytes) else certificate.certificate
    return x509.load_pem_x509_certificate(pem)


def names(certificate: x509.Certificate) -> tuple[str, list[str]]:
    def of(kind: x509.ObjectIdentifier) -> list[str]:
        return [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(kind)]

    return of(NameOID.COMMON_NAME)[0], of(NameOID.ORGANIZATION_NAME)


@pytest.mark.parametrize(
    "name",
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"],
)
def test_the_api_server_is_called_by_its_names(name: str, certificates: ClusterCertificates) -> None:
    served = load(certificates.api_server).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert name in served.get_values_for_type(x509.DNSName)


def test_the_only_address_that_is_served_is_loopback(certificates: ClusterCertificates) -> None:
    for certificate in (certificates.api_server, certificates.etcd):
        served = load(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert served.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]


def test_the_administrator_is_in_the_group_of_masters(certificates: ClusterCertificates) -> None:
    assert names(load(certificates.admin)) == ("keyturn-admin", ["system:masters"])
    assert names(load(certificates.controller_manager)) == ("system:kube-controller-manager", ["system:masters"])


def test_the_api_servers_own_certificate_makes_nobody_a_client(certificates: ClusterCertificates) -> None:
    usage = load(certificates.api_server).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    usage = load(certificates.admin).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_each_certificate_is_signed_by_its_authority_and_no_other(certificates: ClusterCertificates) -> None:
    cluster, etcd = load(certificates.authority), load(certificates.etcd_authority)
    for certificate in (certificates.api_server, certificates.admin, certificates.controller_manager):
        load(certificate).verify_directly_issued_by(cluster)
    for certificate in (certificates.etcd, certificates.etcd_client):
        load(certificate).verify_directly_issued_by(etcd)
    with pytest.raises(ValueError):
        load(certificates.admin).verify_directly_issued_by(etcd)


def test_only_the_authorities_may_sign(certificates: ClusterCertificates) -> None:
    for pem, expected in ((certificates.authority, True), (certificates.admin.certificate, False)):
        extensions = load(pem).extensions
        assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is expected
        assert extensions.get_extension_for_class(x509.BasicConstraints).critical
        assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is expected


def test_certificates_are_valid_from_before_their_issue_for_a_year(certificates: ClusterCertificates) -> None:
    certificate = load(certificates.api_server)
    assert certificate.not_valid_before_utc < NOW
    assert datetime.timedelta(days=360) < certificate.not_valid_after_utc - NOW < datetime.timedelta(days=370)


def test_tokens_are_signed_by_an_rsa_key_of_2048_bits(certificates: ClusterCertificates) -> None:
    key = serialization.load_pem_private_key(certificates.service_account_key, password=None)
    public = serialization.load_pem_public_key(certificates.service_account_public_key)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    assert key.public_key() == public


def test_no_representation_shows_a_private_key(certificates: ClusterCertificates) -> None:
    assert "PRIVATE KEY" not in repr(certificates)


def test_files_are_their_owners_only(certificates: ClusterCertificates, tmp_path: Path) -> None:
    write_certificates(certificates, tmp_path / "certs")
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700
    files = list((tmp_path / "certs").iterdir())
    assert {path.name for path in files} > {"ca.crt", "api-server.key", "etcd-client.key", "service-account.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_private_file_replaces_an_open_one(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
