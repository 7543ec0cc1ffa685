"""The S3 error codes this server answers with, and which of them core's errors become."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from warp_core import errors as core

CODES: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        # code: (HTTP status, default message); wording as S3 itself sends it.
        "AccessControlListNotSupported": (400, "The bucket does not allow ACLs"),
        "AccessDenied": (403, "Access Denied"),
        "AccessForbidden": (403, "CORSResponse: CORS is not enabled for this bucket."),
        "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
        "AuthorizationQueryParametersError": (400, "Error parsing the query parameters."),
        "BadDigest": (400, "The Content-MD5 or checksum value that you specified did not match."),
        "BadRequest": (400, "An error occurred when parsing the HTTP request."),
        "BucketAlreadyExists": (
            409,
            "The requested bucket name is not available. The bucket namespace is shared by all "
            "users of the system. Please select a different name and try again.",
        ),
        "BucketAlreadyOwnedByYou": (
            409,
            "Your previous request to create the named bucket succeeded and you already own it.",
        ),
        "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
        "ConditionalRequestConflict": (
            409,
            "A conflicting conditional operation is currently in progress against this resource. "
            "Please try again.",
        ),
        "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size"),
        "EntityTooSmall": (
            400,
            "Your proposed upload is smaller than the minimum allowed size",
        ),
        "ExpiredToken": (400, "The provided token has expired."),
        "IllegalVersioningConfigurationException": (
            400,
            "The versioning configuration specified in the request is not valid.",
        ),
        "IncompleteBody": (
            400,
            "You did not provide the number of bytes specified by the Content-Length HTTP header",
        ),
        "InsufficientStorage": (
            507,
            "The server is out of storage space; reads and deletes go on.",
        ),
        "InternalError": (500, "We encountered an internal error. Please try again."),
        "InvalidAccessKeyId": (
            403,
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
        "InvalidArgument": (400, "Invalid Argument"),
        "InvalidBucketAclWithObjectOwnership": (
            400,
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
        ),
        "InvalidBucketName": (400, "The specified bucket is not valid."),
        "InvalidBucketState": (
            409,
            "The request is not valid with the current state of the bucket.",
        ),
        "InvalidDigest": (400, "The Content-MD5 or checksum value you specified is not valid."),
        "InvalidEncryptionAlgorithmError": (
            400,
            "The encryption request you specified is not valid. The valid value is AES256.",
        ),
        "InvalidLocationConstraint": (400, "The specified location-constraint is not valid"),
        "InvalidObjectState": (
            403,
            "The operation is not valid for the object's storage class.",
        ),
        "InvalidPart": (
            400,
            "One or more of the specified parts could not be found.  The part may not have been "
            "uploaded, or the specified entity tag may not match the part's entity tag.",
        ),
        "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
        "InvalidPartOrder": (
            400,
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
        ),
        "InvalidPolicyDocument": (
            400,
            "The content of the form does not meet the conditions specified in the policy document.",
        ),
        "InvalidRedirectLocation": (
            400,
            "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.",
        ),
        "InvalidRange": (416, "The requested range is not satisfiable"),
        "InvalidRequest": (400, "Invalid Request"),
        "InvalidRetentionPeriod": (
            400,
            "Default retention period must be a positive integer value.",
        ),
        "RestoreAlreadyInProgress": (409, "Object restore is already in progress"),
        "InvalidStorageClass": (400, "The storage class you specified is not valid"),
        "InvalidTag": (400, "The tag provided was not a valid tag."),
        "InvalidToken": (400, "The provided token is malformed or otherwise invalid."),
        "InvalidTargetBucketForLogging": (
            400,
            "The target bucket for logging does not exist, is not owned by you, or does not have "
            "the appropriate grants for the log-delivery group.",
        ),
        "InvalidURI": (400, "Couldn't parse the specified URI."),
        "KMS.DisabledException": (400, "The request was rejected because the key is disabled."),
        "KMS.KMSInvalidStateException": (
            400,
            "The request was rejected because the key service cannot use the key now.",
        ),
        "KMS.NotFoundException": (400, "Invalid keyId: the key does not exist"),
        "KeyTooLongError": (400, "Your key is too long"),
        "MalformedACLError": (
            400,
            "The XML you provided was not well-formed or did not validate against our published "
            "schema",
        ),
        "MalformedPOSTRequest": (
            400,
            "The body of your POST request is not well-formed multipart/form-data.",
        ),
        "MalformedPolicy": (400, "The policy is not valid."),
        "MalformedTrailerError": (
            400,
            "The request contained trailing data that was not well-formed or did not conform to "
            "our published schema.",
        ),
        "MalformedXML": (
            400,
            "The XML you provided was not well-formed or did not validate against our published "
            "schema",
        ),
        "MaxMessageLengthExceeded": (400, "Your request was too big."),
        "MaxPostPreDataLengthExceeded": (
            400,
            "Your POST request fields preceding the upload file were too large.",
        ),
        "MetadataTooLarge": (
            400,
            "Your metadata headers exceed the maximum allowed metadata size",
        ),
        "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
        "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
        "MissingRequestBodyError": (400, "Request body is empty."),
        "MissingSecurityHeader": (400, "Your request was missing a required header"),
        "NoSuchBucket": (404, "The specified bucket does not exist"),
        "NoSuchBucketPolicy": (404, "The bucket policy does not exist"),
        "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
        "NoSuchConfiguration": (404, "The specified configuration does not exist."),
        "NoSuchKey": (404, "The specified key does not exist."),
        "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist"),
        "NoSuchObjectLockConfiguration": (
            404,
            "The specified object does not have a ObjectLock configuration",
        ),
        "NoSuchPublicAccessBlockConfiguration": (
            404,
            "The public access block configuration was not found",
        ),
        "NoSuchTagSet": (404, "The TagSet does not exist"),
        "NoSuchUpload": (
            404,
            "The specified upload does not exist. The upload ID may be invalid, or the upload may "
            "have been aborted or completed.",
        ),
        "NoSuchVersion": (404, "The specified version does not exist."),
        "NoSuchWebsiteConfiguration": (
            404,
            "The specified bucket does not have a website configuration",
        ),
        "NotImplemented": (
            501,
            "A header you provided implies functionality that is not implemented",
        ),
        "ObjectLockConfigurationNotFoundError": (
            404,
            "Object Lock configuration does not exist for this bucket",
        ),
        "OperationAborted": (
            409,
            "A conflicting conditional operation is currently in progress against this resource. "
            "Please try again.",
        ),
        "OwnershipControlsNotFoundError": (
            404,
            "The bucket ownership controls were not found",
        ),
        "PreconditionFailed": (
            412,
            "At least one of the pre-conditions you specified did not hold",
        ),
        "QuotaExceeded": (403, "The quota of this bucket is used up."),
        "ReplicationConfigurationNotFoundError": (
            404,
            "The replication configuration was not found",
        ),
        "RequestHeaderSectionTooLarge": (
            400,
            "Your request header and query parameters used to make the request exceed the "
            "maximum allowed size.",
        ),
        "RequestTimeTooSkewed": (
            403,
            "The difference between the request time and the current time is too large.",
        ),
        "RequestTimeout": (
            400,
            "Your socket connection to the server was not read from or written to within the "
            "timeout period.",
        ),
        "ServerSideEncryptionConfigurationNotFoundError": (
            404,
            "The server side encryption configuration was not found",
        ),
        "ServiceUnavailable": (503, "Please reduce your request rate."),
        "SignatureDoesNotMatch": (
            403,
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
        ),
        "SlowDown": (503, "Please reduce your request rate."),
        "TooManyBuckets": (
            400,
            "You have attempted to create more buckets than allowed",
        ),
        "TooManyConfigurations": (
            400,
            "You are attempting to create a new configuration but have already reached the limit.",
        ),
        "UnexpectedContent": (400, "This request does not support content"),
        "UnresolvableGrantByEmailAddress": (
            400,
            "The email address you provided does not match any account on record.",
        ),
        "UnsupportedHttpVersion": (505, "Only HTTP/1.0 and HTTP/1.1 are supported."),
        "UserKeyMustBeSpecified": (400, "The key must not be empty."),
        "XAmzContentSHA256Mismatch": (
            400,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
    }
)


class S3Error(Exception):
    """An answer of S3 that is an error: a code of `CODES` and what the reader should know.

    Attributes:
        code: The S3 error code, a key of `CODES`.
        status: HTTP status that goes with it.
        message: Sentence for a person.
        details: Further XML elements of the answer, name to text.
        headers: Further response headers, name to value.
        closes: The connection's framing can no longer be trusted, so it ends after the answer.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        status, default = CODES[code]
        super().__init__(code, message or default)
        self.code = code
        self.status = status
        self.message = message or default
        self.details = details or {}
        self.headers = headers or {}
        self.closes = closes


