"""Certificates for test servers: one that verifies against an authority, and one that does not."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass, field

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# The last one is known only to a proxy that is told where it is.
SERVER_NAMES = ("127.0.0.1", "localhost", "gateway.test")


@dataclass(frozen=True)
class Certificate:
    """What a server shows. `pem` is the certificate alone, `sha256` the hash of its DER in hex."""

    context: ssl.SSLContext = field(repr=False)
    pem: bytes = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate as it goes over the wire."""
        return ssl.PEM_cert_to_DER_cert(self.pem.decode())

    @property
    def sha256(self) -> str:
        """The usual fingerprint, in lowercase hex."""
        return hashlib.sha256(self.der).hexdigest()


class Authority:
    """A certificate authority that exists for one test."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    @property
    def ca_pem(self) -> bytes:
        """What a client needs to verify the certificates issued here."""
        return bytes(self._ca.cert_pem.bytes())

    def issue(self, *names: str) -> Certificate:
        """Return a new certificate, with a new key, for these names or SERVER_NAMES."""
        issued = self._ca.issue_cert(*(names or SERVER_NAMES))
        context = _server_context()
        issued.configure_cert(context)
        return Certificate(context, bytes(issued.cert_chain_pems[0].bytes()))


def self_signed(*names: str) -> Certificate:
    """Return a certificate that vouches for itself, as `openssl req -x509` makes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-signed gateway")])
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key)
    names_in_it = x509.SubjectAlternativeName([_general_name(n) for n in names or SERVER_NAMES])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(subject_key, critical=False)
        .add_extension(authority_key, critical=False)
        .add_extension(names_in_it, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    context = _server_context()
    with tempfile.NamedTemporaryFile(suffix=".pem") as both:
        both.write(key_pem + pem)
        both.flush()
        context.load_cert_chain(both.name)
    return Certificate(context, pem)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _general_name(name: str) -> x509.IPAddress | x509.DNSName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
