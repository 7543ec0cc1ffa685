"""Names of user and group numbers, for people who list directories."""

from __future__ import annotations

from typing import Final

from warp_core.interfaces.auth import Authenticator
from warp_core.namespace.principals import NOBODY, made

KEPT_S: Final = 30.0
"""How long names are kept before accounts are asked for anew."""

_KNOWN: Final = {0: "root", NOBODY: "nobody"}


class Users:
    """Names by number, of all accounts."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._names: dict[int, str] = {}
        self._until_s = float("-inf")

    async def fresh(self, now_s: float) -> None:
        """Look at the accounts again, if that was long ago."""
        if now_s < self._until_s:
            return
        names = {
            made(each.name): each.name.removeprefix("account:")
            for each in await self._authenticator.accounts()
        }
        self._names = names | _KNOWN
        self._until_s = now_s + KEPT_S

    def name(self, number: int) -> str:
        """Return the name of a user or of its own group, "" if nobody knows it."""
        return self._names.get(number, "")

    def shown(self, number: int) -> str:
        """Return what a listing shows of a user or group."""
        return self._names.get(number) or str(number)