class PageError(S3Error):
    """An error of a website, which is told as a page.

    Attributes:
        further: What went wrong with the page that the bucket has for errors.
        page: Key of that page.
    """

    def __init__(self, error: S3Error, further: S3Error | None = None, page: str = "") -> None:
        super().__init__(
            error.code,
            error.message,
            details=error.details,
            headers=error.headers,
            closes=error.closes,
        )
        self.further = further
        self.page = page


FROM_CORE: Final[Mapping[type[core.WarpError], str]] = MappingProxyType(
    {
        # What the caller asked for.
        core.InvalidArgument: "InvalidArgument",
        core.NameTooLong: "KeyTooLongError",
        core.TooLarge: "EntityTooLarge",
        core.OutOfRange: "InvalidRange",
        core.Unsupported: "NotImplemented",
        core.NotFound: "NoSuchKey",
        core.VolumeNotFound: "NoSuchBucket",
        core.VersionNotFound: "NoSuchVersion",
        core.UploadNotFound: "NoSuchUpload",
        core.IsDeleteMarker: "NoSuchKey",
        core.KeyNotFound: "KMS.NotFoundException",
        core.AlreadyExists: "BucketAlreadyExists",
        core.AlreadyOwned: "BucketAlreadyOwnedByYou",
        core.NotADirectory: "InvalidRequest",
        core.IsADirectory: "InvalidRequest",
        core.NotEmpty: "BucketNotEmpty",
        core.TooManyLinks: "InvalidRequest",
        core.CrossesVolumes: "InvalidRequest",
        core.PreconditionFailed: "PreconditionFailed",
        core.BadDigest: "BadDigest",
        # Who asked.
        core.Unauthenticated: "InvalidAccessKeyId",
        core.PermissionDenied: "AccessDenied",
        core.Retained: "AccessDenied",
        core.Sealed: "KMS.KMSInvalidStateException",
        core.Archived: "InvalidObjectState",
        core.KeyDisabled: "KMS.DisabledException",
        core.ReadOnly: "AccessDenied",
        core.WritesStopped: "ServiceUnavailable",
        # Who else is there. SDKs retry SlowDown with backoff, and 409 they do not: a disk may stay attached for days.
        core.Conflict: "SlowDown",
        core.Locked: "OperationAborted",
        core.Deadlock: "SlowDown",
        core.Busy: "SlowDown",
        core.InGrace: "SlowDown",
        core.Restoring: "RestoreAlreadyInProgress",
        core.StaleHandle: "InternalError",
        core.Fenced: "ServiceUnavailable",
        core.Expired: "ServiceUnavailable",
        # What the machine did. 507 is not retried: a full disk does not empty itself.
        core.NoSpace: "InsufficientStorage",
        core.QuotaExceeded: "QuotaExceeded",
        core.Corrupt: "InternalError",
        core.StoreFailed: "InternalError",
        core.Unavailable: "ServiceUnavailable",
        core.TimedOut: "ServiceUnavailable",
        core.Ambiguous: "InternalError",
        # Defects of ours, and what should have been found before a client could ask.
        core.ConfigError: "InternalError",
        core.PluginError: "InternalError",
        core.NewerFormat: "InternalError",
        core.AlreadyRunning: "InternalError",
        core.RemoteProtocolError: "InternalError",
        core.LocalProtocolError: "InternalError",
    }
)

