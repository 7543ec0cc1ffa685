"""The error codes of the query protocol, and which of them those of S3 and of core become."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from warp_core import errors as core

from warp_s3.errors import S3Error, from_core

CODES: Final[Mapping[str, int]] = MappingProxyType(
    {
        # code: HTTP status
        "AccessDenied": 403,
        "ConcurrentModification": 409,
        "DeleteConflict": 409,
        "EntityAlreadyExists": 409,
        "ExpiredToken": 403,
        "ExpiredTokenException": 400,
        "IDPCommunicationError": 400,
        "IDPRejectedClaim": 403,
        "IncompleteSignature": 400,
        "InternalFailure": 500,
        "InvalidAction": 400,
        "InvalidClientTokenId": 403,
        "InvalidIdentityToken": 400,
        "InvalidInput": 400,
        "InvalidParameterValue": 400,
        "LimitExceeded": 409,
        "MalformedPolicyDocument": 400,
        "MissingAuthenticationToken": 403,
        "MissingParameter": 400,
        "NoSuchEntity": 404,
        "PackedPolicyTooLarge": 400,
        "PolicyNotAttachable": 400,
        "RequestEntityTooLarge": 400,
        "ServiceUnavailable": 503,
        "SignatureDoesNotMatch": 403,
        "UnmodifiableEntity": 400,
        "ValidationError": 400,
    }
)


class QueryError(Exception):
    """An answer of the query protocol that is an error.

    Attributes:
        code: A key of `CODES`.
        status: HTTP status that goes with it.
        message: Sentence for a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.status = CODES[code]
        self.message = message


_FROM_S3: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AccessDenied": "AccessDenied",
        "AuthorizationHeaderMalformed": "IncompleteSignature",
        "AuthorizationQueryParametersError": "IncompleteSignature",
        "EntityTooLarge": "RequestEntityTooLarge",
        "ExpiredToken": "ExpiredToken",
        "InvalidAccessKeyId": "InvalidClientTokenId",
        "InvalidArgument": "ValidationError",
        "InvalidRequest": "IncompleteSignature",
        "InvalidToken": "InvalidClientTokenId",
        "InvalidURI": "ValidationError",
        "MaxMessageLengthExceeded": "RequestEntityTooLarge",
        "RequestTimeTooSkewed": "SignatureDoesNotMatch",
        "ServiceUnavailable": "ServiceUnavailable",
        "SignatureDoesNotMatch": "SignatureDoesNotMatch",
        "SlowDown": "ConcurrentModification",
        "XAmzContentSHA256Mismatch": "SignatureDoesNotMatch",
    }
)
_MESSAGES: Final = {
    "InvalidClientTokenId": "The security token included in the request is invalid.",
}


def from_s3(error: S3Error) -> QueryError:
    """Translate an error of the parts that S3 and the query protocol share."""
    code = _FROM_S3.get(error.code, "InternalFailure")
    return QueryError(code, _MESSAGES.get(code, error.message))


def from_warp(error: core.WarpError) -> QueryError:
    """Translate an error of core."""
    if isinstance(error, core.TooLarge):
        return QueryError("LimitExceeded", str(error))
    if isinstance(error, core.InvalidArgument):
        return QueryError("ValidationError", str(error))
    if isinstance(error, core.NotFound):
        return QueryError("NoSuchEntity", str(error))
    return from_s3(from_core(error))
