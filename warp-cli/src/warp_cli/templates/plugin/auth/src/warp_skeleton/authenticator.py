"""The authenticator: credentials to principals. Claim `passwords` or `manages_keys` and fill their
methods as well, where it can do so."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from warp_core.contexts import AuthContext
from warp_core.interfaces.auth import AuthCapabilities, Authenticator, Credential

from warp_skeleton.config import Config


class Skeleton(Authenticator):
    """Say whose credentials it knows."""

    capabilities = AuthCapabilities(shared_secrets=True)

    def __init__(self, config: Config, context: AuthContext) -> None:
        self._root = context.root

    async def __aenter__(self) -> Self:
        """Connect to what knows credentials."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect."""

    async def lookup(self, access_key: str) -> Credential:
        """Return the secret that requests of this access key are signed with.

        Raises:
            Unauthenticated: Unknown or revoked.
        """
        raise NotImplementedError
