"""Options of `[protocols.s3]`."""

from typing import Annotated, Literal

from msgspec import Meta
from warp_core.config import Address, Between, Duration, Listening


class Config(Listening, frozen=True, kw_only=True):
    """What the S3 server listens to, how it is called, and what a client may cost."""

    listen: Address = Address("127.0.0.1:9000")
    # Hosts whose subdomains are buckets: with "s3.example", bucket.s3.example/key is bucket/key.
    domains: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=253)], ...], Meta(max_length=64)
    ] = ("localhost",)
    # Further hosts whose subdomains are websites; s3-website-REGION.DOMAIN and s3-website.REGION.DOMAIN are for each of `domains`.
    website_domains: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=253)], ...], Meta(max_length=64)
    ] = ()
    # Hosts that are the websites of the buckets of just these names, such as "www.example.com".
    website_hosts: Annotated[
        tuple[Annotated[str, Meta(min_length=3, max_length=63)], ...], Meta(max_length=1024)
    ] = ()
    # What GetBucketLocation says; requests signed for any region are accepted.
    region: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,63}$")] = "us-east-1"
    # Whether requests signed by version 2 are taken as well; forms always are.
    signature_v2: bool = True
    # Whose the objects are in a bucket that does not say so itself; with "BucketOwnerEnforced" ACLs are off.
    object_ownership: Literal["BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"] = (
        "BucketOwnerEnforced"
    )
    # Whether a bucket that does not say so itself keeps everybody out whom neither ACL nor policy names.
    block_public_access: bool = True
    # What the ETag of an object in one part is: its MD5, as SDKs of old expect, or a new name each time, which saves computing it.
    etags: Literal["md5", "opaque"] = "md5"
    # Whether objects stay in STANDARD for 30 days before they move to an IA class, and small ones longer, as at AWS.
    transition_minimums: bool = True
    # Addresses of OpenID providers that this server asks for their keys; accounts make providers known by themselves.
    identity_providers: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...], Meta(max_length=64)
    ] = ("https://*",)
    # How a bucket encrypts that does not say so itself: "AES256" is what AWS does, "" leaves plain what nobody wants encrypted.
    default_encryption: Literal["", "AES256", "aws:kms"] = ""
    # Whether requests that carry a key (SSE-C) are refused without TLS, as AWS does.
    sse_c_needs_tls: bool = False
    # How often lines of access logs are delivered to the buckets that ask for them.
    access_log_interval: Annotated[Duration, Between("1s", "1d")] = Duration(300)
    # A file for a line of each request in the format "combined", from the node's data; "" for none.
    http_log: Annotated[str, Meta(max_length=4096)] = ""
    # Open connections; one that is idle costs about 4 KiB.
    connections_max: Annotated[int, Meta(ge=1, le=100_000)] = 4096
    # Bodies above 64 KiB on their way in at once, each a few MiB of buffers; others wait their turn.
    uploads_max: Annotated[int, Meta(ge=1, le=10_000)] = 64
    # Between two requests of a connection.
    idle_timeout: Annotated[Duration, Between("1s", "1h")] = Duration(75)
    # From the first byte of a head to its last.
    head_timeout: Annotated[Duration, Between("100ms", "10min")] = Duration(20)
    # Without any byte from a client that is sending, or to one that is receiving.
    stall_timeout: Annotated[Duration, Between("100ms", "1h")] = Duration(30)
