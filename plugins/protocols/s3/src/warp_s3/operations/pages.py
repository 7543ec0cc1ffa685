"""Websites: buckets as browsers see them, by the rules of their configuration; nobody is anybody here, and errors are pages."""

from typing import TYPE_CHECKING, Final

from warp_core.errors import NotFound, VolumeNotFound, WarpError
from warp_core.interfaces.auth import ANONYMOUS

from warp_s3.body import Body
from warp_s3.call import Answer, Call, finished
from warp_s3.errors import PageError, S3Error, from_core
from warp_s3.http import Request
from warp_s3.operations.cors import preflight
from warp_s3.operations.objects import get_object, head_object, missing
from warp_s3.router import KEY_MAX, Route
from warp_s3.sigv4 import UNSIGNED_PAYLOAD
from warp_s3.website import MOVED, REDIRECT, WEBSITE, Site, path_of, site_of

if TYPE_CHECKING:
    from warp_s3.service import Service

FOUND: Final = 302

_METHODS: Final = frozenset({"GET", "HEAD"})

# Of the request for a page, and not of that for what is shown instead.
_OF_THE_PAGE: Final = frozenset(
    {
        *("range", "if-range", "if-match", "if-none-match", "if-modified-since"),
        *("if-unmodified-since", "x-amz-checksum-mode"),
    }
)


async def serve_page(service: "Service", request: Request, body: Body, route: Route) -> Answer:
    """Answer a request to the website of a bucket; `route.key` is its path, decoded as far as that went.

    Raises:
        PageError: The error, as a page.
    """
    try:
        return await _serve(service, request, body, route)
    except PageError:
        raise
    except S3Error as error:
        raise PageError(error) from error
    except WarpError as error:
        raise PageError(from_core(error)) from error


async def _serve(service: "Service", request: Request, body: Body, route: Route) -> Answer:
    if request.method == "OPTIONS":
        return await preflight(service, _call(request, body, route))
    if request.method not in _METHODS:
        raise S3Error(
            "MethodNotAllowed",
            details={"Method": request.method, "ResourceType": "OBJECT"},
            headers={"Allow": "GET, HEAD, OPTIONS"},
        )
    key = _key(route)
    site = await _site(service, route.bucket)
    host = request.headers.get("host", "")
    protocol = "https" if body.client.tls_version is not None else "http"
    if site.elsewhere:
        query = f"?{request.query}" if request.query else ""
        where = f"{site.protocol or protocol}://{site.elsewhere}{request.path}{query}"
        return _redirect(MOVED, where)
    rule = site.rule(key)
    if rule is not None:
        return _redirect(rule.status, rule.location(key, protocol, host))
    page = site.page(key)
    try:
        return await _page(service, request, body, route.bucket, page)
    except S3Error as error:
        # A directory without its slash: links on its page would lead astray.
        if page == key and await _shown(
            service, body, request, route.bucket, f"{key}/{site.index}"
        ):
            return _redirect(FOUND, path_of(key + "/"))
        rule = site.rule(key, error.status)
        if rule is not None:
            return _redirect(rule.status, rule.location(key, protocol, host))
        return await _error_page(service, request, body, route.bucket, site, error)


async def _site(service: "Service", bucket: str) -> Site:
    """Return the configuration of a bucket's website."""
    try:
        document = (await service.objects.volume(bucket)).documents.get(WEBSITE)
    except VolumeNotFound as error:
        raise S3Error("NoSuchBucket", details={"BucketName": bucket}) from error
    if document is None:
        raise S3Error("NoSuchWebsiteConfiguration", details={"BucketName": bucket})
    return site_of(document)


async def _page(service: "Service", request: Request, body: Body, bucket: str, key: str) -> Answer:
    """Send an object, or whoever asks for it to where it says, if everybody may read it."""
    operation = "HeadObject" if request.method == "HEAD" else "GetObject"
    call = _call(request, body, Route(operation, bucket, key.encode(), {}))
    await service.access.enter(call)
    try:
        info = await service.objects.head(bucket, call.key)
        where = info.attributes.headers.get(REDIRECT)
        if where is not None:
            return _redirect(MOVED, where)
        handler = head_object if request.method == "HEAD" else get_object
        return await finished(handler(service, call))
    except NotFound as error:
        told = missing(call, error)
        assert isinstance(told, S3Error)
        raise await service.access.hide(call, told) from error


async def _shown(service: "Service", body: Body, request: Request, bucket: str, key: str) -> bool:
    """Say whether there is an object that everybody may read."""
    if len(key.encode()) > KEY_MAX:
        return False
    call = _call(request, body, Route("HeadObject", bucket, key.encode(), {}))
    try:
        await service.access.enter(call)
        await service.objects.head(bucket, call.key)
    except (S3Error, NotFound):
        return False
    return True


async def _error_page(
    service: "Service", request: Request, body: Body, bucket: str, site: Site, error: S3Error
) -> Answer:
    """Send the bucket's own page for an error.

    Raises:
        PageError: There is none, or it cannot be had either.
    """
    if not site.error or not 400 <= error.status < 500:
        raise error
    headers = {name: value for name, value in request.headers.items() if name not in _OF_THE_PAGE}
    plain = Request(
        request.method, request.path, "", headers, None, False, request.keep_alive, False
    )
    try:
        answer = await _page(service, plain, body, bucket, site.error)
    except S3Error as further:
        raise PageError(error, further, site.error) from error
    if answer.status == MOVED:
        return answer
    told = (("x-amz-error-code", error.code), ("x-amz-error-message", error.message))
    return Answer(
        error.status,
        [*answer.headers, *told, *error.headers.items()],
        answer.body,
        answer.length,
        answer.reader,
        answer.offset,
        answer.fields,
    )


def _key(route: Route) -> str:
    """Return the key that a path names.

    Raises:
        S3Error: `InvalidURI`, `KeyTooLongError`.
    """
    if len(route.key) > KEY_MAX:
        raise S3Error(
            "KeyTooLongError",
            details={"Size": str(len(route.key)), "MaxSizeAllowed": str(KEY_MAX)},
        )
    try:
        return route.key.decode()
    except UnicodeDecodeError as error:
        raise S3Error("InvalidURI") from error


def _call(request: Request, body: Body, route: Route) -> Call:
    return Call(request, route, ANONYMOUS, body, UNSIGNED_PAYLOAD)


def _redirect(status: int, where: str) -> Answer:
    return Answer(status, [("Location", where)], length=0)
