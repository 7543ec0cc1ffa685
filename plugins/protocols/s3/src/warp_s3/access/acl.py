"""Access control lists: who is granted what on a bucket or an object; canned, in headers, in XML, and as they are kept.

An ACL of None grants its owner everything and nobody else anything, as `private` does. Grantees are principals' names, so that an
account keeps its grants whatever it is called to others, or one of the groups.

Source: "Access control list (ACL) overview" in the Amazon S3 user guide.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element

import msgspec
from warp_core.interfaces.accounts import Accounts
from warp_core.interfaces.auth import ANONYMOUS, Principal

from warp_s3.errors import S3Error
from warp_s3.owners import owner_of
from warp_s3.xml_input import parse
from warp_s3.xml_output import document, escape, owner_element

GRANTS_MAX: Final = 100
"""Grants of an ACL; S3's own figure."""

FULL_CONTROL: Final = "FULL_CONTROL"
READ: Final = "READ"
WRITE: Final = "WRITE"
READ_ACP: Final = "READ_ACP"
WRITE_ACP: Final = "WRITE_ACP"
PERMISSIONS: Final = (FULL_CONTROL, WRITE, WRITE_ACP, READ, READ_ACP)

ALL_USERS: Final = "group:AllUsers"
AUTHENTICATED_USERS: Final = "group:AuthenticatedUsers"
LOG_DELIVERY: Final = "group:LogDelivery"
PUBLIC: Final = frozenset({ALL_USERS, AUTHENTICATED_USERS})

_URIS: Final = {
    ALL_USERS: "http://acs.amazonaws.com/groups/global/AllUsers",
    AUTHENTICATED_USERS: "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
    LOG_DELIVERY: "http://acs.amazonaws.com/groups/s3/LogDelivery",
}
_GROUPS: Final = {uri: group for group, uri in _URIS.items()}

_GRANT_HEADERS: Final = {
    # In the order that the grants come back in.
    "x-amz-grant-read": READ,
    "x-amz-grant-write": WRITE,
    "x-amz-grant-read-acp": READ_ACP,
    "x-amz-grant-write-acp": WRITE_ACP,
    "x-amz-grant-full-control": FULL_CONTROL,
}
HEADERS: Final = frozenset({"x-amz-acl", *_GRANT_HEADERS})
_HEADER_GRANTEE: Final = re.compile(
    r'\s*(id|uri|emailaddress)\s*=\s*"?([^",]*)"?\s*\Z', re.IGNORECASE
)
_XSI: Final = "{http://www.w3.org/2001/XMLSchema-instance}type"
FORMAT: Final = 1


class Grant(NamedTuple):
    """One line of an ACL."""

    grantee: str  # a principal's name, or one of the groups
    permission: str


Acl = tuple[Grant, ...]

_BUCKET_ONLY: Final = frozenset({"log-delivery-write"})
_CANNED: Final[Mapping[str, tuple[Grant, ...]]] = {
    # What each gives beside the owner's full control.
    "private": (),
    "public-read": (Grant(ALL_USERS, READ),),
    "public-read-write": (Grant(ALL_USERS, READ), Grant(ALL_USERS, WRITE)),
    "authenticated-read": (Grant(AUTHENTICATED_USERS, READ),),
    "aws-exec-read": (),
    "bucket-owner-read": (),
    "bucket-owner-full-control": (),
    "log-delivery-write": (Grant(LOG_DELIVERY, WRITE), Grant(LOG_DELIVERY, READ_ACP)),
}
HARMLESS: Final = frozenset({"private", "bucket-owner-full-control"})
"""Canned ACLs that are taken where ACLs are off: nobody but the bucket's owner has anything by them."""


class _Kept(msgspec.Struct, frozen=True):
    v: int
    grants: tuple[Grant, ...]


_kept = msgspec.json.Decoder(_Kept)


def pack(acl: Acl | None) -> bytes:
    """Write an ACL as it is kept with an object or a bucket; None is empty."""
    return b"" if acl is None else msgspec.json.encode(_Kept(FORMAT, acl))


def unpack(data: bytes) -> Acl | None:
    """Read a kept ACL.

    Raises:
        S3Error: `InternalError`, it was written by a later release or is damaged: nobody is let in by it.
    """
    if not data:
        return None
    try:
        kept = _kept.decode(data)
    except msgspec.DecodeError as error:
        raise S3Error("InternalError") from error
    if kept.v > FORMAT:
        raise S3Error("InternalError")
    return kept.grants


def effective(acl: Acl | None, owner: str) -> Acl:
    """Return the grants of an ACL as S3 shows them."""
    return (Grant(owner, FULL_CONTROL),) if acl is None else acl


def grants(
    acl: Acl | None, permission: str, principal: Principal, *, ignore_public: bool = False
) -> bool:
    """Say whether an ACL gives a principal a permission; what its owner has is judged elsewhere."""
    names = {principal.name, *principal.aliases}
    for grantee, given in acl or ():
        if given not in (permission, FULL_CONTROL):
            continue
        if grantee == ALL_USERS:
            if not ignore_public:
                return True
        elif grantee == AUTHENTICATED_USERS:
            if not ignore_public and principal.name != ANONYMOUS.name:
                return True
        elif grantee in names and principal.name != ANONYMOUS.name:
            return True
    return False


def is_public(acl: Acl | None) -> bool:
    """Say whether an ACL grants anything to everybody."""
    return any(grant.grantee in PUBLIC for grant in acl or ())


