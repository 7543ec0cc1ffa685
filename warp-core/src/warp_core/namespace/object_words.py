"""What S3 says of a file besides its bytes, as extended attributes that are read by name, never listed and never set.

| attribute | value |
| --- | --- |
| `user.s3` | all of these, as a JSON object |
| `user.s3.etag`, `user.s3.version-id`, `user.s3.storage-class` | as in the answer to HEAD |
| `user.s3.header.content-type` and others | what the object was put with |
| `user.s3.meta.NAME` | `x-amz-meta-NAME` |
| `user.s3.tag.NAME` | a tag |
| `user.s3.checksum.crc64nvme` and others | base64, as S3 has it |

They are not listed because copying tools set on the copy what is listed of the original.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from warp_core.views.objects import ObjectInfo

ALL: Final = b"user.s3"
PREFIX: Final = b"user.s3."


def is_word(name: bytes) -> bool:
    """Say whether an attribute is one of these."""
    return name == ALL or name.startswith(PREFIX)


def words(info: ObjectInfo) -> Mapping[str, str]:
    """Return the values by their names without `user.s3.`."""
    found = {"etag": info.etag, "version-id": info.version, "storage-class": info.storage_class}
    kinds = {
        "header": info.attributes.headers,
        "meta": info.attributes.metadata,
        "tag": info.attributes.tags,
        "checksum": {name.lower(): value for name, value in info.checksums.items()},
    }
    for kind, values in kinds.items():
        found |= {f"{kind}.{name}": value for name, value in values.items()}
    return found


def word(info: ObjectInfo, name: bytes) -> bytes | None:
    """Return an attribute's value, None if S3 says nothing of that name."""
    found = words(info)
    if name == ALL:
        return json.dumps(found, ensure_ascii=False, sort_keys=True).encode()
    value = found.get(name.removeprefix(PREFIX).decode(errors="replace"))
    return None if value is None else value.encode()
