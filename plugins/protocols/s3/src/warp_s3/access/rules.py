"""What each operation of S3 needs: its action in policies, the ACL that can give it, and what it is done to.

Source: "Actions, resources, and condition keys for Amazon S3" (service authorization reference), and for ACLs
"Mapping of ACL permissions and access policy permissions" in the user guide.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from warp_s3.access.acl import READ, READ_ACP, WRITE, WRITE_ACP
from warp_s3.router import BUCKET, OBJECT, OPERATIONS, SERVICE


class Rule(NamedTuple):
    """One operation's needs."""

    action: str  # "s3:GetObject"
    level: int  # SERVICE, BUCKET or OBJECT: what the resource of the action is
    versioned: str = ""  # the action where a version is named
    acl: str = ""  # permission of an ACL that is enough
    acl_level: int = OBJECT  # whose ACL: the object's, or the bucket's
    content: bool = False  # looks at an object that is there: its owner counts
    each: bool = False  # names many keys, each judged by itself
    owners: bool = False  # no policy keeps the bucket's owner from it


def _bucket(noun: str, action: str = "") -> dict[str, Rule]:
    name = action or noun
    return {
        f"Get{noun}": Rule(f"s3:Get{name}", BUCKET),
        f"Put{noun}": Rule(f"s3:Put{name}", BUCKET),
        f"Create{noun}": Rule(f"s3:Create{name}", BUCKET),
        # S3 knows no actions of their own for taking most settings away.
        f"Delete{noun}": Rule(f"s3:Put{name}", BUCKET),
    }


_WRITE: Final = Rule("s3:PutObject", OBJECT, acl=WRITE, acl_level=BUCKET)
_READ: Final = Rule("s3:GetObject", OBJECT, "s3:GetObjectVersion", READ, content=True)
_LIST: Final = Rule("s3:ListBucket", BUCKET, acl=READ, acl_level=BUCKET)

