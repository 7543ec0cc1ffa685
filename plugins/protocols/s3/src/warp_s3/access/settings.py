"""What a bucket says about access: documents of its volume, read once and remembered as long as they stay."""

from collections.abc import Mapping
from typing import Final

import msgspec
from warp_core.interfaces.accounts import ROOT
from warp_core.views.objects import VolumeInfo

from warp_s3.access import acl as acls
from warp_s3.access.acl import Acl
from warp_s3.access.policy import Malformed, Policy, is_public, read
from warp_s3.config import Config
from warp_s3.errors import S3Error

ACL: Final = "s3.acl"
OWNERSHIP: Final = "s3.ownership"
BLOCK: Final = "s3.public-access-block"
POLICY: Final = "s3.policy"
PAYMENT: Final = "s3.request-payment"  # "Requester", or no document

ENFORCED: Final = "BucketOwnerEnforced"
PREFERRED: Final = "BucketOwnerPreferred"
WRITER: Final = "ObjectWriter"
OWNERSHIPS: Final = frozenset({ENFORCED, PREFERRED, WRITER})

SNAPSHOT: Final = ".snap-"
"""Between the names of a bucket and of its snapshot."""

REMEMBERED_MAX: Final = 1024
"""Buckets whose settings are remembered in the form that is asked for, a few KiB each."""


class Block(msgspec.Struct, frozen=True):
    """A public access block; kept as JSON."""

    block_public_acls: bool = False
    ignore_public_acls: bool = False
    block_public_policy: bool = False
    restrict_public_buckets: bool = False


ALL_BLOCKED: Final = Block(True, True, True, True)
NOTHING_BLOCKED: Final = Block()


class Settings(msgspec.Struct, frozen=True):
    """What a bucket says about access."""

    owner: str  # principal's name
    ownership: str
    ownership_said: bool  # False: taken away, and GetBucketOwnershipControls tells so
    acl: Acl | None
    block: Block
    block_said: bool
    policy: Policy | None
    policy_public: bool = False
    requester_pays: bool = False
    snapshot: bool = (
        False  # of the bucket that says all this: its policy's Deny holds, its Allow does not
    )

    @property
    def enforced(self) -> bool:
        """ACLs are off: everything in the bucket is its owner's."""
        return self.ownership == ENFORCED


def of_snapshot(settings: Settings) -> Settings:
    """Return what a bucket says about a snapshot of it: only its owner reads there, and not what a Deny keeps from it.

    What a policy or an ACL gives to others is what is there now, not what was there once and perhaps was taken away.
    """
    return msgspec.structs.replace(
        settings, ownership=ENFORCED, acl=None, block=ALL_BLOCKED, snapshot=True
    )


class Memory:
    """Settings of the buckets that were asked for last."""

    def __init__(self, config: Config) -> None:
        self._ownership = config.object_ownership
        self._block = ALL_BLOCKED if config.block_public_access else NOTHING_BLOCKED
        self._known: dict[str, tuple[Mapping[str, bytes], str, Settings]] = {}

    def of(self, volume: VolumeInfo) -> Settings:
        """Return a bucket's settings.

        Raises:
            S3Error: `InternalError`, one of them is damaged: nobody is let in by what cannot be read.
        """
        known = self._known.get(volume.name)
        # The view hands out the same documents until one of them changes.
        if known is not None and known[0] is volume.documents and known[1] == volume.owner:
            return known[2]
        made = self._read(volume)
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[volume.name] = volume.documents, volume.owner, made
        return made

    def _read(self, volume: VolumeInfo) -> Settings:
        documents = volume.documents
        ownership = documents.get(OWNERSHIP)
        block = documents.get(BLOCK)
        policy = documents.get(POLICY)
        try:
            made = read(policy, volume.name) if policy is not None else None
            blocked = self._block
            if block is not None:
                blocked = msgspec.json.decode(block, type=Block) if block else NOTHING_BLOCKED
        except (Malformed, msgspec.DecodeError) as error:
            raise S3Error("InternalError") from error
        said = self._ownership if ownership is None else ownership.decode()
        return Settings(
            owner=volume.owner or ROOT,
            ownership=said if said in OWNERSHIPS else WRITER,
            ownership_said=bool(said),
            acl=acls.unpack(documents.get(ACL, b"")),
            block=blocked,
            block_said=bool(block) if block is not None else blocked is ALL_BLOCKED,
            policy=made,
            policy_public=made is not None and is_public(made),
            requester_pays=PAYMENT in documents,
        )
