"""Server-side encryption: what requests say of it, what a bucket says where they are silent, and what answers say.

S3 knows three forms: SSE-S3 (`AES256`) and SSE-KMS (`aws:kms`, `aws:kms:dsse`), whose keys the server has, and SSE-C, whose key
comes with every request and is kept nowhere. Core seals contents; here are S3's words for it, which are noted beside the seal.
"""

import hashlib
import hmac
import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from warp_core.errors import Sealed
from warp_core.views.objects import Digests, SealInfo, Sealing

from warp_s3.errors import S3Error, from_core
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_s3.call import Call

ENCRYPTION: Final = "s3.encryption"
"""Name of the volume's document."""

SSE: Final = "x-amz-server-side-encryption"
KMS_KEY: Final = f"{SSE}-aws-kms-key-id"
CONTEXT: Final = f"{SSE}-context"
BUCKET_KEY: Final = f"{SSE}-bucket-key-enabled"
CUSTOMER: Final = f"{SSE}-customer-"
SOURCE: Final = f"x-amz-copy-source-{CUSTOMER.removeprefix('x-amz-')}"
_PARTS: Final = ("algorithm", "key", "key-md5")

AES256: Final = "AES256"
KMS: Final = "aws:kms"
DSSE: Final = "aws:kms:dsse"
ALGORITHMS: Final = frozenset({AES256, KMS, DSSE})
BLOCKABLE: Final = frozenset({"NONE", "SSE-C"})

READ_HEADERS: Final = frozenset({SSE, *(CUSTOMER + part for part in _PARTS)})
"""What a GET or HEAD may say of encryption, rightly or not."""

WRITE_HEADERS: Final = READ_HEADERS | {KMS_KEY, CONTEXT, BUCKET_KEY}

CONTEXT_MAX: Final = 512
"""Characters of an encryption context that is kept."""

KEY_SIZE: Final = 32


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is noted beside a seal, as JSON."""

    algorithm: str = ""  # empty: SSE-C
    key: str = ""  # of SSE-KMS, as the client called it
    arn: str = (
        ""  # what the id of a key that nobody named stands behind: "arn:aws:kms:us-east-1:…:key/"
    )
    bucket_key: bool = False
    context: str = ""


class Default(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a bucket encrypts what is written without a word about it; its document, as JSON."""

    algorithm: str = ""  # empty: not at all
    key: str = ""
    bucket_key: bool = False
    blocked: tuple[str, ...] = ()  # "SSE-C"


NOTHING: Final = Default()


# Requests -----------------------------------------------------------------------------------------


def wish(call: "Call", default: Default, *, arn: str, needs_tls: bool) -> Sealing | None:
    """Read how a PUT, a copy, a form or a new upload wants its content encrypted.

    Args:
        call: The request.
        default: The bucket's.
        arn: What the id of a key stands behind in an ARN, where the client names none.
        needs_tls: Whether keys may come over TLS only.

    Raises:
        S3Error: `InvalidArgument`, `InvalidRequest`, `InvalidEncryptionAlgorithmError`, or `AccessDenied` where the bucket blocks it.
    """
    headers = call.headers
    if WRITE_HEADERS.isdisjoint(headers):
        return _of_default(default, arn)
    secret = customer_key(headers)
    algorithm = headers.get(SSE)
    if secret:
        if algorithm is not None or KMS_KEY in headers:
            raise _bad(
                "Server Side Encryption with Customer provided key is incompatible with the "
                "encryption method specified",
                SSE,
                algorithm or KMS,
            )
        if "SSE-C" in default.blocked:
            raise S3Error("AccessDenied")
        check_secure(call, needs_tls=needs_tls)
        return Sealing(secret=secret, note=_note(Note()))
    if algorithm is None:
        if not {KMS_KEY, CONTEXT}.isdisjoint(headers):
            raise _bad(
                "Server Side Encryption with AWS KMS managed key requires HTTP header "
                "x-amz-server-side-encryption : aws:kms",
                SSE,
                "null",
            )
        bucket_key = _flag(headers, default=default.bucket_key)
        return _of_default(msgspec.structs.replace(default, bucket_key=bucket_key), arn)
    if algorithm not in ALGORITHMS:
        raise _bad("The encryption method specified is not supported", SSE, algorithm)
    if algorithm == AES256:
        if not {KMS_KEY, CONTEXT}.isdisjoint(headers):
            raise _bad(
                "Server Side Encryption with AWS KMS managed key requires HTTP header "
                "x-amz-server-side-encryption : aws:kms",
                SSE,
                algorithm,
            )
        return Sealing(note=_note(Note(AES256)))
    key = headers.get(KMS_KEY, "")
    if KMS_KEY not in headers and default.algorithm == algorithm:
        key = default.key
    bucket_key = _flag(headers, default=default.bucket_key) and algorithm == KMS
    return _with_kms(algorithm, key, arn, bucket_key=bucket_key, context=_context(headers))


