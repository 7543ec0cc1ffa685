"""Opens and their share modes, and the clients they belong to: pure state, `now` comes in."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntFlag
from itertools import count

from warp_core.errors import Busy, Locked, StaleHandle
from warp_core.namespace.locks import Node, Owner

CLIENTS_MAX = (
    16_384  # each with its state is a few KiB; also bounds what a takeover has to wait for
)
OPENS_PER_CLIENT_MAX = 65_536  # about 30 MiB of table for one client that closes nothing
HERE = 0  # the client of this node's own users (FUSE, services): it never expires


class Access(IntFlag):
    """What an open may do, and, as `deny`, what it lets nobody else do meanwhile."""

    NONE = 0
    READ = 1
    WRITE = 2
    DELETE = 4  # remove or rename


class Open:
    """One open of an inode. `owner` names who caches: opens with the owner of a lease never recall it."""

    __slots__ = ("access", "closed", "deny", "id", "node", "owner")

    def __init__(self, id_: int, node: Node, owner: Owner, access: Access, deny: Access) -> None:
        self.id = id_
        self.node = node
        self.owner = owner
        self.access = access
        self.deny = deny
        self.closed = False

    def __repr__(self) -> str:
        return f"Open({self.id}, {self.node}, {self.owner}, {self.access!r}, deny={self.deny!r})"


class Client:
    """One client: a session of a remote machine or a mount. `name` is what it calls itself, the same after a restart."""

    __slots__ = ("deadline", "id", "leases", "lockers", "name", "opens", "ttl_s")

    def __init__(self, id_: int, name: str, ttl_s: float | None) -> None:
        self.id = id_
        self.name = name
        self.ttl_s = ttl_s  # None: lives until it is dropped
        self.deadline = float("inf")
        self.opens: dict[int, Open] = {}
        self.lockers: set[tuple[Node, Owner]] = set()  # may hold or wait for locks there
        self.leases: set[tuple[Node, Owner]] = set()  # may hold a lease there


class ShareTable:
    """Opens by inode and clients by id."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[int, int], dict[int, Open]] = {}
        self.clients: dict[int, Client] = {HERE: Client(HERE, "here", None)}
        self._client_ids = count(1)
        self._open_ids = count(1)

    def add_client(self, name: str, ttl_s: float | None, now: float) -> Client:
        """Begin a client that lives while it is renewed.

        Raises:
            Busy: There are CLIENTS_MAX.
        """
        if len(self.clients) >= CLIENTS_MAX:
            raise Busy(f"{CLIENTS_MAX} clients")
        client = Client(next(self._client_ids), name, ttl_s)
        self.clients[client.id] = client
        self.renew(client.id, now)
        return client

    def client(self, id_: int) -> Client:
        """Return a client.

        Raises:
            StaleHandle: It expired or was dropped.
        """
        try:
            return self.clients[id_]
        except KeyError:
            raise StaleHandle(
                f"client {id_} is gone: its lease ran out or it was dropped"
            ) from None

    def renew(self, id_: int, now: float) -> None:
        """Put a client's deadline off.

        Raises:
            StaleHandle: It is gone.
        """
        client = self.client(id_)
        if client.ttl_s is not None:
            client.deadline = now + client.ttl_s

    def overdue(self, now: float) -> list[Client]:
        """Return the clients that were not renewed in time."""
        return [client for client in self.clients.values() if client.deadline <= now]

    def conflict(
        self, node: Node, access: Access, deny: Access, *, but: Open | None = None
    ) -> Open | None:
        """Return an open whose share mode refuses this access, or whose access this share mode would refuse."""
        for other in self.nodes.get(node, {}).values():
            if other is not but and (other.deny & access or deny & other.access):
                return other
        return None

    def add(self, node: Node, owner: Owner, access: Access, deny: Access) -> Open:
        """Register an open.

        Raises:
            Locked: Share modes do not allow it.
            Busy: The client has OPENS_PER_CLIENT_MAX.
            StaleHandle: The client is gone.
        """
        client = self.client(owner.client)
        if len(client.opens) >= OPENS_PER_CLIENT_MAX:
            raise Busy(f"client {client.name!r} has {OPENS_PER_CLIENT_MAX} files open")
        refuse(node, self.conflict(node, access, deny))
        opened = Open(next(self._open_ids), node, owner, access, deny)
        self.nodes.setdefault(node, {})[opened.id] = opened
        client.opens[opened.id] = opened
        return opened

    def change(self, opened: Open, access: Access, deny: Access) -> None:
        """Change access and share mode of an open (NFS upgrades and downgrades).

        Raises:
            Locked: Share modes do not allow it; nothing changed.
        """
        if opened.closed:
            raise StaleHandle(f"open {opened.id} is closed")
        refuse(opened.node, self.conflict(opened.node, access, deny, but=opened))
        opened.access = access
        opened.deny = deny

    def remove(self, opened: Open) -> bool:
        """Close an open; True when the inode has no other. Harmless when repeated (False then)."""
        if opened.closed:
            return False
        opened.closed = True
        client = self.clients.get(opened.owner.client)
        if client is not None:
            client.opens.pop(opened.id, None)
        opens = self.nodes[opened.node]
        del opens[opened.id]
        if opens:
            return False
        del self.nodes[opened.node]
        return True

    def on(self, node: tuple[int, int]) -> Iterator[Open]:
        """Yield the opens of an inode, oldest first."""
        yield from self.nodes.get(node, {}).values()


def refuse(node: Node, conflict: Open | None) -> None:
    """Raise for a share conflict, if there is one.

    Raises:
        Locked
    """
    if conflict is not None:
        raise Locked(
            f"inode {node.inode} is open as {conflict!r}, which does not share this access"
        )