_ALL: Final[dict[str, Rule]] = {
    **_bucket("BucketAbac"),
    **_bucket("BucketAccelerateConfiguration", "AccelerateConfiguration"),
    **_bucket("BucketAnalyticsConfiguration", "AnalyticsConfiguration"),
    **_bucket("BucketCors", "BucketCORS"),
    **_bucket("BucketEncryption", "EncryptionConfiguration"),
    **_bucket("BucketIntelligentTieringConfiguration", "IntelligentTieringConfiguration"),
    **_bucket("BucketInventoryConfiguration", "InventoryConfiguration"),
    **_bucket("BucketLifecycleConfiguration", "LifecycleConfiguration"),
    **_bucket("BucketLocation"),
    **_bucket("BucketLogging"),
    **_bucket("BucketMetadataConfiguration", "BucketMetadataTableConfiguration"),
    **_bucket("BucketMetadataTableConfiguration"),
    **_bucket("BucketMetricsConfiguration", "MetricsConfiguration"),
    **_bucket("BucketNotificationConfiguration", "BucketNotification"),
    **_bucket("ObjectLockConfiguration", "BucketObjectLockConfiguration"),
    **_bucket("BucketOwnershipControls"),
    **_bucket("PublicAccessBlock", "BucketPublicAccessBlock"),
    **_bucket("BucketReplication", "ReplicationConfiguration"),
    **_bucket("BucketRequestPayment"),
    **_bucket("BucketTagging"),
    **_bucket("BucketVersioning"),
    **_bucket("BucketWebsite"),
    "DeleteBucketWebsite": Rule("s3:DeleteBucketWebsite", BUCKET),
    "UpdateBucketMetadataInventoryTable": Rule(
        "s3:UpdateBucketMetadataInventoryTableConfiguration", BUCKET
    ),
    "UpdateBucketMetadataJournalTable": Rule(
        "s3:UpdateBucketMetadataJournalTableConfiguration", BUCKET
    ),
    "UpdateBucketMetadataAnnotationTable": Rule(
        "s3:UpdateBucketMetadataAnnotationTableConfiguration", BUCKET
    ),
    "GetBucketPolicy": Rule("s3:GetBucketPolicy", BUCKET, owners=True),
    "PutBucketPolicy": Rule("s3:PutBucketPolicy", BUCKET, owners=True),
    "DeleteBucketPolicy": Rule("s3:DeleteBucketPolicy", BUCKET, owners=True),
    "GetBucketPolicyStatus": Rule("s3:GetBucketPolicyStatus", BUCKET),
    "GetBucketAcl": Rule("s3:GetBucketAcl", BUCKET, acl=READ_ACP, acl_level=BUCKET),
    "PutBucketAcl": Rule("s3:PutBucketAcl", BUCKET, acl=WRITE_ACP, acl_level=BUCKET),
    "ListBuckets": Rule("s3:ListAllMyBuckets", SERVICE),
    "CreateBucket": Rule("s3:CreateBucket", SERVICE),
    "HeadBucket": _LIST,
    "DeleteBucket": Rule("s3:DeleteBucket", BUCKET),
    "CreateSession": Rule("s3express:CreateSession", BUCKET),
    "ListObjects": _LIST,
    "ListObjectsV2": _LIST,
    "ListObjectVersions": _LIST._replace(action="s3:ListBucketVersions"),
    "ListMultipartUploads": _LIST._replace(action="s3:ListBucketMultipartUploads"),
    "GetObject": _READ,
    "HeadObject": _READ,
    "GetObjectAttributes": _READ,
    "SelectObjectContent": _READ,
    "GetObjectTorrent": _READ._replace(action="s3:GetObjectTorrent", versioned=""),
    "PutObject": _WRITE,
    "PostObject": _WRITE,
    "CopyObject": _WRITE,
    "RenameObject": _WRITE,
    "CreateMultipartUpload": _WRITE,
    "UploadPart": _WRITE,
    "UploadPartCopy": _WRITE,
    "CompleteMultipartUpload": _WRITE,
    "ListParts": _WRITE._replace(action="s3:ListMultipartUploadParts"),
    "AbortMultipartUpload": _WRITE._replace(action="s3:AbortMultipartUpload"),
    "DeleteObject": _WRITE._replace(action="s3:DeleteObject", versioned="s3:DeleteObjectVersion"),
    "DeleteObjects": Rule("s3:DeleteObject", BUCKET, each=True),
    "GetObjectAcl": Rule(
        "s3:GetObjectAcl", OBJECT, "s3:GetObjectVersionAcl", READ_ACP, content=True
    ),
    "PutObjectAcl": Rule(
        "s3:PutObjectAcl", OBJECT, "s3:PutObjectVersionAcl", WRITE_ACP, content=True
    ),
    "GetObjectTagging": Rule(
        "s3:GetObjectTagging", OBJECT, "s3:GetObjectVersionTagging", content=True
    ),
    "PutObjectTagging": Rule(
        "s3:PutObjectTagging", OBJECT, "s3:PutObjectVersionTagging", content=True
    ),
    "DeleteObjectTagging": Rule(
        "s3:DeleteObjectTagging", OBJECT, "s3:DeleteObjectVersionTagging", content=True
    ),
    "GetObjectAnnotation": Rule("s3:GetObjectAnnotation", OBJECT, content=True),
    "PutObjectAnnotation": Rule("s3:PutObjectAnnotation", OBJECT, content=True),
    "DeleteObjectAnnotation": Rule("s3:DeleteObjectAnnotation", OBJECT, content=True),
    "PutObjectEncryption": Rule("s3:UpdateObjectEncryption", OBJECT, content=True),
    "GetObjectLegalHold": Rule("s3:GetObjectLegalHold", OBJECT, content=True),
    "PutObjectLegalHold": Rule("s3:PutObjectLegalHold", OBJECT, content=True),
    "GetObjectRetention": Rule("s3:GetObjectRetention", OBJECT, content=True),
    "PutObjectRetention": Rule("s3:PutObjectRetention", OBJECT, content=True),
    "RestoreObject": Rule("s3:RestoreObject", OBJECT, content=True),
}

REPLICATE: Final = {
    "DeleteObject": Rule("s3:ReplicateDelete", OBJECT),
    "": Rule("s3:ReplicateObject", OBJECT),
}
"""No operation, but what a request asks for that says where a version comes from: of a marker, and of everything else."""

BYPASS: Final = Rule("s3:BypassGovernanceRetention", OBJECT)
"""No operation, but what one asks for that ends retention in mode GOVERNANCE before its time."""

OPEN: Final = frozenset({"Preflight", "Query"})
"""Operations that nobody has to be anybody for: a browser asks before it has permission, and `warp_s3.iam` judges its own."""

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {name: _ALL[name] for name in OPERATIONS if name not in OPEN}
)
"""Every operation that the router knows: one without a rule is a KeyError when this module is imported."""
