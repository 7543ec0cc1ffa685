"""A small certificate authority: one for a cluster, a certificate for each node.

A node's certificate carries its name as the URI `warp:node:NAME`, which is what other nodes go by, and the addresses that it
is reached at, for programs that go by those (etcd).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from warp_core.errors import AlreadyExists, ConfigError, InvalidArgument

NAME_PREFIX = "warp:node:"
AUTHORITY_DAYS = 20 * 365  # outlives the cluster: replacing it means touching every node
NODE_DAYS = 5 * 365
NAME_MAX = 64  # characters of a node's name: X.509 allows no longer common name
SKEW = timedelta(days=1)  # a node whose clock is behind accepts new certificates all the same


@dataclass(frozen=True, slots=True)
class Identity:
    """Where a node's certificate, its key and the authority's certificates lie."""

    authority: Path
    certificate: Path
    key: Path


def make_authority(folder: Path, *, cluster: str = "warp", now: datetime | None = None) -> None:
    """Write `ca.pem` and `ca.key` (mode 0600) into a folder, made if it is missing.

    Raises:
        AlreadyExists: The folder has an authority; a new one would lock out every node.
    """
    if (folder / "ca.key").exists() or (folder / "ca.pem").exists():
        raise AlreadyExists(f"{folder} holds an authority already")
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{cluster} authority"[:NAME_MAX])])
    certificate = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder / "ca.key", _pem(key), mode=0o600)
    _write(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def issue(
    authority: Path,
    node: str,
    folder: Path,
    *,
    hosts: Iterable[str] = (),
    now: datetime | None = None,
) -> Identity:
    """Write `node.pem` and `node.key` (mode 0600) for a node, and the authority's `ca.pem` beside them; replace older ones.

    Args:
        authority: The folder of `make_authority`.
        node: The node's name.
        folder: Where the files go.
        hosts: Addresses and host names that the node is reached at.
        now: For tests.

    Raises:
        InvalidArgument: The name is empty, too long, or not printable ASCII.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signed = _signed(authority, node, key.public_key(), hosts, now)
    return place(folder, certificate=signed, authority=_root(authority), key=_pem(key))


def request(node: str) -> tuple[bytes, bytes]:
    """Make a key for a node elsewhere; return it (PEM, secret), and what the authority signs (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    asked = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return _pem(key), asked.public_bytes(serialization.Encoding.PEM)


def sign(authority: Path, node: str, asked: bytes, *, hosts: Iterable[str] = ()) -> bytes:
    """Return a node's certificate (PEM) for the key of a request; of the request only the key counts.

    Raises:
        InvalidArgument: It is no request, not signed by its own key, or the name is none.
    """
    try:
        found = x509.load_pem_x509_csr(asked)
        key = found.public_key()
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"no certificate request: {error}") from None
    if not found.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidArgument("the certificate request is not signed by its own key (EC)")
    return _signed(authority, node, key, hosts, None)


def place(folder: Path, *, certificate: bytes, authority: bytes, key: bytes) -> Identity:
    """Write a node's files (PEM) where its transport looks for them."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "node.key", key, mode=0o600)
    _write(folder / "node.pem", certificate, mode=0o644)
    _write(folder / "ca.pem", authority, mode=0o644)
    return Identity(folder / "ca.pem", folder / "node.pem", folder / "node.key")


def fingerprint(certificate: bytes) -> bytes:
    """Return the SHA-256 of a certificate (PEM), 32 bytes.

    Raises:
        InvalidArgument: It is none.
    """
    try:
        return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256())
    except ValueError as error:
        raise InvalidArgument(f"no certificate: {error}") from None


def _root(authority: Path) -> bytes:
    try:
        return (authority / "ca.pem").read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{authority} holds no authority ({error.strerror}): only the node that founded the cluster has it"
        ) from error


def _signed(
    authority: Path,
    node: str,
    key: ec.EllipticCurvePublicKey,
    hosts: Iterable[str],
    now: datetime | None,
) -> bytes:
    if not (
        0 < len(node) <= NAME_MAX and node.isascii() and node.isprintable() and " " not in node
    ):
        raise InvalidArgument(
            f"node name {node!r}: 1 to {NAME_MAX} printable ASCII characters, no spaces"
        )
    root = x509.load_pem_x509_certificate(_root(authority))
    signer = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise InvalidArgument(f"{authority / 'ca.key'} is no key of an authority made here")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = [x509.UniformResourceIdentifier(NAME_PREFIX + node), *map(_general, hosts)]
    certificate = (
        _builder(name, root.subject, key, NODE_DAYS, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: int,
    now: datetime | None,
) -> x509.CertificateBuilder:
    start = now or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - SKEW)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Replace a file, never showing a half one, nor a key to others."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
