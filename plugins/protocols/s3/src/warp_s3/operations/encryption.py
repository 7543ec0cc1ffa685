"""How buckets encrypt: set, told, taken away."""

from typing import TYPE_CHECKING

from warp_core.views.objects import Sealing

from warp_s3 import encryption, xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.owners import owner_of
from warp_s3.receiving import read_document

if TYPE_CHECKING:
    from warp_s3.service import Service


async def get_encryption(service: "Service", call: Call) -> Answer:
    """Tell how a bucket encrypts what does not say it."""
    documents = (await service.objects.volume(call.bucket)).documents
    default = encryption.default_of(documents, service.config.default_encryption)
    if not default.algorithm:
        raise S3Error(
            "ServerSideEncryptionConfigurationNotFoundError", details={"BucketName": call.bucket}
        )
    root = "ServerSideEncryptionConfiguration"
    return xml(xml_output.document(root, encryption.to_xml(default)))


async def put_encryption(service: "Service", call: Call) -> Answer:
    """Say how a bucket encrypts from now on; what is there stays as it is."""
    kept = encryption.from_xml(await read_document(call))
    await service.objects.set_document(call.bucket, encryption.ENCRYPTION, kept)
    return empty(200)


async def delete_encryption(service: "Service", call: Call) -> Answer:
    """Take back what a bucket said."""
    await service.objects.set_document(call.bucket, encryption.ENCRYPTION, None)
    return empty(204)


async def wish(service: "Service", call: Call) -> Sealing | None:
    """Return how a write is to be encrypted: as it says, or as its bucket does.

    Raises:
        S3Error: As `encryption.wish`.
    """
    volume = service.objects.volume_now(call.bucket) or await service.objects.volume(call.bucket)
    usual = service.config.default_encryption
    default = encryption.default_of(volume.documents, usual)
    if not default.algorithm and encryption.WRITE_HEADERS.isdisjoint(call.headers):
        return None
    arn = ""
    if encryption.KMS in (call.headers.get(encryption.SSE, "") + default.algorithm):
        owner = owner_of(await service.accounts(), volume.owner)
        arn = f"arn:aws:kms:{service.region}:{owner.number}:key/"
    needs_tls = service.config.sse_c_needs_tls
    return encryption.wish(call, default, arn=arn, needs_tls=needs_tls)
