"""The one place where a request is allowed or refused, for all operations.

Administrators are not asked. For everybody else, in this order:

1. a Deny of the bucket's policy that fits decides, but for the owner's own policy operations, and so does one of an identity's
   policies; a user or session needs an Allow of those for everything below, but for what the policy of a bucket of its account
   allows it by name;
2. where ACLs are off (object ownership `BucketOwnerEnforced`), the bucket's owner and the policy's Allow let in;
3. where they are on, an object's owner and its ACL let in as well; what others own in a bucket is no longer its owner's to read,
   nor the policy's to give;
4. a bucket's ACL lets in to what a bucket's ACL can give;
5. who is let in to read, and does not own the bucket, could read the file: mode and access control list of what was made or changed as
   one hold here as well.

Public access block takes away what 2 to 4 would give to everybody. Who may not list a bucket is not told what is missing from it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from warp_core.errors import NotFound, VolumeNotFound
from warp_core.interfaces.accounts import Account, Accounts
from warp_core.interfaces.auth import ANONYMOUS, Principal
from warp_core.namespace.principals import caller_of
from warp_core.views import Objects
from warp_core.views.objects import ObjectInfo

from warp_s3 import locking, provenance
from warp_s3.access import acl as acls
from warp_s3.access.members import ACCOUNT, Judgement, Member, judge, plain
from warp_s3.access.policy import Verdict, Who, evaluate
from warp_s3.access.rules import BYPASS, REPLICATE, RULES, Rule
from warp_s3.access.settings import PREFERRED, SNAPSHOT, Memory, Settings, of_snapshot
from warp_s3.access.values import RequestValues
from warp_s3.call import Call
from warp_s3.config import Config
from warp_s3.errors import S3Error
from warp_s3.owners import owner_of
from warp_s3.router import BUCKET, OBJECT, SERVICE

READ_ACTION = "s3:GetObject"
_NOT_FOUND = frozenset({"NoSuchKey", "NoSuchVersion"})


class Access:
    """Judges requests against what buckets and objects say."""

    def __init__(
        self, objects: Objects, accounts: Callable[[], Awaitable[Accounts]], config: Config
    ) -> None:
        self._objects = objects
        self._accounts = accounts
        self._memory = Memory(config)
        self._region = config.region

    async def settings(self, bucket: str) -> Settings:
        """Return what a bucket says about access.

        Raises:
            VolumeNotFound
        """
        volume = self._objects.volume_now(bucket) or await self._objects.volume(bucket)
        if SNAPSHOT in bucket:
            of = await self._objects.volume(bucket.partition(SNAPSHOT)[0])
            return of_snapshot(self._memory.of(of))
        return self._memory.of(volume)

    def enter_now(self, call: Call) -> bool:
        """Say whether it is plain, without waiting, that a request may be carried out: an owner's, without policy and ACLs."""
        rule = RULES[call.route.operation]
        if rule.level == SERVICE or rule.each or SNAPSHOT in call.bucket:
            return False
        volume = self._objects.volume_now(call.bucket)
        if volume is None:
            return False
        settings = self._memory.of(volume)
        return (
            settings.policy is None
            and settings.enforced
            and settings.owner == call.principal.name
            and not isinstance(call.principal, Member)
        )

    async def enter(self, call: Call) -> None:
        """Check that a request may be carried out.

        Raises:
            S3Error: `AccessDenied`.
            VolumeNotFound: There is no such bucket.
        """
        rule = RULES[call.route.operation]
        if call.principal.admin:
            return
        if rule.level == SERVICE:
            if call.principal.name == ANONYMOUS.name:
                raise S3Error("AccessDenied")
            if isinstance(call.principal, Member):
                await self._demand_of_member(call, call.principal, rule.action)
            return
        if rule.each:
            await self.settings(call.bucket)  # its keys are judged one by one
            return
        version = call.query.get("versionId", "") if rule.versioned else ""
        await self.demand(call, call.route.operation, call.bucket, call.key, version=version)
        if rule is RULES["PutObject"]:
            await self._demand_extras(call)
        if not provenance.HEADERS.isdisjoint(call.headers) and rule.level == OBJECT:
            asked = REPLICATE.get(call.route.operation, REPLICATE[""])
            if not await self._allows(call, asked, asked.action, call.bucket, call.key, "", None):
                raise S3Error("AccessDenied")

    async def demand(
        self,
        call: Call,
        operation: str,
        bucket: str,
        key: bytes = b"",
        *,
        version: str = "",
        more: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Check that the sender of a request may do an operation to a bucket or an object, which need not be those of the request.

        Raises:
            S3Error: `AccessDenied`, or `NoSuchBucket`.
        """
        if call.principal.admin:
            return
        rule = RULES[operation]
        action = rule.versioned if version and rule.versioned else rule.action
        if not await self._allows(call, rule, action, bucket, key, version, more):
            raise S3Error("AccessDenied")

    async def may(self, call: Call, operation: str, bucket: str, key: bytes = b"") -> bool:
        """Say whether `demand` would raise nothing."""
        try:
            await self.demand(call, operation, bucket, key)
        except S3Error:
            return False
        return True

    async def may_bypass(self, call: Call, bucket: str, key: bytes, version: str) -> bool:
        """Say whether the sender of a request may end retention in mode GOVERNANCE."""
        if call.principal.admin:
            return True
        return await self._allows(call, BYPASS, BYPASS.action, bucket, key, version, None)

    async def hide(self, call: Call, error: S3Error, bucket: str = "") -> S3Error:
        """Return what the sender of a request may know of an error: not what is missing, if it may not list the bucket."""
        if call.principal.admin or error.code not in _NOT_FOUND:
            return error
        lists = "ListObjectVersions" if error.code == "NoSuchVersion" else "ListObjects"
        may = await self.may(call, lists, bucket or call.bucket)
        return error if may else S3Error("AccessDenied")

    async def placed(self, call: Call) -> tuple[str, bytes]:
        """Return the owner and the ACL of what a request stores.

        Raises:
            S3Error: `AccessControlListNotSupported`; `AccessDenied` for a public ACL where those are blocked; what
                `acl.from_headers` raises.
        """
        settings = await self.settings(call.bucket)
        headers = call.headers
        # What nobody wrote would be nobody's to read or to take away: it is the bucket's owner's.
        nobodys = call.principal.name == ANONYMOUS.name
        writer = settings.owner if nobodys or settings.enforced else call.principal.name
        if acls.HEADERS.isdisjoint(headers):
            return writer, b""
        if settings.enforced:
            refuse_unless_harmless(headers)
            return settings.owner, b""
        owner = writer
        if (
            settings.ownership == PREFERRED
            and headers.get("x-amz-acl") == "bucket-owner-full-control"
        ):
            owner = settings.owner
        made = acls.from_headers(
            headers, await self._accounts(), owner=owner, bucket_owner=settings.owner, bucket=False
        )
        if settings.block.block_public_acls and acls.is_public(made):
            raise S3Error("AccessDenied")
        return owner, acls.pack(made)

    def account(self, principal: Principal, accounts: Accounts) -> Account:
        """Return the account that a principal acts for."""
        return owner_of(accounts, principal.name)

    async def _demand_of_member(self, call: Call, member: Member, action: str) -> None:
        """Check what has no bucket yet: there an account may do everything, and its members what their policies allow."""
        accounts = await self._accounts()
        account = self.account(member, accounts)
        values = RequestValues(call, account, owner=account, region=self._region)
        resource = f"arn:aws:s3:::{call.bucket or '*'}"
        verdict = judge(member, action, [resource], values).verdict
        if verdict is Verdict.DENY or (verdict is Verdict.NOTHING and member.kind != ACCOUNT):
            raise S3Error("AccessDenied")

    async def _demand_extras(self, call: Call) -> None:
        """Check what a write asks for besides its content."""
        if "x-amz-tagging" in call.headers:
            await self._demand_of_new(call, "PutObjectTagging")
        if locking.MODE in call.headers:
            await self._demand_of_new(call, "PutObjectRetention")
        if locking.HOLD in call.headers:
            await self._demand_of_new(call, "PutObjectLegalHold")
        if not acls.HEADERS.isdisjoint(call.headers):
            settings = await self.settings(call.bucket)
            # Where ACLs are on, whoever may write may say the ACL of what it will own.
            if settings.enforced or settings.policy is None:
                return
            # What gives nobody anything but those who own the object and the bucket is no more than a write.
            made = acls.from_headers(
                call.headers,
                await self._accounts(),
                owner=call.principal.name,
                bucket_owner=settings.owner,
                bucket=False,
            )
            if all(one.grantee in {call.principal.name, settings.owner} for one in made or ()):
                return
            await self._demand_of_new(call, "PutObjectAcl")

    async def _demand_of_new(self, call: Call, operation: str) -> None:
        """Check an operation on what will be written: what is there now has no say in it.

        Whom the bucket's ACL lets write, it lets do that, too: it will own what it writes.
        """
        rule = RULES[operation]._replace(content=False, acl=acls.WRITE, acl_level=BUCKET)
        if not await self._allows(call, rule, rule.action, call.bucket, call.key, "", None):
            raise S3Error("AccessDenied")

    async def _allows(
        self,
        call: Call,
        rule: Rule,
        action: str,
        bucket: str,
        key: bytes,
        version: str,
        more: Mapping[str, Sequence[str]] | None,
    ) -> bool:
        if not await self._lets_in(call, rule, action, bucket, key, version, more):
            return False
        if rule.action != READ_ACTION:
            return True
        principal = call.principal
        owner = (await self.settings(bucket)).owner
        if owner in {principal.name, *principal.aliases}:
            return True
        caller = caller_of(plain(principal))
        return await self._objects.readable(bucket, key, caller, version=version)

    async def _lets_in(
        self,
        call: Call,
        rule: Rule,
        action: str,
        bucket: str,
        key: bytes,
        version: str,
        more: Mapping[str, Sequence[str]] | None,
    ) -> bool:
        principal = call.principal
        try:
            settings = await self.settings(bucket)
        except VolumeNotFound as error:
            raise S3Error("NoSuchBucket", details={"BucketName": bucket}) from error
        owns = settings.owner == principal.name or settings.owner in principal.aliases
        if settings.requester_pays and not owns and not _pays(call):
            return False
        info: ObjectInfo | None = None
        foreign = rule.content and not settings.enforced  # an object's own owner and ACL count
        by_tags = settings.policy is not None and settings.policy.conditioned_by_tags
        member = principal if isinstance(principal, Member) else None
        if member is not None and member.conditioned_by_tags:
            by_tags = True
        if rule.level == OBJECT and (foreign or by_tags):
            info = await self._head(bucket, key, version)
        verdict = Verdict.NOTHING
        said: Judgement | None = None
        if member is not None:
            said = await self._said(
                call, member, settings, action, bucket, key, version, info, more
            )
            if said.verdict is Verdict.DENY:
                return False
        itself = owns and (member is None or member.kind == ACCOUNT)
        if settings.policy is not None and not (itself and rule.owners):
            verdict = await self._verdict(call, settings, action, bucket, key, version, info, more)
            if verdict is Verdict.DENY:
                return False
            restricted = settings.block.restrict_public_buckets and settings.policy_public
            if (restricted or settings.snapshot) and not owns:
                verdict = Verdict.NOTHING
        given = owns or verdict is Verdict.ALLOW
        if member is not None and said is not None and said.verdict is not Verdict.ALLOW:
            # Only the policy of a bucket of its own account lets in whom no policy of its own does.
            if member.kind != ACCOUNT and not (owns and verdict is Verdict.ALLOW):
                return False
        elif member is not None and member.kind == ACCOUNT:
            return True  # an administrator allowed it
        if foreign and info is not None:
            return self._by_object(settings, rule, principal, info, given=given)
        if given:
            return True
        if settings.enforced:
            return False
        public_off = settings.block.ignore_public_acls
        if rule.acl and rule.acl_level == BUCKET:
            return acls.grants(settings.acl, rule.acl, principal, ignore_public=public_off)
        # Nothing is there: who may list the bucket is told so.
        return foreign and await self.may(call, "ListObjects", bucket)

    def _by_object(
        self, settings: Settings, rule: Rule, principal: Principal, info: ObjectInfo, *, given: bool
    ) -> bool:
        """Judge an object that is there, where ACLs are on."""
        owner = info.attributes.owner or settings.owner
        if given and owner == settings.owner:
            return True
        if principal.name != ANONYMOUS.name and owner in {principal.name, *principal.aliases}:
            return True
        if not rule.acl:
            return False
        acl = acls.unpack(info.attributes.acl)
        return acls.grants(
            acl, rule.acl, principal, ignore_public=settings.block.ignore_public_acls
        )

    async def _said(
        self,
        call: Call,
        member: Member,
        settings: Settings,
        action: str,
        bucket: str,
        key: bytes,
        version: str,
        info: ObjectInfo | None,
        more: Mapping[str, Sequence[str]] | None,
    ) -> Judgement:
        """Ask the policies of an identity."""
        values = await self._values(call, settings, version, info, more)
        return judge(member, action, [_resource(settings, bucket, key)], values)

    async def _values(
        self,
        call: Call,
        settings: Settings,
        version: str,
        info: ObjectInfo | None,
        more: Mapping[str, Sequence[str]] | None,
    ) -> RequestValues:
        accounts = await self._accounts()
        return RequestValues(
            call,
            self.account(call.principal, accounts),
            owner=owner_of(accounts, settings.owner),
            region=self._region,
            version=version,
            existing_tags=info.attributes.tags if info is not None else None,
            more=more,
        )

    async def _verdict(
        self,
        call: Call,
        settings: Settings,
        action: str,
        bucket: str,
        key: bytes,
        version: str,
        info: ObjectInfo | None,
        more: Mapping[str, Sequence[str]] | None,
    ) -> Verdict:
        assert settings.policy is not None
        values = await self._values(call, settings, version, info, more)
        account = self.account(call.principal, await self._accounts())
        resource = _resource(settings, bucket, key)
        asking = who(call.principal, account, owner=settings.owner)
        verdict = evaluate(settings.policy, asking, action, resource, values)
        member = call.principal
        if verdict is not Verdict.ALLOW or not isinstance(member, Member) or not member.limits:
            return verdict
        if judge(member, action, [resource], values).within:
            return verdict
        # Limits hold for what a bucket's policy gives, unless it names the user or session itself.
        alone = msgspec.structs.replace(asking, arns=member.alone, direct=True)
        named = evaluate(settings.policy, alone, action, resource, values) is Verdict.ALLOW
        return Verdict.ALLOW if named else Verdict.NOTHING

    async def _head(self, bucket: str, key: bytes, version: str) -> ObjectInfo | None:
        try:
            return await self._objects.head(bucket, key, version=version)
        except NotFound:  # also a delete marker
            return None


def _resource(settings: Settings, bucket: str, key: bytes) -> str:
    resource = f"arn:aws:s3:::{bucket.partition(SNAPSHOT)[0] if settings.snapshot else bucket}"
    return resource + "/" + key.decode("utf-8", "replace") if key else resource


def who(principal: Principal, account: Account, *, owner: str = "") -> Who:
    """Return the names by which policies may call a principal; `owner` is whose the policy is.

    What an account allows to itself as a whole is for the policies of its members to hand on.
    """
    if principal.name == ANONYMOUS.name:
        return Who()
    if isinstance(principal, Member) and principal.kind != ACCOUNT:
        direct = principal.name == owner
        return Who(account.canonical_id, account.number, principal.arns, direct=direct)
    return Who(account.canonical_id, account.number, arns(account))


def arns(account: Account) -> frozenset[str]:
    """Return the ARNs of an account's user: an account has one, of its own name."""
    names = (account.name.removeprefix("account:"), account.canonical_id)
    return frozenset(
        f"arn:aws:iam::{number}:user/{name}" for number in (account.number, "") for name in names
    )


def known_principal(accounts: Accounts) -> Callable[[str, str], bool]:
    """Return what tells whether a policy's principal exists."""
    all_arns = frozenset(arn for each in accounts for arn in arns(each))

    def known(kind: str, name: str) -> bool:
        if kind == "account":
            return accounts.with_number(name) is not None
        if kind == "canonical":
            return accounts.with_id(name) is not None
        return name in all_arns

    return known


def _pays(call: Call) -> bool:
    """Say whether a request takes its cost upon itself, which nobody cannot."""
    said = call.headers.get("x-amz-request-payer") or call.query.get("x-amz-request-payer")
    return said == "requester" and call.principal.name != ANONYMOUS.name


def refuse_unless_harmless(headers: Mapping[str, str]) -> None:
    """Refuse ACLs in headers where ACLs are off, but those that give nobody more than the owner has.

    Raises:
        S3Error: `AccessControlListNotSupported`.
    """
    for name in acls.HEADERS & headers.keys():
        if name != "x-amz-acl" or headers[name] not in acls.HARMLESS:
            raise S3Error("AccessControlListNotSupported")
