"""HTTP/1.1 without I/O: bytes to requests and chunks, answers to bytes."""

from warp_s3.http.chunked import ChunkedDecoder, ChunkFraming
from warp_s3.http.request import HEAD_MAX, Request, check_partial_head, head_end, parse_head
from warp_s3.http.response import CONTINUE, REASONS, field_lines, http_date, response_head

__all__ = [
    "CONTINUE",
    "HEAD_MAX",
    "REASONS",
    "ChunkFraming",
    "ChunkedDecoder",
    "Request",
    "check_partial_head",
    "field_lines",
    "head_end",
    "http_date",
    "parse_head",
    "response_head",
]
