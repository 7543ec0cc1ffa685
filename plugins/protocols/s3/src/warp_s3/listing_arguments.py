"""The arguments that listings share."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Final

import msgspec

from warp_s3.errors import S3Error

PAGE_MAX: Final = 1000
"""Entries of one page; S3's own figure."""


class ListArguments(msgspec.Struct, frozen=True):
    """What a listing is asked for."""

    prefix: bytes
    delimiter: bytes
    limit: int
    encoding_type: str  # "url" or ""


def list_arguments(query: Mapping[str, str], limit_name: str = "max-keys") -> ListArguments:
    """Read the arguments that every listing of a bucket has.

    Raises:
        S3Error: `InvalidArgument`.
    """
    encoding_type = query.get("encoding-type", "")
    if encoding_type not in {"", "url"}:
        raise S3Error(
            "InvalidArgument",
            "Invalid Encoding Method specified in Request",
            details={"ArgumentName": "encoding-type", "ArgumentValue": encoding_type},
        )
    return ListArguments(
        query.get("prefix", "").encode(),
        query.get("delimiter", "").encode(),
        count_argument(query, limit_name, PAGE_MAX),
        encoding_type,
    )


def count_argument(query: Mapping[str, str], name: str, default: int) -> int:
    """Read a number of entries, at most `default`.

    Raises:
        S3Error: `InvalidArgument`.
    """
    text = query.get(name)
    if not text:
        return default
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1
    if not 0 <= number < 2**31:
        raise S3Error(
            "InvalidArgument",
            f"Argument {name} must be an integer between 0 and 2147483647",
            details={"ArgumentName": name, "ArgumentValue": text},
        )
    return min(number, default)


def write_token(place: bytes) -> str:
    """Write a place in a listing as an opaque token."""
    return urlsafe_b64encode(b"1" + place).decode("ascii")


def read_token(token: str) -> bytes:
    """Read a token that `write_token` wrote.

    Raises:
        S3Error: `InvalidArgument`.
    """
    try:
        place = urlsafe_b64decode(token.encode())
    except (Base64Error, ValueError):
        place = b""
    if not place.startswith(b"1"):
        raise S3Error(
            "InvalidArgument",
            "The continuation token provided is incorrect",
            details={"ArgumentName": "continuation-token", "ArgumentValue": token},
        )
    return place[1:]
