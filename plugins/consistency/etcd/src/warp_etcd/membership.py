"""Members of a cluster that nodes run: who is in it, who is invited, who may vote.

A member that is invited learns first: it counts for no majority until it has what the others have. So an invitation that
nobody follows costs nothing, and a cluster of one does not stop while the second node is being set up. etcd lets one member
learn at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from warp_core.errors import Conflict, InvalidArgument, NotFound, Unavailable, WarpError
from warp_core.interfaces.consistency import EngineMember
from warp_core.logs import get as get_log

from warp_etcd.client import Client, Method
from warp_etcd.wire import etcd_pb2 as pb

ADD = Method("/etcdserverpb.Cluster/MemberAdd", pb.MemberAddResponse)
REMOVE = Method("/etcdserverpb.Cluster/MemberRemove", pb.MemberRemoveResponse)
UPDATE = Method("/etcdserverpb.Cluster/MemberUpdate", pb.MemberUpdateResponse)
LIST = Method("/etcdserverpb.Cluster/MemberList", pb.MemberListResponse)
PROMOTE = Method("/etcdserverpb.Cluster/MemberPromote", pb.MemberPromoteResponse)

LOOK_S = (
    1.0  # between looks for members that have learned enough; the local member answers from memory
)
ADD_S = 15.0  # how long an invitation may take: etcd takes nobody in before its members were connected for 5 s
SCHEME = "https://"

log = get_log("warp_etcd")


class Membership:
    """Members of the cluster that the node's own member is in. While it is entered, learners become voters."""

    def __init__(self, client: Client, address: str, monotonic: Callable[[], float]) -> None:
        """Take a client of the own member, and where other members reach that."""
        self._client = client
        self._monotonic = monotonic
        self._url = SCHEME + address
        self._promoting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Tell the others where the own member is, if that is another place than before."""
        found = await self._client.call(LIST, pb.MemberListRequest())
        here = found.header.member_id
        for member in found.members:
            if here == member.ID and list(member.peerURLs) != [self._url]:
                await self._client.call(
                    UPDATE, pb.MemberUpdateRequest(ID=here, peerURLs=[self._url])
                )
        self._promoting = asyncio.create_task(self._promote(), name="members of etcd")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._promoting is not None:
            self._promoting.cancel()
            await asyncio.gather(self._promoting, return_exceptions=True)

    async def all(self) -> Sequence[EngineMember]:
        """Return all members, by address."""
        found = await self._client.call(LIST, pb.MemberListRequest())
        return sorted(
            (
                EngineMember(
                    member.name,
                    _address(member),
                    "learning" if member.isLearner else "voting",
                )
                for member in found.members
            ),
            key=lambda each: each.address,
        )

    async def invite(self, name: str, address: str) -> dict[str, object]:
        """Make room for a member, and return the options that it starts with.

        Raises:
            Conflict: A member is there already.
            Unavailable: Another one is still learning, or there is no majority.
        """
        url = SCHEME + address
        known = (await self._client.call(LIST, pb.MemberListRequest())).members
        for member in known:
            if url in member.peerURLs:
                if member.name:
                    raise Conflict(f'etcd has a member "{member.name}" at {address} already')
                # Invited before, and never started: what it may have begun with is void.
                await self._client.call(REMOVE, pb.MemberRemoveRequest(ID=member.ID))
            elif member.isLearner:
                raise Unavailable(
                    f"the member of etcd at {_address(member)} has not joined yet: start that node first, or"
                    " remove it"
                )
        added = await self._client.call(
            ADD,
            pb.MemberAddRequest(peerURLs=[url], isLearner=True),
            until=self._monotonic() + ADD_S,
        )
        members = {
            name if each.ID == added.member.ID else each.name or f"{each.ID:x}": _address(each)
            for each in added.members
        }
        if len(members) != len(added.members):
            await self._client.call(REMOVE, pb.MemberRemoveRequest(ID=added.member.ID))
            raise InvalidArgument(f'etcd has a member of the name "{name}" already')
        return {"name": name, "listen": address, "members": members}

    async def expel(self, name: str) -> None:
        """Remove a member for good.

        Raises:
            NotFound: There is none of that name.
        """
        found = await self._client.call(LIST, pb.MemberListRequest())
        for member in found.members:
            if member.name == name:
                await self._client.call(REMOVE, pb.MemberRemoveRequest(ID=member.ID))
                return
        raise NotFound(f'etcd has no member "{name}"')

    async def _promote(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                found = await self._client.attempt(LIST, pb.MemberListRequest(), timeout_s=LOOK_S)
                for member in found.members:
                    if member.isLearner and member.name:
                        await self._client.attempt(
                            PROMOTE, pb.MemberPromoteRequest(ID=member.ID), timeout_s=LOOK_S
                        )
                        log.info("a member of etcd votes from now on", member=member.name)
            except WarpError:
                continue  # it has not learned enough, or there is no leader now


def _address(member: pb.Member) -> str:
    url: str = member.peerURLs[0] if member.peerURLs else ""
    return url.removeprefix(SCHEME)
