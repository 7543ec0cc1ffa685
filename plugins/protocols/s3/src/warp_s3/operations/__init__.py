"""The operations of S3, by the names that the router gives them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from warp_s3.auditing import audited
from warp_s3.call import Call, Outcome
from warp_s3.operations import (
    access,
    buckets,
    configurations,
    copying,
    cors,
    deleting,
    encryption,
    lifecycle,
    listing,
    locking,
    logging,
    multipart,
    notifications,
    objects,
    posting,
    replication,
    restoring,
    selecting,
    settings,
    tagging,
    website,
)

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Outcome]

HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    audited(
        {
            "ListBuckets": buckets.list_buckets,
            "CreateBucket": buckets.create_bucket,
            "HeadBucket": buckets.head_bucket,
            "DeleteBucket": buckets.delete_bucket,
            "GetBucketLocation": buckets.get_location,
            "GetBucketVersioning": buckets.get_versioning,
            "PutBucketVersioning": buckets.put_versioning,
            "ListObjects": listing.list_objects,
            "ListObjectsV2": listing.list_objects_v2,
            "ListObjectVersions": listing.list_versions,
            "GetObject": objects.get_object,
            "HeadObject": objects.head_object,
            "PutObject": objects.put_object,
            "CopyObject": copying.copy_object,
            "GetObjectAttributes": objects.get_attributes,
            "PostObject": posting.post_object,
            "DeleteObject": deleting.delete_object,
            "DeleteObjects": deleting.delete_objects,
            "CreateMultipartUpload": multipart.create_upload,
            "UploadPart": multipart.upload_part,
            "UploadPartCopy": multipart.copy_part,
            "ListParts": multipart.list_parts,
            "ListMultipartUploads": multipart.list_uploads,
            "CompleteMultipartUpload": multipart.complete_upload,
            "AbortMultipartUpload": multipart.abort_upload,
            "GetObjectTagging": tagging.get_tags,
            "PutObjectTagging": tagging.put_tags,
            "DeleteObjectTagging": tagging.delete_tags,
            "GetBucketTagging": tagging.get_bucket_tags,
            "PutBucketTagging": tagging.put_bucket_tags,
            "DeleteBucketTagging": tagging.delete_bucket_tags,
            "GetBucketCors": cors.get_cors,
            "PutBucketCors": cors.put_cors,
            "DeleteBucketCors": cors.delete_cors,
            "Preflight": cors.preflight,
            "GetBucketEncryption": encryption.get_encryption,
            "PutBucketEncryption": encryption.put_encryption,
            "DeleteBucketEncryption": encryption.delete_encryption,
            **access.HANDLERS,
            **configurations.HANDLERS,
            **lifecycle.HANDLERS,
            **locking.HANDLERS,
            **logging.HANDLERS,
            **notifications.HANDLERS,
            **replication.HANDLERS,
            **restoring.HANDLERS,
            **selecting.HANDLERS,
            **settings.HANDLERS,
            **website.HANDLERS,
        }
    )
)
