"""Objects posted by forms of browsers: the form says the key, its signed policy what may be posted."""

import hmac
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from warp_core.interfaces.auth import ANONYMOUS, Principal
from warp_core.views.objects import SMALL_MAX, ObjectInfo, Writer

from warp_s3 import post_policy, xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.conditions import write_condition
from warp_s3.digesting import Expected, kept_algorithm
from warp_s3.encryption import digests_of, told_of_write
from warp_s3.errors import S3Error
from warp_s3.form import Form, boundary_of
from warp_s3.locking import demand_lockable
from warp_s3.metadata import attributes_of, checksum_headers
from warp_s3.operations.encryption import wish
from warp_s3.operations.replication import pending
from warp_s3.receiving import OBJECT_MAX, needs_md5
from warp_s3.router import KEY_MAX
from warp_s3.sigv4 import UNSIGNED_PAYLOAD, credential_of
from warp_s3.xml_input import tag_set

if TYPE_CHECKING:
    from warp_s3.service import Service

PIECE: Final = 256 * 1024
"""Bytes that are received at a time."""

# Fields that are headers of a PUT; so is every `x-amz-` field but those of the signature.
_HEADERS: Final = frozenset(
    {
        *("cache-control", "content-type", "content-disposition", "content-encoding"),
        *("content-language", "content-md5", "expires"),
    }
)
_SIGNATURE: Final = frozenset(
    f"x-amz-{name}" for name in ("algorithm", "credential", "date", "signature", "security-token")
)
_KEPT: Final = ("host", "user-agent", "referer", "origin")


async def post_object(service: "Service", call: Call) -> Answer:
    """Store the file of a form."""
    form = Form(boundary_of(call.headers.get("content-type", "")))
    buffer = memoryview(bytearray(PIECE))
    content = b""
    while not form.in_file:
        count = await call.body.fill(buffer)
        if not count:
            raise S3Error("MalformedPOSTRequest")
        content = form.feed(buffer[:count])
    put, (low, high) = await _judged(service, call, form)
    info = await _stored(service, put, form, buffer, content, low, high)
    return _answer(put, form.fields, info)


async def _judged(service: "Service", call: Call, form: Form) -> tuple[Call, tuple[int, int]]:
    """Find out who signed a form, and turn it into the PUT that it stands for; returns also the sizes its policy allows."""
    fields = form.fields
    key = fields.get("key")
    if not key:
        raise S3Error(
            "InvalidArgument",
            "Bucket POST must contain a field named 'key'.  If it is specified, please check the "
            "order of the fields.",
            details={"ArgumentName": "key", "ArgumentValue": ""},
        )
    key = fields["key"] = key.replace("${filename}", form.filename)
    name = key.encode("utf-8")
    if not 1 <= len(name) <= KEY_MAX:
        raise S3Error("KeyTooLongError" if name else "UserKeyMustBeSpecified")
    principal = await _signer(service, fields)
    sizes = (0, OBJECT_MAX)
    if principal.name != ANONYMOUS.name:
        sizes = post_policy.check(fields["policy"], fields, call.bucket, now=time.time())
    put = Call(
        msgspec.structs.replace(call.request, headers=_headers(call.headers, fields)),
        msgspec.structs.replace(call.route, key=name),
        principal,
        call.body,
        UNSIGNED_PAYLOAD,
    )
    if call.body.note is not None:
        call.body.note.principal, call.body.note.route = principal, put.route
    await service.access.enter(put)
    return put, sizes


async def _signer(service: "Service", fields: Mapping[str, str]) -> Principal:
    """Return whose signature a form carries; nobody's where it has neither signature nor policy.

    Raises:
        S3Error: `InvalidArgument` for half a signature, `SignatureDoesNotMatch`, `InvalidAccessKeyId`.
    """
    if "x-amz-signature" in fields or "x-amz-credential" in fields or "x-amz-algorithm" in fields:
        _demand(fields, "policy", "x-amz-algorithm", "x-amz-credential", "x-amz-date")
        _demand(fields, "x-amz-signature")
        if fields["x-amz-algorithm"] != "AWS4-HMAC-SHA256":
            raise S3Error("InvalidArgument", "X-Amz-Algorithm only supports AWS4-HMAC-SHA256")
        access_key, scope = credential_of(fields["x-amz-credential"])
        if not fields["x-amz-date"].startswith(scope[:8]):
            raise S3Error("InvalidArgument", "X-Amz-Date is of another day than the credential")
        credential = await service.credential(access_key, fields.get("x-amz-security-token"))
        expected = service.signing_keys.get(credential.secret, scope).sign(_ascii(fields["policy"]))
        given = fields["x-amz-signature"]
    elif "signature" in fields or "awsaccesskeyid" in fields or "policy" in fields:
        # Version 2, which S3 still takes in forms.
        _demand(fields, "policy", "awsaccesskeyid", "signature")
        access_key = fields["awsaccesskeyid"]
        credential = await service.credential(access_key, fields.get("x-amz-security-token"))
        digest = hmac.digest(credential.secret.encode(), _ascii(fields["policy"]).encode(), "sha1")
        expected, given = b64encode(digest).decode(), fields["signature"]
    else:
        return ANONYMOUS
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise S3Error(
            "SignatureDoesNotMatch",
            details={"AWSAccessKeyId": access_key, "SignatureProvided": given},
        )
    return credential.principal


