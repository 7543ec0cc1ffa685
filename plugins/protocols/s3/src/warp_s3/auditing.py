"""Which requests are put on record in the node's audit log, and what the record tells of them.

Those that say who may do what, what is kept how long, and what a bucket does; and whoever removes what is held. Documents are not in
the record, as they may be long and carry what is nobody else's business: of those of IAM it has the SHA-256.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from warp_core.interfaces.audit import Caller
from warp_core.interfaces.auth import ANONYMOUS, Principal

from warp_s3.call import Answer, Call, Outcome, finished

if TYPE_CHECKING:
    from warp_s3.iam.wire import Form
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Outcome]

BYPASS: Final = "x-amz-bypass-governance-retention"

_OF_OBJECTS: Final = frozenset({"PutObjectAcl", "PutObjectRetention", "PutObjectLegalHold"})
_OF_BUCKETS: Final = (
    "CreateBucket",
    "DeleteBucket",
    "PutBucket",
    "PutPublicAccessBlock",
    "DeletePublicAccessBlock",
    "PutObjectLockConfiguration",
)
_DELETING: Final = frozenset({"DeleteObject", "DeleteObjects"})

# Fields of the query protocol that name something; documents and secrets are not among them.
_NAMES: Final = frozenset(
    {
        "AccessKeyId",
        "AccountAlias",
        "GroupName",
        "NewGroupName",
        "NewPath",
        "NewUserName",
        "OpenIDConnectProviderArn",
        "Path",
        "PermissionsBoundary",
        "PolicyArn",
        "PolicyName",
        "RoleName",
        "SetAsDefault",
        "Status",
        "Url",
        "UserName",
        "VersionId",
    }
)
_DOCUMENTS: Final = ("PolicyDocument", "AssumeRolePolicyDocument")


def is_audited(operation: str) -> bool:
    """Say whether requests of an operation are put on record."""
    return operation in _OF_OBJECTS or operation.startswith(_OF_BUCKETS)


def audited(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """Return handlers, of which those that are audited put their requests on record."""
    return {name: _wrapped(name, handler) for name, handler in handlers.items()}


def _wrapped(name: str, handler: Handler) -> Handler:
    async def recorded(service: "Service", call: Call) -> Answer:
        async with service.audit.change(caller_of(call), f"s3:{name}", about(call)):
            return await finished(handler(service, call))

    def where_held(service: "Service", call: Call) -> Outcome:
        return recorded(service, call) if BYPASS in call.headers else handler(service, call)

    if is_audited(name):
        return recorded
    return where_held if name in _DELETING else handler


def caller_of(call: Call, principal: Principal | None = None) -> Caller:
    """Return who sent a request."""
    sender = principal or call.principal
    name = (
        "anonymous" if sender.name == ANONYMOUS.name else getattr(sender, "arn", "") or sender.name
    )
    return Caller(name, "s3", call.body.client.address or "")


def about(call: Call) -> dict[str, object]:
    """Return what a request is about."""
    told: dict[str, object] = {"bucket": call.bucket}
    if call.key:
        told["key"] = call.key.decode("utf-8", "replace")
    if "versionId" in call.query:
        told["version"] = call.query["versionId"]
    if "x-amz-acl" in call.headers:
        told["acl"] = call.headers["x-amz-acl"]
    if BYPASS in call.headers:
        told["bypass_governance"] = call.headers[BYPASS]
    return told


def about_form(form: "Form") -> dict[str, object]:
    """Return what a request of the query protocol is about."""
    told: dict[str, object] = {name: form.get(name) for name in sorted(_NAMES) if form.says(name)}
    for name in _DOCUMENTS:
        if form.says(name):
            told[f"{name}_sha256"] = sha256(form.get(name).encode()).hexdigest()
    return told
