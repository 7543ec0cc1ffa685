"""Mutual TLS 1.3 with node names: both sides show a certificate of one authority, whose URI `warp:node:NAME` says who they are."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from warp_core.certificates import NAME_PREFIX, Identity
from warp_core.errors import ConfigError, Unauthenticated
from warp_core.interfaces.stores import Buffer

ALPN = "warp-link/1"


class Cipher:
    """TLS of one connection on buffers in memory.

    OpenSSL on the socket itself makes two or three system calls for each record of 16 KiB; here one moves many records.
    """

    def __init__(self, context: ssl.SSLContext, *, server: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)

    def handshake(self) -> bool:
        """Go one step; say whether it is complete. Then send `sealed`, and `feed` what arrives."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def feed(self, arrived: memoryview | bytes) -> None:
        """Take bytes from the wire."""
        self._incoming.write(arrived)

    def open_into(self, room: memoryview) -> int:
        """Decrypt into `room`; return how many bytes, 0 for none yet.

        Raises:
            SSLZeroReturnError: The peer ended the connection.
            SSLError: What arrived was changed on its way.
        """
        try:
            return self.tls.read(len(room), room)  # type: ignore[return-value]
        except ssl.SSLWantReadError:
            return 0

    def seal(self, buffer: Buffer) -> bytes:
        """Return the records that carry some bytes."""
        self.tls.write(buffer)
        return self._outgoing.read()

    def sealed(self) -> bytes:
        """Return what the handshake, or the ending, has to say."""
        return self._outgoing.read()

    def end(self) -> bytes:
        """Return the notice that nothing follows."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self._outgoing.read()


def contexts(identity: Identity, *, node: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts to accept with and to dial with.

    Raises:
        ConfigError: A file is missing or unusable, or the certificate names another node.
    """
    name = own_name(identity.certificate)
    if name != node:
        raise ConfigError(
            f'{identity.certificate} is the certificate of node "{name}", this is node "{node}": issue one for it'
        )
    return _context(ssl.PROTOCOL_TLS_SERVER, identity), _context(ssl.PROTOCOL_TLS_CLIENT, identity)


def own_name(certificate: Path) -> str:
    """Return the node that a certificate file names.

    Raises:
        ConfigError: No such file, no certificate, or it names no node.
    """
    try:
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except OSError as error:
        raise ConfigError(
            f"cannot read the node's certificate {certificate}: {error.strerror}; have this node join a cluster,"
            " or set plaintext = true for a test on loopback"
        ) from error
    except (ValueError, x509.ExtensionNotFound) as error:
        raise ConfigError(f"{certificate} is no certificate of a node: {error}") from error
    names = found.get_values_for_type(x509.UniformResourceIdentifier)
    return _only_name(names, str(certificate), ConfigError)


def peer_name(endpoint: ssl.SSLObject) -> str:
    """Return the node name that the other side proved.

    Raises:
        Unauthenticated: Its certificate names no node, or several.
    """
    certificate: Mapping[str, Any] = endpoint.getpeercert() or {}
    entries = certificate.get("subjectAltName", ())
    return _only_name(
        [value for kind, value in entries if kind == "URI"],
        "the peer's certificate",
        Unauthenticated,
    )


def _only_name(
    uris: list[str], where: str, error: type[ConfigError] | type[Unauthenticated]
) -> str:
    names = [uri.removeprefix(NAME_PREFIX) for uri in uris if uri.startswith(NAME_PREFIX)]
    if len(names) != 1 or not names[0]:
        raise error(f"{where} names {len(names)} nodes, where one is needed")
    return names[0]


def _context(side: int, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # names are nodes, wherever they are: `peer_name` compares them
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([ALPN])
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # links are long: nobody resumes sessions
    try:
        context.load_verify_locations(identity.authority)
        context.load_cert_chain(identity.certificate, identity.key)
    except (OSError, ssl.SSLError) as error:
        files = f"{identity.authority}, {identity.certificate} and {identity.key}"
        raise ConfigError(f"cannot use {files}: {error.strerror or error}") from error
    return context