def customer_key(headers: Mapping[str, str], prefix: str = CUSTOMER) -> bytes:
    """Read an SSE-C key and check it; empty where none of its headers is there.

    Raises:
        S3Error: `InvalidArgument` or `InvalidEncryptionAlgorithmError`.
    """
    algorithm, key, md5 = (headers.get(prefix + part) for part in _PARTS)
    if algorithm is None and key is None and md5 is None:
        return b""
    says = "Requests specifying Server Side Encryption with Customer provided keys must provide"
    if algorithm is None:
        raise _bad(f"{says} a valid encryption algorithm.", f"{prefix}algorithm", "null")
    if algorithm != AES256:
        raise S3Error(
            "InvalidEncryptionAlgorithmError",
            details={"ArgumentName": f"{prefix}algorithm", "ArgumentValue": algorithm},
        )
    if key is None:
        raise _bad(f"{says} an appropriate secret key.", f"{prefix}key", "null")
    if md5 is None:
        raise _bad(
            f"{says} the client calculated MD5 of the secret key.", f"{prefix}key-MD5", "null"
        )
    secret = _decoded(key)
    if len(secret) != KEY_SIZE:
        # What was sent may be most of a key: it is not said again.
        raise S3Error("InvalidArgument", "The secret key was invalid for the specified algorithm.")
    if not hmac.compare_digest(hashlib.md5(secret, usedforsecurity=False).digest(), _decoded(md5)):
        raise _bad(
            "The calculated MD5 hash of the key did not match the hash that was provided.",
            f"{prefix}key-MD5",
            md5,
        )
    return secret


def secret_of_read(call: "Call", *, needs_tls: bool) -> bytes:
    """Read the SSE-C key that a GET, HEAD or upload of a part comes with.

    Raises:
        S3Error: As `customer_key`; `InvalidArgument` for the headers of the other forms, which are for writes.
    """
    headers = call.headers
    if READ_HEADERS.isdisjoint(headers):
        return b""
    if SSE in headers:
        raise _bad(f"{SSE} header is not supported for this operation.", SSE, headers[SSE])
    secret = customer_key(headers)
    check_secure(call, needs_tls=needs_tls)
    return secret


def secret_of_part(call: "Call", seal: SealInfo | None, *, needs_tls: bool) -> bytes:
    """Read the SSE-C key that a part comes with.

    Some clients repeat with each part how they began the upload. Where parts are encrypted by keys of the server that changes
    nothing and is let pass; where they are not, whoever says so is told.

    Raises:
        S3Error: As `secret_of_read`.
    """
    if seal is not None and not seal.own and SSE in call.headers:
        return customer_key(call.headers)
    return secret_of_read(call, needs_tls=needs_tls)


def check_secure(call: "Call", *, needs_tls: bool) -> None:
    """Refuse a key that came over a connection that others may have read along.

    Raises:
        S3Error: `InvalidRequest`.
    """
    if needs_tls and call.body.client.tls_version is None:
        raise S3Error(
            "InvalidRequest",
            "Requests specifying Server Side Encryption with Customer provided keys must be made "
            "over a secure connection.",
        )


def refused_read(error: Sealed) -> S3Error:
    """Say why encrypted content is not given out."""
    if error.why == "missing":
        return S3Error(
            "InvalidRequest",
            "The object was stored using a form of Server Side Encryption. The correct parameters "
            "must be provided to retrieve the object.",
        )
    if error.why == "needless":
        return S3Error(
            "InvalidRequest", "The encryption parameters are not applicable to this object."
        )
    if error.why == "wrong":
        return S3Error("AccessDenied")
    return from_core(error)


