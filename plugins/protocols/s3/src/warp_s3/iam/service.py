"""Requests of the query protocol to answers: who sent it, whether it may, and what does the work."""

import time
import uuid
from collections.abc import Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import Final

import msgspec
from warp_core.errors import WarpError
from warp_core.interfaces.audit import NO_AUDIT, Audit
from warp_core.interfaces.auth import ANONYMOUS, Authenticator

from warp_s3.access.judging import arns as account_arns
from warp_s3.access.members import ACCOUNT, Member, judge
from warp_s3.access.policy import Verdict
from warp_s3.access.values import RequestValues
from warp_s3.auditing import about_form, caller_of
from warp_s3.call import Answer, Call
from warp_s3.config import Config
from warp_s3.errors import S3Error
from warp_s3.iam import wire
from warp_s3.iam.asking import Ask, Result, account_called
from warp_s3.iam.directory import Directory, Draft
from warp_s3.iam.entities import User
from warp_s3.iam.errors import QueryError, from_s3, from_warp
from warp_s3.iam.identities import Identities
from warp_s3.iam.oidc import WebIdentities
from warp_s3.iam.table import IAM, STS, UNSIGNED, Operation
from warp_s3.iam.wire import Form
from warp_s3.owners import owner_of
from warp_s3.sigv4 import SigningKeys, read_claim, verify

SERVICES: Final = frozenset({"iam", "sts"})
_IAM_NAMESPACE: Final = "https://iam.amazonaws.com/doc/2010-05-08/"
_STS_NAMESPACE: Final = "https://sts.amazonaws.com/doc/2011-06-15/"