# Codes whose message comes from core, as it names the limit or the value; the others have S3's own
# wording, and what went wrong inside stays inside.
_TELLING: Final = frozenset(
    {
        *("InvalidArgument", "EntityTooLarge", "InvalidRequest", "NotImplemented"),
        *("KMS.NotFoundException", "KMS.DisabledException"),
    }
)


def from_core(error: core.WarpError) -> S3Error:
    """Translate an error of core; subclasses that the table does not know go by their parents."""
    code = next(FROM_CORE[kind] for kind in type(error).__mro__ if kind in FROM_CORE)
    message = str(error) if code in _TELLING else None
    if isinstance(error, core.WritesStopped):
        message = "This node stopped accepting changes after an error of its disk; reads go on."
    elif isinstance(error, core.Locked):
        message = "The object is open as a file or attached as a disk, and may not be replaced or removed now."
    elif isinstance(error, core.ReadOnly):
        message = "Access Denied: the bucket is read-only"
    if isinstance(error, core.Archived):
        return S3Error(code, details={"StorageClass": error.storage_class})
    if isinstance(error, core.PreconditionFailed) and error.condition:
        return S3Error(code, details={"Condition": error.condition})
    if isinstance(error, core.IsDeleteMarker):
        return delete_marker(error.version, named=False)
    return S3Error(code, message)


def delete_marker(version: str, *, named: bool) -> S3Error:
    """Say that an object is deleted: as if it were not there, or, asked for by its id, what it is."""
    headers = {"x-amz-delete-marker": "true"}
    if version:
        headers["x-amz-version-id"] = version
    if named:
        return S3Error("MethodNotAllowed", headers={**headers, "Allow": "DELETE"})
    return S3Error("NoSuchKey", headers=headers)