def refused_part(error: Sealed) -> S3Error:
    """Say why a part does not go with its upload."""
    if error.why == "missing":
        return S3Error(
            "InvalidRequest",
            "The multipart upload initiate requested encryption. Subsequent part requests must "
            "include the appropriate encryption parameters.",
        )
    if error.why == "needless":
        return S3Error(
            "InvalidRequest",
            "The multipart upload initiate did not request encryption. Please resend the request "
            "without sending encryption parameters.",
        )
    if error.why == "wrong":
        return _bad(
            "The provided encryption parameters did not match the ones used originally.",
            f"{CUSTOMER}key",
            "",
        )
    return from_core(error)


def changes(headers: Mapping[str, str]) -> bool:
    """Say whether a copy onto itself changes how the object is encrypted, or says it anew."""
    return not WRITE_HEADERS.isdisjoint(headers)


def digests_of(sealing: Sealing | None, digests: Digests) -> Digests:
    """Return the digests that are kept: where the key is the client's or one of KMS, the ETag tells nothing of the content."""
    if sealing is None or plain_etag(sealing.note):
        return digests
    return msgspec.structs.replace(digests, etag=opaque_etag())


def plain_etag(note: str) -> bool:
    """Say whether the ETag under a seal with this note is the MD5 of the content."""
    return _read(note).algorithm == AES256


def opaque_etag() -> str:
    """Make an ETag that is no digest."""
    return os.urandom(16).hex()


# Answers ------------------------------------------------------------------------------------------


