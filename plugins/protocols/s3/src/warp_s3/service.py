"""Requests to answers: who is it, may they, and which operation does the work."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from warp_core.errors import NotFound, Unauthenticated, WarpError
from warp_core.interfaces.accounts import Accounts
from warp_core.interfaces.audit import NO_AUDIT, Audit
from warp_core.interfaces.auth import ANONYMOUS, Authenticator, Credential
from warp_core.interfaces.queries import Queries
from warp_core.kept import Kept
from warp_core.notifications import DOCUMENT as NOTIFICATIONS
from warp_core.views import Objects
from warp_core.views.objects import ObjectInfo
from warp_core.views.origin import Origin

from warp_s3 import sigv2
from warp_s3.access.judging import Access, known_principal
from warp_s3.access_log.delivery import AccessLog
from warp_s3.access_log.record import Record, operation_of, signature_of
from warp_s3.auditing import about, caller_of, is_audited
from warp_s3.aws_chunked import AwsChunkedDecoder
from warp_s3.body import Body, Client, Note
from warp_s3.call import Answer, Call, Outcome, finished
from warp_s3.config import Config
from warp_s3.cors import answer_headers
from warp_s3.errors import S3Error, from_core
from warp_s3.http import Request
from warp_s3.lifecycle import Rules
from warp_s3.operations import HANDLERS
from warp_s3.operations.cors import rules_of_bucket
from warp_s3.operations.pages import serve_page
from warp_s3.owners import owner_of
from warp_s3.router import PAGE, Route, Router
from warp_s3.sigv4 import (
    STREAMING,
    STREAMING_UNSIGNED_TRAILER,
    UNSIGNED_PAYLOAD,
    Claim,
    SigningKey,
    SigningKeys,
    check_payload,
    read_claim,
    verify,
)

if TYPE_CHECKING:
    from warp_core.interfaces.targets import Targets

    from warp_s3.iam.identities import Identities
    from warp_s3.iam.service import QueryService

DESCRIBED_MAX: Final = 4096
"""Objects whose headers are remembered, as many as the view remembers."""

# What a body in chunks that nobody signed goes on from.
_NOBODYS: Final = Claim("", "", "", "", "", STREAMING_UNSIGNED_TRAILER, presigned=False)


class Service:
    """The protocol without its sockets.

    Attributes:
        objects: The view that operations work on.
        pool: Threads for hashing.
        queries: Answers questions about an object's content; None: nobody is installed who does.
        targets: Where events may go, by name.
        audit: Where changes of rules and identities are put on record.
        uploads: Bounds the large bodies in memory.
        region: What GetBucketLocation says.
        config: Options of the protocol.
        access: Says who may do what.
        signing_keys: Derived from secrets.
        lifecycles: Rules of buckets that say when objects expire.
        log: Lines of access logs, on their way to their buckets.
        described: Objects and their headers as text, the last that were asked for (`operations.objects`).
    """

    def __init__(
        self,
        config: Config,
        objects: Objects,
        authenticator: Authenticator,
        pool: ThreadPoolExecutor,
        folder: Path,
        queries: Queries | None = None,
        targets: "Targets | None" = None,
        audit: Audit = NO_AUDIT,
    ) -> None:
        """Take what it works on; `folder` is for lines of access logs that wait to be delivered."""
        self.objects = objects
        self.pool = pool
        self.queries = queries
        self.targets: Targets = targets or {}
        self.audit = audit
        self.region = config.region
        self.uploads = asyncio.Semaphore(config.uploads_max)
        self.config = config
        self.access = Access(objects, self.accounts, config)
        self._authenticator = authenticator
        self.described: Kept[tuple[str, bytes], tuple[ObjectInfo, str]] = Kept(DESCRIBED_MAX)
        self._router = Router(
            config.domains,
            site_domains=(*config.website_domains, *aws_site_domains(config)),
            sites=config.website_hosts,
        )
        self._identities: Identities | None = None  # made with the first request
        self.signing_keys = SigningKeys()
        self.lifecycles = Rules()
        self._queries: QueryService | None = None  # made with the first that asks
        self.log = AccessLog(
            objects,
            self.accounts,
            folder,
            region=config.region,
            interval_s=float(config.access_log_interval),
        )

    def start(self, request: Request, body: Body) -> Outcome:
        """Answer a request, or return what does where something has to be waited for.

        Raises:
            S3Error, WarpError: What the answer is instead; so does awaiting what is returned.
        """
        route = self._router.route(request)
        if self.log.wants(route.bucket):
            body.note = Note(route)
        if route.operation == "Preflight":
            return HANDLERS["Preflight"](
                self, Call(request, route, ANONYMOUS, body, UNSIGNED_PAYLOAD)
            )
        if route.operation == PAGE and request.method == "OPTIONS":
            return serve_page(self, request, body, route)
        if "origin" in request.headers and route.bucket:
            return self._crossing(request, body, route)
        return self._begin(request, body, route)

    async def _crossing(self, request: Request, body: Body, route: Route) -> Answer:
        """Answer a page of another origin: a browser reads errors, too, only if the bucket's rules say so."""
        headers = request.headers
        method = headers.get("access-control-request-method", request.method)
        rules = await rules_of_bucket(self, route.bucket)
        further = answer_headers(rules, headers["origin"], method) if rules else None
        try:
            answer = await finished(self._begin(request, body, route))
        except (S3Error, WarpError) as error:
            told = error if isinstance(error, S3Error) else from_core(error)
            told.headers = {**told.headers, **dict(further or ())}
            raise told from error
        if further is None:
            return answer
        return msgspec.structs.replace(answer, headers=[*answer.headers, *further])

    def _begin(self, request: Request, body: Body, route: Route) -> Outcome:
        """Find out who signed a request, and go on with it."""
        if route.operation == "PostObject":  # its form says who, and is judged when it is read
            return self._handle(Call(request, route, ANONYMOUS, body, UNSIGNED_PAYLOAD))
        if route.operation == "Query":
            return self._query(request, body, route)
        if route.operation == PAGE:
            return serve_page(self, request, body, route)
        if sigv2.signed(request) and self.config.signature_v2:
            return self._begin_v2(request, body, route)
        claim = read_claim(request, now=time.time())
        if claim is None:
            return self._anonymous(request, body, route)
        credential = self._credential_now(claim.access_key, security_token(request, route))
        if credential is None:
            return self._look_up_first(request, body, route, claim)
        return self._start(request, body, route, claim, credential)

    def _start(
        self, request: Request, body: Body, route: Route, claim: Claim, credential: Credential
    ) -> Outcome:
        """Go on once it is known whose key signed the request."""
        key = self.signing_keys.get(credential.secret, claim.scope)
        verify(claim, request, key)
        if claim.payload in STREAMING:
            self._expect_chunks(request, body, claim, key)
        return self._proven(request, body, route, claim.payload, credential)

    async def _begin_v2(self, request: Request, body: Body, route: Route) -> Answer:
        """Find out who signed a request by version 2, which is rare enough to take its time."""
        claim = sigv2.read_claim(request, route.query, now=time.time())
        credential = await self.credential(claim.access_key, security_token(request, route))
        bucket = self._router.bucket_of_host(request.headers.get("host", ""))
        sigv2.verify(claim, request, route.query, bucket=bucket, secret=credential.secret)
        if claim.payload in STREAMING:
            if claim.payload != STREAMING_UNSIGNED_TRAILER:
                raise S3Error("AccessDenied", "Version 2 cannot sign chunks.")
            self._expect_chunks(request, body, _NOBODYS, SigningKey(b""))
        return await finished(self._proven(request, body, route, claim.payload, credential))

    def _proven(
        self, request: Request, body: Body, route: Route, payload: str, credential: Credential
    ) -> Outcome:
        """Go on with a request whose signature holds."""
        principal = credential.principal
        if body.note is not None:
            body.note.principal = principal
        call = Call(request, route, principal, body, payload)
        if "x-amz-expected-bucket-owner" in request.headers or not (
            principal.admin or self.access.enter_now(call)
        ):
            return self._permitted(call)
        return self._handle(call)

    def _anonymous(self, request: Request, body: Body, route: Route) -> Outcome:
        """Go on with a request that nobody signed."""
        payload = request.headers.get("x-amz-content-sha256", UNSIGNED_PAYLOAD)
        check_payload(payload)
        if payload == STREAMING_UNSIGNED_TRAILER:
            self._expect_chunks(request, body, _NOBODYS, SigningKey(b""))
        elif payload in STREAMING:
            raise S3Error("AccessDenied")
        return self._permitted(Call(request, route, ANONYMOUS, body, payload))

    def _handle(self, call: Call) -> Outcome:
        operation = call.route.operation
        handler = HANDLERS.get(operation)
        if handler is None:
            raise S3Error("NotImplemented", f"{operation} is not implemented.")
        return handler(self, call)

    async def _look_up_first(
        self, request: Request, body: Body, route: Route, claim: Claim
    ) -> Answer:
        credential = await self.credential(claim.access_key, security_token(request, route))
        return await finished(self._start(request, body, route, claim, credential))

    async def _permitted(self, call: Call) -> Answer:
        """Ask first what bucket and object say about access."""
        try:
            await self.access.enter(call)
        except S3Error as error:
            operation = call.route.operation
            if is_audited(operation) and call.principal.name != ANONYMOUS.name:
                await self.audit.note(caller_of(call), f"s3:{operation}", about(call), error=error)
            raise
        owner = call.headers.get("x-amz-expected-bucket-owner")
        if owner is not None and call.bucket:
            await self.check_owner(call.bucket, owner)
        try:
            return await finished(self._handle(call))
        except S3Error as error:
            raise await self.access.hide(call, error) from error
        except NotFound as error:
            raise await self.access.hide(call, from_core(error)) from error

    async def logged(
        self,
        request: Request,
        request_id: str,
        note: Note,
        answer: Answer,
        size: int | None,
        client: Client,
    ) -> None:
        """Write a line of a bucket's access log, its answer being on its way."""
        route = note.route
        ended_s = time.monotonic()
        try:
            accounts = await self.accounts()
            owner = owner_of(accounts, (await self.objects.volume(route.bucket)).owner)
        except WarpError:  # the bucket is gone, with its log
            return
        anonymous = note.principal.name == ANONYMOUS.name
        requester = "" if anonymous else owner_of(accounts, note.principal.name).canonical_id
        signature, auth = signature_of(request, anonymous=anonymous)
        named = (value for name, value in answer.headers if name == "x-amz-version-id")
        self.log.write(
            Record(
                owner=owner.canonical_id,
                bucket=route.bucket,
                second=int(time.time()),
                address=client.address or "",
                requester=requester,
                request_id=request_id,
                operation=operation_of(route, request),
                key=route.key,
                request=request,
                status=answer.status,
                error=note.error,
                sent=0 if request.method == "HEAD" else answer.length or 0,
                size=size,
                total_ms=int((ended_s - note.began_s) * 1000),
                turn_around_ms=int((note.answered_s - note.began_s) * 1000),
                version=next(named, route.query.get("versionId", "")),
                signature=signature,
                auth=auth,
                tls=client.tls_version or "",
            )
        )

    def origin(self, call: Call, via: str = "") -> Origin | None:
        """Return what the change feed is to tell of a request, where somebody wants to know: the bucket has notifications."""
        known = self.objects.volume_now(call.bucket)
        if known is not None and NOTIFICATIONS not in known.documents:
            return None
        body = call.body
        return Origin(call.principal.name, body.client.address or "", body.request_id, via)

    async def _query(self, request: Request, body: Body, route: Route) -> Answer:
        """Answer a request of the query protocol."""
        from warp_s3.iam.service import QueryService

        identities = self._identities or self._make_identities()
        if identities is None:
            raise S3Error(
                "NotImplemented", "The authenticator of this server keeps no users and roles."
            )
        if self._queries is None:
            self._queries = QueryService(
                identities, self._authenticator, self.signing_keys, self.config, self.audit
            )
        return await self._queries.answer(Call(request, route, ANONYMOUS, body, UNSIGNED_PAYLOAD))

    def _credential_now(self, access_key: str, token: str | None) -> Credential | None:
        identities = self._identities or self._make_identities()
        if identities is not None:
            return identities.find_now(access_key, token)
        return self._authenticator.lookup_now(access_key)

    def _make_identities(self) -> "Identities | None":
        """Begin to know users and roles, if the authenticator keeps any; not earlier, as importing them takes a while."""
        if self._authenticator.capabilities.keeps_records:
            from warp_s3.iam.identities import Identities

            self._identities = Identities(self._authenticator)
        return self._identities

    async def credential(self, access_key: str, token: str | None = None) -> Credential:
        """Return the credential of an access key, and of the token that a session's requests carry.

        Raises:
            S3Error: `InvalidAccessKeyId`, `InvalidToken`, `ExpiredToken`.
        """
        known = self._credential_now(access_key, token)
        if known is not None:
            return known
        identities = self._identities or self._make_identities()
        if identities is not None:
            return await identities.find(access_key, token)
        try:
            return await self._authenticator.lookup(access_key)
        except Unauthenticated as error:
            raise S3Error("InvalidAccessKeyId", details={"AWSAccessKeyId": access_key}) from error

    async def known_principal(self) -> Callable[[str, str], bool]:
        """Return what tells whether a policy's principal exists."""
        accounts = await self.accounts()
        identities = self._identities or self._make_identities()
        if identities is None:
            return known_principal(accounts)
        return await identities.known_principal(accounts)

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


def aws_site_domains(config: Config) -> list[str]:
    """Return the domains of websites that go with the server's own, in both of AWS's forms."""
    return [
        f"s3-website{between}{config.region}.{domain}"
        for domain in config.domains
        for between in "-."
    ]


def security_token(request: Request, route: Route) -> str | None:
    """Return the token of a session that a request carries, in a header or, presigned, in its query."""
    token = request.headers.get("x-amz-security-token")
    return token if token is not None else route.query.get("X-Amz-Security-Token")
