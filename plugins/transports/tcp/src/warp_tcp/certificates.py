"""A small certificate authority: one for a cluster, a certificate for each node. `warp node join` uses it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from warp_core.errors import AlreadyExists, InvalidArgument

from warp_tcp.tls import NAME_PREFIX, Identity

AUTHORITY_DAYS = 20 * 365  # outlives the cluster: replacing it means touching every node
NODE_DAYS = 5 * 365
NAME_MAX = 64  # characters of a node's name: X.509 allows no longer common name
SKEW = timedelta(days=1)  # a node whose clock is behind accepts new certificates all the same


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


def issue(authority: Path, node: str, folder: Path, *, now: datetime | None = None) -> Identity:
    """Write `node.pem` and `node.key` (mode 0600) for a node, and the authority's `ca.pem` beside them; replace older ones.

    Raises:
        InvalidArgument: The name is empty, too long, or not printable ASCII.
    """
    if not (
        0 < len(node) <= NAME_MAX and node.isascii() and node.isprintable() and " " not in node
    ):
        raise InvalidArgument(
            f"node name {node!r}: 1 to {NAME_MAX} printable ASCII characters, no spaces"
        )
    signer = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise InvalidArgument(f"{authority / 'ca.key'} is no key of an authority made here")
    root_pem = (authority / "ca.pem").read_bytes()
    root = x509.load_pem_x509_certificate(root_pem)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(name, root.subject, key.public_key(), NODE_DAYS, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(NAME_PREFIX + node)]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "node.key", _pem(key), mode=0o600)
    _write(folder / "node.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    _write(folder / "ca.pem", root_pem, mode=0o644)
    return Identity(folder / "ca.pem", folder / "node.pem", folder / "node.key")


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
