"""Requests to answers: who is it, may they, and which operation does the work."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from warp_core.errors import Unauthenticated
from warp_core.interfaces.accounts import Accounts
from warp_core.interfaces.auth import ANONYMOUS, Authenticator, Credential, Principal
from warp_core.views import Objects
from warp_core.views.objects import ObjectInfo

from warp_s3.aws_chunked import AwsChunkedDecoder
from warp_s3.body import Body
from warp_s3.call import Answer, Call, Outcome, finished
from warp_s3.config import Config
from warp_s3.errors import S3Error
from warp_s3.http import Request
from warp_s3.operations import HANDLERS
from warp_s3.owners import owner_of
from warp_s3.router import Route, Router
from warp_s3.sigv4 import (
    STREAMING,
    UNSIGNED_PAYLOAD,
    Claim,
    SigningKey,
    SigningKeys,
    read_claim,
    verify,
)

# Operations that concern no existing bucket.
_WITHOUT_BUCKET: Final = frozenset({"ListBuckets", "CreateBucket", "Preflight"})


class Service:
    """The protocol without its sockets.

    Attributes:
        objects: The view that operations work on.
        pool: Threads for hashing.
        uploads: Bounds the large bodies in memory.
        region: What GetBucketLocation says.
        described: Objects and their headers as text, the last that were asked for (`operations.objects`).
    """

    def __init__(
        self,
        config: Config,
        objects: Objects,
        authenticator: Authenticator,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.objects = objects
        self.pool = pool
        self.region = config.region
        self.uploads = asyncio.Semaphore(config.uploads_max)
        self._authenticator = authenticator
        self.described: dict[tuple[str, bytes], tuple[ObjectInfo, str]] = {}
        self._router = Router(config.domains)
        self._keys = SigningKeys()

    def start(self, request: Request, body: Body) -> Outcome:
        """Answer a request, or return what does where something has to be waited for.

        Raises:
            S3Error, WarpError: What the answer is instead; so does awaiting what is returned.
        """
        route = self._router.route(request)
        if route.operation == "Preflight":
            return HANDLERS["Preflight"](
                self, Call(request, route, ANONYMOUS, body, UNSIGNED_PAYLOAD)
            )
        claim = read_claim(request, now=time.time())
        if claim is None:
            raise S3Error("AccessDenied")
        credential = self._authenticator.lookup_now(claim.access_key)
        if credential is None:
            return self._look_up_first(request, body, route, claim)
        return self._start(request, body, route, claim, credential)

    def _start(
        self, request: Request, body: Body, route: Route, claim: Claim, credential: Credential
    ) -> Outcome:
        """Go on once it is known whose key signed the request."""
        operation = route.operation
        key = self._keys.get(credential.secret, claim.scope)
        verify(claim, request, key)
        if claim.payload in STREAMING:
            self._expect_chunks(request, body, claim, key)
        principal = credential.principal
        call = Call(request, route, principal, body, claim.payload)
        if (not principal.admin and operation not in _WITHOUT_BUCKET) or (
            "x-amz-expected-bucket-owner" in request.headers
        ):
            return self._permitted(call)
        return self._handle(call)

    def _handle(self, call: Call) -> Outcome:
        operation = call.route.operation
        handler = HANDLERS.get(operation)
        if handler is None:
            raise S3Error("NotImplemented", f"{operation} is not implemented.")
        return handler(self, call)

    async def _look_up_first(
        self, request: Request, body: Body, route: Route, claim: Claim
    ) -> Answer:
        credential = await self._lookup(claim.access_key)
        return await finished(self._start(request, body, route, claim, credential))

    async def _permitted(self, call: Call) -> Answer:
        """Ask the bucket's row first: who owns it decides."""
        if not call.principal.admin and call.route.operation not in _WITHOUT_BUCKET:
            await self.permit(call.principal, call.bucket)
        owner = call.headers.get("x-amz-expected-bucket-owner")
        if owner is not None and call.bucket:
            await self.check_owner(call.bucket, owner)
        return await finished(self._handle(call))

    async def permit(self, principal: Principal, bucket: str) -> None:
        """Let administrators do everything and others what they like in their own buckets.

        Raises:
            S3Error: `AccessDenied`.
            VolumeNotFound: There is no such bucket.
        """
        if principal.admin:
            return
        owner = (await self.objects.volume(bucket)).owner
        if owner != principal.name and owner not in principal.aliases:
            raise S3Error("AccessDenied")

    async def _lookup(self, access_key: str) -> Credential:
        try:
            return await self._authenticator.lookup(access_key)
        except Unauthenticated as error:
            raise S3Error("InvalidAccessKeyId", details={"AWSAccessKeyId": access_key}) from error

    async def accounts(self) -> Accounts:
        """Return who is known, for owners in answers."""
        return await self._authenticator.accounts()

    async def check_owner(self, bucket: str, number: str) -> None:
        """Check that a bucket is of the account that the client expects, by its number.

        Raises:
            S3Error: `AccessDenied`.
        """
        owner = (await self.objects.volume(bucket)).owner
        if owner_of(await self.accounts(), owner).number != number:
            raise S3Error("AccessDenied")

    def _expect_chunks(self, request: Request, body: Body, claim: Claim, key: SigningKey) -> None:
        text = request.headers.get("x-amz-decoded-content-length")
        if text is None:
            raise S3Error("MissingContentLength")
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise S3Error("InvalidArgument", "x-amz-decoded-content-length is not a number")
        length = int(text)
        body.decode_aws_chunked(
            AwsChunkedDecoder(claim, key, decoded_length=length), length, self.pool
        )
