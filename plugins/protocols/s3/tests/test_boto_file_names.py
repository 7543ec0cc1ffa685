"""Names that files alone can have, beside keys, as boto3 sees them."""

import asyncio
from typing import Any

import pytest
from warp_core.views.objects import Attributes, Digests

NAMES = (b"a", b"b\xff", b"c\xc3", b"dir/\xfe/x", b"dir/e", b"\xa9z", b"\xff/under", b"\xff\xff")
TEXT = ["a", "dir/e"]


@pytest.fixture
def bucket(shared: Any, bucket: str) -> str:
    """A bucket in which files have names that are not UTF-8."""

    async def fill() -> None:
        for name in NAMES:
            await shared.objects.put(bucket, name, b"1", Attributes(), Digests(etag="0" * 32))

    asyncio.run_coroutine_threadsafe(fill(), shared.loop).result(20)
    return bucket


@pytest.mark.parametrize("verb", ["list_objects", "list_objects_v2", "list_object_versions"])
@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("encoding", ["url", None])
def test_listings_show_the_names_that_are_keys(
    s3: Any, bucket: str, verb: str, size: int, encoding: str | None
) -> None:
    more = {"EncodingType": encoding} if encoding else {}
    pages = s3.get_paginator(verb).paginate(
        Bucket=bucket, PaginationConfig={"PageSize": size}, **more
    )

    found = [row["Key"] for p in pages for row in p.get("Contents", p.get("Versions", []))]

    assert found == TEXT


@pytest.mark.parametrize("verb", ["list_objects", "list_objects_v2", "list_object_versions"])
@pytest.mark.parametrize("size", [1, 1000])
def test_common_prefixes_are_keys_too(s3: Any, bucket: str, verb: str, size: int) -> None:
    pages = s3.get_paginator(verb).paginate(
        Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": size}
    )

    assert [row["Prefix"] for p in pages for row in p.get("CommonPrefixes", [])] == ["dir/"]
