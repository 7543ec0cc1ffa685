"""Listings of a bucket."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from warp_core.views.objects import Listing, VersionListing, columns

from warp_s3 import xml_output
from warp_s3.call import Answer, Call, xml
from warp_s3.errors import S3Error
from warp_s3.listing_arguments import list_arguments, read_token, write_token
from warp_s3.operations.restoring import restores_of
from warp_s3.owners import owner_writer

if TYPE_CHECKING:
    from warp_s3.service import Service


async def list_objects(service: "Service", call: Call) -> Answer:
    """List current objects, version 1: the client names the key after which to go on."""
    arguments = list_arguments(call.query)
    marker = call.query.get("marker", "").encode()
    listing = await _page(service, call, marker)
    return xml(
        xml_output.objects_v1(
            call.bucket,
            listing,
            prefix=arguments.prefix,
            marker=marker,
            delimiter=arguments.delimiter,
            limit=arguments.limit,
            encoding_type=arguments.encoding_type,
            owners=owner_writer(await service.accounts()),
            restores=await restores_of(service, call, listing.entries),
        )
    )


async def list_objects_v2(service: "Service", call: Call) -> Answer:
    """List current objects, version 2: the client gives back an opaque token."""
    arguments = list_arguments(call.query)
    token = call.query.get("continuation-token")
    start_after = call.query.get("start-after", "").encode()
    after = start_after if token is None else read_token(token)
    listing = await _page(service, call, after)
    return xml(
        xml_output.objects_v2(
            call.bucket,
            listing,
            prefix=arguments.prefix,
            delimiter=arguments.delimiter,
            limit=arguments.limit,
            encoding_type=arguments.encoding_type,
            start_after=start_after,
            token=token or "",
            next_token=write_token(listing.next) if listing.next else "",
            owners=owner_writer(await service.accounts())
            if call.query.get("fetch-owner") == "true"
            else None,
            restores=await restores_of(service, call, listing.entries),
        )
    )


async def list_versions(service: "Service", call: Call) -> Answer:
    """List all versions and delete markers."""
    arguments = list_arguments(call.query)
    key_marker = call.query.get("key-marker", "").encode()
    version_marker = call.query.get("version-id-marker", "")
    if version_marker and not key_marker:
        raise S3Error(
            "InvalidArgument",
            "A version-id marker cannot be specified without a key marker.",
            details={"ArgumentName": "version-id-marker", "ArgumentValue": version_marker},
        )
    if arguments.limit:
        listing = await _versions_page(service, call, key_marker, version_marker)
    else:
        await service.objects.volume(call.bucket)
        listing = VersionListing((), ())
    return xml(
        xml_output.versions(
            call.bucket,
            listing,
            prefix=arguments.prefix,
            delimiter=arguments.delimiter,
            key_marker=key_marker,
            version_marker=version_marker,
            limit=arguments.limit,
            encoding_type=arguments.encoding_type,
            owners=owner_writer(await service.accounts()),
            restores=await restores_of(service, call, listing.entries, versions=True),
        )
    )


async def _page(service: "Service", call: Call, after: bytes) -> Listing:
    """Fetch a page, without names that files alone can have: S3's are UTF-8. One that has more after it is never empty."""
    arguments = list_arguments(call.query)
    if not arguments.limit:
        await service.objects.volume(call.bucket)
        return Listing((), ())
    while True:
        page = await service.objects.list(
            call.bucket,
            prefix=arguments.prefix,
            delimiter=arguments.delimiter,
            after=after,
            limit=arguments.limit,
        )
        if _all_text(columns(page.entries)[0]) and _all_text(page.prefixes):
            return page
        entries = [entry for entry in page.entries if _is_text(entry.key)]
        prefixes = [prefix for prefix in page.prefixes if _is_text(prefix)]
        if entries or prefixes or not page.next:
            return Listing(entries, prefixes, page.next)
        after = page.next


async def _versions_page(
    service: "Service", call: Call, key_marker: bytes, version_marker: str
) -> VersionListing:
    """Fetch a page of versions as `_page` does."""
    arguments = list_arguments(call.query)
    while True:
        page = await service.objects.list_versions(
            call.bucket,
            prefix=arguments.prefix,
            delimiter=arguments.delimiter,
            key_marker=key_marker,
            version_marker=version_marker,
            limit=arguments.limit,
        )
        if _all_text([entry.key for entry in page.entries]) and _all_text(page.prefixes):
            return page
        entries = [entry for entry in page.entries if _is_text(entry.key)]
        prefixes = [prefix for prefix in page.prefixes if _is_text(prefix)]
        shown = replace(page, entries=entries, prefixes=prefixes)
        if not page.next_key or _is_text(page.next_key):
            return shown
        if entries or prefixes:
            # The client has to name where to go on: at the last that it was shown.
            key, version = max(
                [(e.key, e.version) for e in entries[-1:]] + [(p, "") for p in prefixes[-1:]]
            )
            return replace(shown, next_key=key, next_version=version)
        key_marker, version_marker = page.next_key, page.next_version


def _all_text(names: Iterable[bytes]) -> bool:
    return _is_text(b"\n".join(names))


def _is_text(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
