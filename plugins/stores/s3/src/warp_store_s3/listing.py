"""Answers of S3 that the store reads: listings of keys and uploads, ids, ETags.

Keys are of the store's own making, letters that XML never escapes, so what does not look like one is somebody else's and left out.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_ENTRY: Final = re.compile(rb"<Contents>(.*?)</Contents>", re.DOTALL)
_UPLOAD: Final = re.compile(rb"<Upload>(.*?)</Upload>", re.DOTALL)
_KEY: Final = re.compile(rb"<Key>([a-z0-9!._/-]+)</Key>")
_SIZE: Final = re.compile(rb"<Size>(\d{1,15})</Size>")
_ID: Final = re.compile(rb"<UploadId>([^<&]{1,1024})</UploadId>")
_CUT: Final = re.compile(rb"<IsTruncated>\s*true\s*</IsTruncated>", re.IGNORECASE)


class Keys(NamedTuple):
    """A page of a listing: (key, bytes) in order; `more` says that others follow."""

    entries: list[tuple[str, int]]
    more: bool


def keys_of(answer: bytes) -> Keys:
    """Read an answer of ListObjectsV2."""
    entries = []
    for found in _ENTRY.finditer(answer):
        key, size = _KEY.search(found[1]), _SIZE.search(found[1])
        if key is not None and size is not None:
            entries.append((key[1].decode(), int(size[1])))
    return Keys(entries, _CUT.search(answer) is not None)


def uploads_of(answer: bytes) -> tuple[list[tuple[str, str]], bool]:
    """Read an answer of ListMultipartUploads: (key, upload id), and whether there are more."""
    entries = []
    for found in _UPLOAD.finditer(answer):
        key, upload = _KEY.search(found[1]), _ID.search(found[1])
        if key is not None and upload is not None:
            entries.append((key[1].decode(), upload[1].decode()))
    return entries, _CUT.search(answer) is not None


def upload_id(answer: bytes) -> str:
    """Read an answer of CreateMultipartUpload; "" if it has no id."""
    found = _ID.search(answer)
    return found[1].decode() if found else ""


def total_of(content_range: str) -> int | None:
    """Return how long the whole is, from a Content-Range; None where that is not said."""
    found = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d{1,15})", content_range.strip())
    return int(found[1]) if found else None
