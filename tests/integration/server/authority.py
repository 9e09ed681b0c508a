"""An authority that a test makes, and a server's certificate that it has signed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Files of an authority and of one certificate."""

    folder: Path
    """Has nothing but ``ca.crt``, as programs want it that are told a folder."""
    certificate_file: Path
    key_file: Path

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def tls(self) -> dict[str, str]:
        """A server's section ``tls``."""
        return {"certificate_file": str(self.certificate_file), "key_file": str(self.key_file)}


def make_authority(folder: Path, *names: str) -> Authority:
    """Make an authority, and a certificate for hosts and addresses."""
    made = Authority(
        folder=folder / "trusted", certificate_file=folder / "server.pem", key_file=folder / "server-key.pem"
    )
    made.folder.mkdir(parents=True)
    key, own_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = _named("an authority of a test")
    root = _unsigned(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    root = root.add_extension(_usage(signs_certificates=True), critical=True)
    made.ca_file.write_bytes(_pem(root.sign(key, hashes.SHA256())))
    alternatives = x509.SubjectAlternativeName([_general(text) for text in names])
    signed = _unsigned(_named(names[0]), name, own_key).add_extension(alternatives, critical=False)
    signed = signed.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    signed = signed.add_extension(_usage(signs_certificates=False), critical=True)
    # Python 3.13 asks for it.
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    signed = signed.add_extension(signer, critical=False)
    made.certificate_file.write_bytes(_pem(signed.sign(key, hashes.SHA256())))
    private = serialization.PrivateFormat.PKCS8
    made.key_file.write_bytes(own_key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return made


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _unsigned(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        decipher_only=False,
        **dict.fromkeys(unused, False),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
