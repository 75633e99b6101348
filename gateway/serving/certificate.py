"""The certificate with which the gateway speaks https: its own, made on first use."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Runners pin it, and people have told their browsers to trust it: it should not change.
_LIFETIME_DAYS = 3_650


class CertificateError(Exception):
    """The certificate cannot be used; the message is one plain sentence."""


def prepare_certificate(folder: Path, names: list[str]) -> tuple[Path, Path]:
    """Return the files of certificate and key, made if there are none. Raises: CertificateError."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    try:
        if not certificate.exists() or not key.exists():
            _make(certificate, key, names)
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CertificateError(
            f"the certificate {certificate} and its key cannot be used ({reason}); correct them, "
            "or remove both to have new ones made"
        ) from error
    return certificate, key


def fingerprint(certificate: Path) -> str:
    """Return the SHA-256 of the certificate as browsers show it."""
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text("ascii"))
    digest = hashlib.sha256(der).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def _make(certificate: Path, key: Path, names: list[str]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "claude-runner gateway")])
    now = datetime.datetime.now(datetime.timezone.utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_LIFETIME_DAYS))
        .add_extension(
            x509.SubjectAlternativeName([_alternative(each) for each in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(key, pem)
    _write(certificate, built.public_bytes(serialization.Encoding.PEM))


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, for nobody else to read."""
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.replace(partial, path)