class QueryService:
    """The query protocol.

    Attributes:
        identities: Who has an access key.
        directory: Users, groups, roles and policies.
        authenticator: Knows accounts and their own keys.
        web_identities: Verifies tokens of other providers.
    """

    def __init__(
        self,
        identities: Identities,
        authenticator: Authenticator,
        signing_keys: SigningKeys,
        config: Config,
        audit: Audit = NO_AUDIT,
    ) -> None:
        self.identities = identities
        self.directory: Directory = identities.directory
        self.authenticator = authenticator
        self.web_identities = WebIdentities(config.identity_providers)
        self._signing_keys = signing_keys
        self._audit = audit
        self._region = config.region

    def now_s(self) -> int:
        """Return the time in whole seconds."""
        return int(time.time())

    async def answer(self, call: Call) -> Answer:
        """Answer a request."""
        request_id = str(uuid.uuid4())
        action = ""
        try:
            try:
                signed = "authorization" in call.headers or "X-Amz-Signature" in call.query
                body = await call.body.read(wire.FORM_MAX if signed else wire.UNSIGNED_MAX)
                form = wire.read_form(body, _plain_query(call.request.query))
                action = form.get("Action")
                result = await self._result(call, form, body)
            except S3Error as error:
                if error.closes:
                    raise
                raise from_s3(error) from error
            except WarpError as error:
                raise from_warp(error) from error
        except QueryError as error:
            namespace = _STS_NAMESPACE if action in STS else _IAM_NAMESPACE
            return _xml(error.status, wire.error(error, namespace, request_id), request_id)
        namespace = _STS_NAMESPACE if action in STS else _IAM_NAMESPACE
        return _xml(200, wire.answer(action, namespace, result, request_id), request_id)

    async def _result(self, call: Call, form: Form, body: bytes) -> Result:
        action = form.get("Action")
        operation = IAM.get(action) or STS.get(action)
        if operation is None:
            raise QueryError(
                "InvalidAction",
                f"Could not find operation {action[:64] or '(none)'} for this service.",
            )
        ask, known = await self._ask(call, form, body)
        if not known and action not in UNSIGNED:
            raise QueryError(
                "MissingAuthenticationToken", "Request is missing Authentication Token"
            )
        if operation.changes and action in IAM and known:
            caller = caller_of(call, ask.principal)
            async with self._audit.change(caller, f"iam:{action}", about_form(form)):
                return await self._done(call, ask, action, operation)
        return await self._done(call, ask, action, operation)

    async def _done(self, call: Call, ask: Ask, action: str, operation: Operation) -> Result:
        if not self.directory.fresh:
            await self.directory.refresh()
        if operation.judges is not None:
            return await operation.judges(self, ask, call)
        ask = self._permitted(call, ask, action, operation)
        if operation.waits is not None:
            return await operation.waits(self, ask)
        run = operation.run
        assert run is not None
        if operation.changes:
            return await self.directory.change(lambda draft: run(draft, ask))
        return run(Draft(self.directory.state, self.now_s()), ask)

    # Who --------------------------------------------------------------------------------------------

    async def _ask(self, call: Call, form: Form, body: bytes) -> tuple[Ask, bool]:
        """Find out who sent a request; also whether anybody signed it.

        Raises:
            S3Error: As for S3's own requests.
        """
        request = call.request
        digest = sha256(body).hexdigest()
        claim = read_claim(request, now=time.time(), services=SERVICES, payload=digest)
        accounts = await self.authenticator.accounts()
        seal = self.authenticator.seal
        if claim is None:
            nobody = owner_of(accounts, ANONYMOUS.name)
            return Ask(form, ANONYMOUS, nobody, accounts, "", seal), False
        # What is asked for is in the body: unsigned, anybody could change it on the way.
        if not compare_digest(claim.payload, digest):
            raise S3Error("XAmzContentSHA256Mismatch")
        token = request.headers.get("x-amz-security-token")
        if token is None:
            token = call.query.get("X-Amz-Security-Token")
        credential = self.identities.find_now(claim.access_key, token)
        if credential is None:
            credential = await self.identities.find(claim.access_key, token)
        verify(claim, request, self._signing_keys.get(credential.secret, claim.scope))
        principal = credential.principal
        account = owner_of(accounts, principal.name)
        return Ask(form, principal, account, accounts, claim.access_key, seal), True

    # Whether ----------------------------------------------------------------------------------------

    def _permitted(self, call: Call, ask: Ask, action: str, operation: Operation) -> Ask:
        """Check that the sender may do an operation to what it is about, and return the request with what that is.

        Raises:
            QueryError: `AccessDenied`.
        """
        resource = operation.resource(self.directory.state, ask)
        resources = [resource, resource.replace(f"::{ask.number}:", ":::", 1)]
        name = ask.form.get("UserName") if operation.accounts else ""
        itself = False  # an account is named in place of a user
        if name and self.directory.state.find(ask.account.name, User, name) is None:
            named = account_called(ask, name)
            if named is not None:
                itself = True
                resources = sorted(account_arns(named))
        self.demand(call, ask, f"iam:{action}", resources, _asked(ask.form), itself=itself)
        return msgspec.structs.replace(ask, itself=itself)

    def demand(
        self,
        call: Call,
        ask: Ask,
        action: str,
        resources: Sequence[str],
        more: Mapping[str, Sequence[str]],
        *,
        itself: bool = False,
    ) -> None:
        """Check an action; `itself`: on what is said of an account, which only administrators and what they said allow.

        No policy of a user reaches that far: an account could give it to its users, and so to itself.

        Raises:
            QueryError: `AccessDenied`.
        """
        principal = ask.principal
        if principal.admin:
            return
        if isinstance(principal, Member) and (principal.kind == ACCOUNT or not itself):
            verdict = judge(principal, action, resources, self.values(call, ask, more)).verdict
            if verdict is Verdict.ALLOW:
                return
            if verdict is Verdict.NOTHING and principal.kind == ACCOUNT and not itself:
                return
        elif not itself and not isinstance(principal, Member):
            return
        raise denied(ask, action, resources[0])

    def values(self, call: Call, ask: Ask, more: Mapping[str, Sequence[str]]) -> RequestValues:
        """Return the values of condition keys of a request."""
        seen = Call(call.request, call.route, ask.principal, call.body, call.payload)
        return RequestValues(seen, ask.account, owner=ask.account, region=self._region, more=more)


def denied(ask: Ask, action: str, resource: str) -> QueryError:
    """Say that somebody may not do something."""
    return QueryError(
        "AccessDenied",
        f"User: {sender_arn(ask)} is not authorized to perform: {action} on resource: {resource}",
    )


def sender_arn(ask: Ask) -> str:
    """Return the ARN of who sent a request."""
    if isinstance(ask.principal, Member) and ask.principal.arn:
        return ask.principal.arn
    return f"arn:aws:iam::{ask.number}:root"


def _asked(form: Form) -> dict[str, Sequence[str]]:
    """Return the condition keys that a request's own fields give."""
    made: dict[str, Sequence[str]] = {}
    tags = form.structs("Tags", "Key", "Value")
    for key, value in tags:
        made[f"aws:requesttag/{key.lower()}"] = (value,)
    if tags:
        made["aws:tagkeys"] = [key for key, _ in tags]
    for parameter, key in (
        ("PolicyArn", "iam:policyarn"),
        ("PermissionsBoundary", "iam:permissionsboundary"),
    ):
        if form.get(parameter):
            made[key] = (form.get(parameter),)
    return made


def _plain_query(query: str) -> str:
    """Return a query without what signs it."""
    return "&".join(part for part in query.split("&") if not part.startswith("X-Amz-"))


def _xml(status: int, body: bytes, request_id: str) -> Answer:
    headers = [("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id)]
    return Answer(status, headers, body, len(body))
