"""CORS of buckets: set, told, taken away, and asked for by browsers."""

from typing import TYPE_CHECKING

from warp_core.errors import VolumeNotFound

from warp_s3 import cors
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.receiving import read_document

if TYPE_CHECKING:
    from warp_s3.service import Service


async def get_cors(service: "Service", call: Call) -> Answer:
    """Tell a bucket's rules."""
    kept = (await service.objects.volume(call.bucket)).documents.get(cors.CORS)
    if kept is None:
        raise S3Error("NoSuchCORSConfiguration", details={"BucketName": call.bucket})
    return xml(cors.to_xml(cors.rules_of(kept)))


async def put_cors(service: "Service", call: Call) -> Answer:
    """Replace a bucket's rules."""
    kept = cors.from_xml(await read_document(call))
    await service.objects.set_document(call.bucket, cors.CORS, kept)
    return empty(200)


async def delete_cors(service: "Service", call: Call) -> Answer:
    """Take a bucket's rules away."""
    await service.objects.set_document(call.bucket, cors.CORS, None)
    return empty(204)


async def preflight(service: "Service", call: Call) -> Answer:
    """Tell a browser what a page may send; nobody has to be anybody for that."""
    origin = call.headers.get("origin")
    if not origin:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    method = call.headers.get("access-control-request-method")
    if method not in cors.METHODS:
        raise S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {method or 'null'}")
    text = call.headers.get("access-control-request-headers", "")
    asked = [name.strip() for name in text.split(",") if name.strip()]
    rules = await rules_of_bucket(service, call.bucket)
    if not rules:
        raise S3Error("AccessForbidden")
    headers = cors.answer_headers(rules, origin, method, asked)
    if headers is None:
        raise S3Error(
            "AccessForbidden",
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution of "
            "Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers "
            "are not whitelisted by the resource's CORS spec.",
        )
    return empty(200, headers)


async def rules_of_bucket(service: "Service", bucket: str) -> tuple[cors.Rule, ...]:
    """Return a bucket's rules; none where there is no such bucket."""
    try:
        kept = (await service.objects.volume(bucket)).documents.get(cors.CORS)
    except VolumeNotFound:
        return ()
    return () if kept is None else cors.rules_of(kept)
