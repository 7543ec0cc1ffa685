"""Errors as answers: documents for clients, pages for those who look at a website."""

from html import escape
from typing import Final

from warp_s3 import xml_output
from warp_s3.call import Answer, empty, xml
from warp_s3.errors import PageError, S3Error
from warp_s3.http import Request
from warp_s3.http.response import REASONS

HTML: Final = ("Content-Type", "text/html; charset=utf-8")


def error_answer(error: S3Error, request: Request | None, request_id: str) -> Answer:
    """Write an error; a HEAD gets its status and headers only."""
    headers = list(error.headers.items())
    if isinstance(error, PageError):
        return _page(error, headers, request, request_id)
    if request is not None and request.method == "HEAD":
        return empty(error.status, headers)
    body = xml_output.error(
        error.code,
        error.message,
        resource=request.path if request is not None else "",
        request_id=request_id,
        details=error.details,
    )
    return xml(body, status=error.status, headers=headers)


def _page(
    error: PageError, headers: list[tuple[str, str]], request: Request | None, request_id: str
) -> Answer:
    """Write an error as AWS's website endpoints do."""
    headers += [HTML, ("x-amz-error-code", error.code), ("x-amz-error-message", error.message)]
    headers += [(f"x-amz-error-detail-{name}", _wire(text)) for name, text in error.details.items()]
    title = f"{error.status} {REASONS[error.status]}"
    further = ""
    if error.further is not None:
        more = {**error.further.details, "Key": error.page}
        further = (
            "<h3>An Error Occurred While Attempting to Retrieve a Custom Error Document</h3>\n"
            + _items(error.further, more)
        )
    named = {**error.details, "RequestId": request_id, "HostId": request_id}
    text = (
        f"<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n"
        f"{_items(error, named)}{further}<hr/>\n</body>\n</html>\n"
    )
    body = text.encode("utf-8", "replace")
    if request is not None and request.method == "HEAD":
        return Answer(error.status, headers, length=len(body))
    return Answer(error.status, headers, body, len(body))


def _items(error: S3Error, details: dict[str, str]) -> str:
    said = {"Code": error.code, "Message": error.message, **details}
    rows = "".join(f"<li>{name}: {escape(text)}</li>\n" for name, text in said.items())
    return f"<ul>\n{rows}</ul>\n"


def _wire(text: str) -> str:
    """Write text as the Latin-1 that carries its UTF-8 bytes."""
    return text.encode("utf-8", "replace").decode("latin-1")
