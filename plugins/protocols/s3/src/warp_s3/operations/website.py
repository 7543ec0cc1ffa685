"""Website configurations: checked and kept; `operations.pages` serves by them."""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from xml.etree.ElementTree import Element

from warp_s3 import xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.operations.configurations import inner
from warp_s3.receiving import read_document
from warp_s3.website import WEBSITE
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

RULES_MAX: Final = 50
"""Routing rules; S3's own figure."""

KEY_MAX: Final = 1024

_SCHEMES: Final = frozenset({"http", "https"})


async def get_website(service: "Service", call: Call) -> Answer:
    """Tell a bucket's website configuration."""
    document = (await service.objects.volume(call.bucket)).documents.get(WEBSITE)
    if document is None:
        raise S3Error("NoSuchWebsiteConfiguration", details={"BucketName": call.bucket})
    return xml(xml_output.document("WebsiteConfiguration", document.decode()))


async def put_website(service: "Service", call: Call) -> Answer:
    """Replace a bucket's website configuration."""
    element = parse(await read_document(call), "WebsiteConfiguration")
    await service.objects.volume(call.bucket)
    check(element)
    await service.objects.set_document(call.bucket, WEBSITE, inner(element).encode())
    return empty(200)


async def delete_website(service: "Service", call: Call) -> Answer:
    """Drop a bucket's website configuration."""
    if WEBSITE in (await service.objects.volume(call.bucket)).documents:
        await service.objects.set_document(call.bucket, WEBSITE, None)
    return empty(204)


def check(element: Element) -> None:
    """Check a WebsiteConfiguration as S3 does.

    Raises:
        S3Error: `InvalidArgument`, `InvalidRequest` or `MalformedXML`.
    """
    elsewhere = element.find("RedirectAllRequestsTo")
    index = element.find("IndexDocument")
    if elsewhere is not None:
        if len(element) > 1:
            raise S3Error(
                "InvalidRequest",
                "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules.",
            )
        if not elsewhere.findtext("HostName"):
            raise S3Error("MalformedXML")
        _check_scheme(elsewhere)
        return
    suffix = index.findtext("Suffix") if index is not None else None
    if not suffix:
        raise S3Error(
            "InvalidArgument",
            "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty",
            details={"ArgumentName": "IndexDocument", "ArgumentValue": "null"},
        )
    if "/" in suffix:
        raise S3Error(
            "InvalidArgument",
            "The IndexDocument Suffix is not well formed",
            details={"ArgumentName": "IndexDocument", "ArgumentValue": suffix},
        )
    page = element.find("ErrorDocument")
    if page is not None and not 1 <= len((page.findtext("Key") or "").encode()) <= KEY_MAX:
        raise S3Error("InvalidArgument", "The ErrorDocument Key is not well formed")
    rules = element.findall("RoutingRules/RoutingRule")
    if len(rules) > RULES_MAX:
        raise S3Error(
            "InvalidRequest",
            f"{len(rules)} routing rules provided, the number of routing rules in a website "
            f"configuration is limited to {RULES_MAX}.",
        )
    for rule in rules:
        _check_rule(rule)


def _check_rule(rule: Element) -> None:
    redirect = rule.find("Redirect")
    if redirect is None or not len(redirect):
        raise S3Error("MalformedXML")
    if redirect.find("ReplaceKeyWith") is not None and (
        redirect.find("ReplaceKeyPrefixWith") is not None
    ):
        raise S3Error(
            "InvalidRequest", "You can only define ReplaceKeyPrefix or ReplaceKey but not both."
        )
    _check_scheme(redirect)
    code = redirect.findtext("HttpRedirectCode")
    if code is not None and not (code.isdigit() and 301 <= int(code) <= 399):
        raise S3Error(
            "InvalidRequest",
            f"The provided HTTP redirect code ({code}) is not valid. Valid codes are 3XX except "
            "300.",
        )
    condition = rule.find("Condition")
    if condition is None:
        return
    if not len(condition):
        raise S3Error(
            "InvalidRequest",
            "Condition cannot be empty. To redirect all requests without a condition, the "
            "condition element shouldn't be present.",
        )
    error = condition.findtext("HttpErrorCodeReturnedEquals")
    if error is not None and not (error.isdigit() and 400 <= int(error) <= 599):
        raise S3Error(
            "InvalidRequest",
            f"The provided HTTP error code ({error}) is not valid. Valid codes are 4XX or 5XX.",
        )


def _check_scheme(element: Element) -> None:
    scheme = element.findtext("Protocol")
    if scheme is not None and scheme not in _SCHEMES:
        raise S3Error(
            "InvalidRequest",
            "Invalid protocol, protocol can be http or https. If not defined the protocol will be "
            "selected automatically.",
        )


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "GetBucketWebsite": get_website,
        "PutBucketWebsite": put_website,
        "DeleteBucketWebsite": delete_website,
    }
)