def told(seal: SealInfo | None, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Write the headers that tell how content is encrypted, to a request with these headers."""
    if seal is None:
        return []
    if seal.own:
        secret = customer_key(headers)
        if not secret:
            return [(f"{CUSTOMER}algorithm", AES256)]
        md5 = hashlib.md5(secret, usedforsecurity=False).digest()
        return [
            (f"{CUSTOMER}algorithm", AES256),
            (f"{CUSTOMER}key-MD5", b64encode(md5).decode()),
        ]
    note = _read(seal.note)
    found = [(SSE, note.algorithm or AES256)]
    if note.algorithm in {KMS, DSSE}:
        found.append((KMS_KEY, note.key or note.arn + seal.key))
    if note.bucket_key:
        found.append((BUCKET_KEY, "true"))
    return found


def told_of_write(seal: SealInfo | None, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Write what `told` does, and the encryption context, which only writes are answered with."""
    found = told(seal, headers)
    if seal is not None and not seal.own and (context := _read(seal.note).context):
        found.append((CONTEXT, context))
    return found


# Buckets ------------------------------------------------------------------------------------------


def default_of(documents: Mapping[str, bytes], usual: str) -> Default:
    """Return how a bucket encrypts; `usual` is the algorithm where it does not say so itself, empty for none.

    Raises:
        S3Error: `InternalError`, its document is damaged.
    """
    kept = documents.get(ENCRYPTION)
    if kept is None:
        return Default(usual) if usual else NOTHING
    return _read_default(kept)


def from_xml(body: bytes) -> bytes:
    """Read a ServerSideEncryptionConfiguration; return the document to keep.

    Raises:
        S3Error: `MalformedXML` or `InvalidArgument`.
    """
    rules = parse(body, "ServerSideEncryptionConfiguration").findall("Rule")
    if len(rules) != 1:
        raise S3Error("MalformedXML")
    rule = rules[0]
    applied = rule.find("ApplyServerSideEncryptionByDefault")
    bucket_key = _boolean(rule.findtext("BucketKeyEnabled"))
    blocking = rule.find("BlockedEncryptionTypes")
    blocked: tuple[str, ...] = ()
    if blocking is not None:
        named = [element.text or "" for element in blocking.findall("EncryptionType")]
        if not set(named) <= BLOCKABLE:
            raise S3Error("MalformedXML")
        blocked = tuple(sorted(set(named) - {"NONE"}))
    if applied is None:
        if blocking is None and rule.find("BucketKeyEnabled") is None:
            raise S3Error("MalformedXML")
        return msgspec.json.encode(Default(AES256, "", bucket_key, blocked))
    algorithm = applied.findtext("SSEAlgorithm")
    key = (applied.findtext("KMSMasterKeyID") or "").strip()
    if algorithm not in ALGORITHMS:
        raise S3Error("MalformedXML")
    if algorithm == AES256 and applied.find("KMSMasterKeyID") is not None:
        raise S3Error(
            "InvalidArgument",
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or "
            "aws:kms:dsse",
            details={"ArgumentName": "KMSMasterKeyID", "ArgumentValue": key},
        )
    if len(key) > 2048:
        raise S3Error("InvalidArgument", details={"ArgumentName": "KMSMasterKeyID"})
    return msgspec.json.encode(Default(algorithm, key, bucket_key, blocked))


def to_xml(default: Default) -> str:
    """Write the content of a ServerSideEncryptionConfiguration."""
    from warp_s3.xml_output import escape

    key = f"<KMSMasterKeyID>{escape(default.key)}</KMSMasterKeyID>" if default.key else ""
    blocked = "".join(f"<EncryptionType>{each}</EncryptionType>" for each in default.blocked)
    if blocked:
        blocked = f"<BlockedEncryptionTypes>{blocked}</BlockedEncryptionTypes>"
    return (
        "<Rule><ApplyServerSideEncryptionByDefault>"
        f"<SSEAlgorithm>{default.algorithm}</SSEAlgorithm>{key}"
        "</ApplyServerSideEncryptionByDefault>"
        f"<BucketKeyEnabled>{'true' if default.bucket_key else 'false'}</BucketKeyEnabled>"
        f"{blocked}</Rule>"
    )


# Parts --------------------------------------------------------------------------------------------


def _of_default(default: Default, arn: str) -> Sealing | None:
    if not default.algorithm:
        return None
    if default.algorithm == AES256:
        return Sealing(note=_note(Note(AES256)))
    bucket_key = default.bucket_key and default.algorithm == KMS
    return _with_kms(default.algorithm, default.key, arn, bucket_key=bucket_key, context="")


def _with_kms(algorithm: str, key: str, arn: str, *, bucket_key: bool, context: str) -> Sealing:
    name = key_id(key)
    note = Note(algorithm, key if name else "", "" if name else arn, bucket_key, context)
    return Sealing(key=name, note=_note(note))


def key_id(key: str) -> str:
    """Return the id of a key that a client names by id, alias or ARN; empty for the one that S3 has itself."""
    if key.startswith("arn:"):
        key = key.split(":", 5)[-1].removeprefix("key/")
    return "" if key == "alias/aws/s3" else key


def _context(headers: Mapping[str, str]) -> str:
    text = headers.get(CONTEXT)
    if text is None:
        return ""
    try:
        found: Any = msgspec.json.decode(b64decode(text, validate=True), type=dict[str, str])
    except (Base64Error, ValueError, msgspec.DecodeError):
        found = None
    if found is None or len(text) > CONTEXT_MAX:
        raise _bad(
            "The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 string "
            "holding JSON which represents a string-string map",
            CONTEXT,
            text[:64],
        )
    return text


def _flag(headers: Mapping[str, str], *, default: bool) -> bool:
    text = headers.get(BUCKET_KEY)
    if text is None:
        return default
    if text.lower() not in {"true", "false"}:
        raise _bad("The bucket key header must be true or false", BUCKET_KEY, text)
    return text.lower() == "true"


def _boolean(text: str | None) -> bool:
    if text is None:
        return False
    if text.strip().lower() not in {"true", "false"}:
        raise S3Error("MalformedXML")
    return text.strip().lower() == "true"


def _bad(message: str, name: str, value: str) -> S3Error:
    return S3Error(
        "InvalidArgument", message, details={"ArgumentName": name, "ArgumentValue": value}
    )


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return b""


@lru_cache(maxsize=1024)
def _note(note: Note) -> str:
    return msgspec.json.encode(note).decode()


@lru_cache(maxsize=1024)
def _read(note: str) -> Note:
    try:
        return msgspec.json.decode(note, type=Note) if note else Note(AES256)
    except msgspec.DecodeError:
        return Note(AES256)  # of another protocol


@lru_cache(maxsize=1024)
def _read_default(kept: bytes) -> Default:
    try:
        return msgspec.json.decode(kept, type=Default)
    except msgspec.DecodeError as error:
        raise S3Error("InternalError") from error