def _demand(fields: Mapping[str, str], *names: str) -> None:
    for name in names:
        if name not in fields:
            raise S3Error(
                "InvalidArgument",
                f"Bucket POST must contain a field named '{name}'.  If it is specified, please "
                "check the order of the fields.",
                details={"ArgumentName": name, "ArgumentValue": ""},
            )


def _ascii(policy: str) -> str:
    if not policy.isascii():
        raise S3Error("InvalidPolicyDocument", "Invalid Policy: Invalid Base64.")
    return policy


def _headers(headers: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of the PUT that a form stands for, as they would come over the wire."""
    found = {name: headers[name] for name in _KEPT if name in headers}
    for name, value in fields.items():
        if name in _HEADERS or (name.startswith("x-amz-") and name not in _SIGNATURE):
            found[name] = _one_line(name, value)
    if "acl" in fields:
        found["x-amz-acl"] = _one_line("acl", fields["acl"])
    if "tagging" in fields:
        found["x-amz-tagging"] = urlencode(tag_set(fields["tagging"].encode()))
    return found


def _one_line(name: str, value: str) -> str:
    """Refuse what could not be a header: it comes back as one."""
    if not name.isascii() or any(
        ord(character) < 32 or ord(character) == 127 for character in value
    ):
        raise S3Error("InvalidArgument", details={"ArgumentName": name, "ArgumentValue": value})
    return value.encode("utf-8").decode("latin-1")


async def _stored(
    service: "Service",
    put: Call,
    form: Form,
    buffer: memoryview,
    content: bytes,
    low: int,
    high: int,
) -> ObjectInfo:
    """Receive the file and store it."""
    owner, acl = await service.access.placed(put)
    attributes = await pending(service, put, attributes_of(put.headers, owner=owner, acl=acl))
    await demand_lockable(service, put, attributes)
    condition = write_condition(put.headers)
    sealing = await wish(service, put)
    expected = Expected(put.headers, UNSIGNED_PAYLOAD)
    algorithm = kept_algorithm(expected)
    sums = expected.sums(algorithm, md5=needs_md5(service, sealing))
    small = bytearray()
    writer: Writer | None = None
    size = 0
    try:
        async with service.uploads:
            while True:
                size += len(content)
                if size > min(high, OBJECT_MAX):
                    raise S3Error("EntityTooLarge", details={"MaxSizeAllowed": str(high)})
                if content:
                    await sums.update_in(service.pool, memoryview(content))
                if writer is None and size <= SMALL_MAX:
                    small += content
                else:
                    if writer is None:
                        writer = await service.objects.writer(
                            put.bucket,
                            put.key,
                            attributes,
                            condition=condition,
                            sealing=sealing,
                            origin=service.origin(put, "post"),
                        )
                        content, small = bytes(small) + content, bytearray()
                    await writer.write(content)
                count = await put.body.fill(buffer)
                if not count:
                    break
                content = form.feed(buffer[:count])
            if not form.done:
                raise S3Error("MalformedPOSTRequest")
            if size < low:
                raise S3Error(
                    "EntityTooSmall",
                    details={"ProposedSize": str(size), "MinSizeAllowed": str(low)},
                )
            expected.check(sums, put.body)
            if writer is not None:
                return await writer.commit(digests_of(sealing, sums.digests(algorithm)))
            return await service.objects.put(
                put.bucket,
                put.key,
                bytes(small),
                attributes,
                digests_of(sealing, sums.digests(algorithm)),
                condition=condition,
                sealing=sealing,
                origin=service.origin(put, "post"),
            )
    except BaseException:
        if writer is not None:
            await writer.abort()
        raise


def _answer(put: Call, fields: Mapping[str, str], info: ObjectInfo) -> Answer:
    place = (
        f"http://{put.headers.get('host', 'localhost')}/{put.bucket}/{xml_output.url_key(put.key)}"
    )
    headers = [("ETag", f'"{info.etag}"'), *checksum_headers(info.checksums, info.checksum_type)]
    headers += told_of_write(info.seal, put.headers)
    if info.version != "null":
        headers.append(("x-amz-version-id", info.version))
    target = fields.get("success_action_redirect", fields.get("redirect", ""))
    if urlsplit(target).scheme in {"http", "https"} and target.isprintable() and target.isascii():
        named = {"bucket": put.bucket, "key": put.key, "etag": f'"{info.etag}"'}
        joint = "&" if "?" in target else "?"
        location = f"{target}{joint}{urlencode(named, quote_via=quote)}"
        return empty(303, [*headers, ("Location", location)])
    headers.append(("Location", place))
    status = fields.get("success_action_status")
    if status == "201":
        body = xml_output.posted(place, put.bucket, info)
        return xml(body, status=201, headers=headers)
    return empty(200 if status == "200" else 204, headers)