# Reading ------------------------------------------------------------------------------------------


def canned(name: str, *, owner: str, bucket_owner: str, bucket: bool) -> Acl | None:
    """Return a canned ACL.

    Raises:
        S3Error: `InvalidArgument`.
    """
    if name not in _CANNED or (name in _BUCKET_ONLY and not bucket):
        raise S3Error(
            "InvalidArgument", details={"ArgumentName": "x-amz-acl", "ArgumentValue": name}
        )
    further = _CANNED[name]
    if not bucket and owner != bucket_owner:
        if name == "bucket-owner-read":
            further = (Grant(bucket_owner, READ),)
        elif name == "bucket-owner-full-control":
            further = (Grant(bucket_owner, FULL_CONTROL),)
    # Groups come first: clients that sort grants by display name, which groups have none of, look at the first alone.
    return (*further, Grant(owner, FULL_CONTROL)) if further else None


def from_headers(
    headers: Mapping[str, str], accounts: Accounts, *, owner: str, bucket_owner: str, bucket: bool
) -> Acl | None:
    """Read the ACL that a request's headers say; None where they say none, or a private one.

    Raises:
        S3Error: `InvalidArgument`, `InvalidRequest`, `UnresolvableGrantByEmailAddress`.
    """
    given = [name for name in _GRANT_HEADERS if name in headers]
    name = headers.get("x-amz-acl")
    if name is not None:
        if given:
            raise S3Error(
                "InvalidRequest",
                "Specifying both Canned ACLs and Header Grants is not allowed",
            )
        return canned(name, owner=owner, bucket_owner=bucket_owner, bucket=bucket)
    if not given:
        return None
    found: list[Grant] = []
    for header in given:
        for text in headers[header].split(","):
            match = _HEADER_GRANTEE.match(text)
            if match is None:
                raise S3Error(
                    "InvalidArgument",
                    "Argument format not recognized",
                    details={"ArgumentName": header, "ArgumentValue": headers[header]},
                )
            kind, value = match[1].lower(), match[2].strip()
            grantee = _grantee(kind, value, accounts)
            found.append(Grant(grantee, _GRANT_HEADERS[header]))
    return _checked(found)


def from_xml(body: bytes, accounts: Accounts, *, owner: str) -> Acl:
    """Read an AccessControlPolicy document.

    Raises:
        S3Error: `MalformedACLError`, `InvalidArgument`, `UnresolvableGrantByEmailAddress`, `AccessDenied` for another owner.
    """
    try:
        policy = parse(body, "AccessControlPolicy")
    except S3Error as error:
        if error.code == "MalformedXML":
            raise S3Error("MalformedACLError") from error
        raise
    named = policy.findtext("Owner/ID")
    if named is None or policy.find("AccessControlList") is None:
        raise S3Error("MalformedACLError")
    if named != owner_of(accounts, owner).canonical_id:
        raise S3Error("AccessDenied")
    return _checked([_grant(one, accounts) for one in policy.findall("AccessControlList/Grant")])


def _grant(element: Element, accounts: Accounts) -> Grant:
    permission = element.findtext("Permission")
    grantee = element.find("Grantee")
    if permission not in PERMISSIONS or grantee is None:
        raise S3Error("MalformedACLError")
    for kind, tag in (("id", "ID"), ("uri", "URI"), ("emailaddress", "EmailAddress")):
        value = grantee.findtext(tag)
        if value is not None:
            return Grant(_grantee(kind, value.strip(), accounts), permission)
    raise S3Error("MalformedACLError")


def _grantee(kind: str, value: str, accounts: Accounts) -> str:
    if kind == "uri":
        group = _GROUPS.get(value)
        if group is None:
            raise S3Error(
                "InvalidArgument",
                "Invalid group uri",
                details={"ArgumentName": "uri", "ArgumentValue": value},
            )
        return group
    account = accounts.with_id(value) if kind == "id" else accounts.with_email(value)
    if account is not None:
        return account.name
    if kind == "emailaddress":
        raise S3Error("UnresolvableGrantByEmailAddress")
    raise S3Error(
        "InvalidArgument",
        "Invalid id",
        details={"ArgumentName": "CanonicalUser/ID", "ArgumentValue": value},
    )


def _checked(found: Sequence[Grant]) -> Acl:
    unique = tuple(dict.fromkeys(found))
    if len(unique) > GRANTS_MAX:
        raise S3Error("MalformedACLError")
    return unique


# Writing ------------------------------------------------------------------------------------------


def to_xml(acl: Acl | None, owner: str, accounts: Accounts) -> bytes:
    """Write an AccessControlPolicy document."""
    known = owner_of(accounts, owner)
    rows = "".join(
        [
            f"<Grant>{_grantee_element(one.grantee, accounts)}"
            f"<Permission>{one.permission}</Permission></Grant>"
            for one in effective(acl, owner)
        ]
    )
    return document(
        "AccessControlPolicy",
        f"{owner_element(known.canonical_id, known.display)}"
        f"<AccessControlList>{rows}</AccessControlList>",
    )


def _grantee_element(grantee: str, accounts: Accounts) -> str:
    head = '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type='
    if grantee in _URIS:
        return f'{head}"Group"><URI>{_URIS[grantee]}</URI></Grantee>'
    account = owner_of(accounts, grantee)
    return (
        f'{head}"CanonicalUser"><ID>{escape(account.canonical_id)}</ID>'
        f"<DisplayName>{escape(account.display)}</DisplayName></Grantee>"
    )
