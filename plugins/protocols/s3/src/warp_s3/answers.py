"""Errors as answers."""

from warp_s3 import xml_output
from warp_s3.call import Answer, empty, xml
from warp_s3.errors import S3Error
from warp_s3.http import Request


def error_answer(error: S3Error, request: Request | None, request_id: str) -> Answer:
    """Write an error; a HEAD gets its status and headers only."""
    headers = list(error.headers.items())
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
