"""Owners: principals' names as the Owner elements that S3 shows."""

from collections.abc import Callable

from warp_core.interfaces.accounts import ROOT, Account, Accounts

from warp_s3 import xml_output


def owner_of(accounts: Accounts, name: str) -> Account:
    """Return the account behind an owner's name; what nobody was named for is the operator's."""
    return accounts.named(name or ROOT)


def owner_writer(accounts: Accounts) -> Callable[[str], str]:
    """Give a function from owners to their elements, which remembers them for one page."""
    known: dict[str, str] = {}

    def write(name: str) -> str:
        element = known.get(name)
        if element is None:
            owner = owner_of(accounts, name)
            element = known[name] = xml_output.owner_element(owner.canonical_id, owner.display)
        return element

    return write
