"""The copy of all entities in memory, found by name, by id and by access key."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from warp_core.interfaces.records import Records

from warp_s3.iam.entities import (
    Entity,
    Group,
    Key,
    Managed,
    Own,
    Provider,
    Ref,
    Role,
    User,
    pack,
    record_name,
    ref_of,
    unpack,
)

T = TypeVar("T")
E = TypeVar("E", User, Group, Role, Managed, Provider, Own)

REMEMBER_S: Final = 5.0
"""How long a node of a cluster goes on with what another may have changed: as `auth.remember`'s default."""


class State:
    """All entities at one moment."""

    def __init__(self, known: Mapping[str, bytes] | None = None) -> None:
        """Read records.

        Raises:
            NewerFormat: A later release wrote one.
        """
        self._by_ref: dict[Ref, Entity] = {}
        self.by_id: dict[str, User | Role] = {}
        self.keys: dict[str, tuple[User, Key]] = {}
        self.said: dict[str, Own] = {}  # what has policies of accounts, by the account's name
        for record, value in (known or {}).items():
            entity = unpack(record, value)
            self._by_ref[ref_of(entity)] = entity
            if isinstance(entity, User | Role):
                self.by_id[entity.id] = entity
            if isinstance(entity, User):
                self.keys |= {key.id: (entity, key) for key in entity.keys}
            if isinstance(entity, Own) and (entity.policies or entity.attached):
                self.said[entity.account] = entity

    def find(self, account: str, kind: type[E], name: str) -> E | None:
        """Return an entity; names differ by more than case."""
        found = self._by_ref.get((account, kind, name.lower()))
        return found if isinstance(found, kind) else None

    def all(self, account: str, kind: type[E]) -> list[E]:
        """Return an account's entities of a kind, sorted by name without regard to case."""
        found = [each for each in self._of(kind) if each.account == account]
        return sorted(found, key=lambda each: each.name.lower())

    def _of(self, kind: type[E]) -> Iterator[E]:
        return (each for each in self._by_ref.values() if isinstance(each, kind))


class Draft:
    """What an operation changes, decided on a state."""

    def __init__(self, state: State, now_s: int) -> None:
        """Begin without changes; `now_s` is the time that they carry."""
        self.state = state
        self.now_s = now_s
        self._changes: dict[Ref, Entity | None] = {}

    def put(self, entity: Entity) -> None:
        """Make or replace an entity."""
        self._changes[ref_of(entity)] = entity

    def delete(self, entity: Entity) -> None:
        """Take an entity away."""
        self._changes[ref_of(entity)] = None

    def records(self) -> dict[str, bytes | None]:
        """Return the changes as records."""
        return {
            record_name(ref): pack(entity) if entity is not None else None
            for ref, entity in self._changes.items()
        }


class Directory:
    """Entities, read once and again when another node may have changed them."""

    def __init__(
        self,
        records: Records,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self._monotonic = monotonic
        self._wall = wall
        self._read_at = 0.0
        self._of_generation = -1
        self.state = State()
        self.memory: dict[str, object] = {}  # what follows from the state, forgotten with it

    @property
    def shared(self) -> bool:
        """Other nodes change entities, too."""
        return self._records.shared

    @property
    def fresh(self) -> bool:
        """The state is what holds, or was what held a moment ago."""
        if self._records.generation < 0:
            return False
        return not self._records.shared or self._monotonic() - self._read_at < REMEMBER_S

    async def refresh(self) -> None:
        """Read what another node may have changed.

        Raises:
            NewerFormat: A later release wrote it: nobody is let in by half of what is said.
        """
        at = self._monotonic()
        await self._records.refresh()
        self._adopt()
        self._read_at = at

    async def change(self, decide: Callable[[Draft], T]) -> T:
        """Change entities; `decide` may be called several times."""

        def body(known: Mapping[str, bytes]) -> tuple[T, Mapping[str, bytes | None]]:
            self._adopt()
            draft = Draft(self.state, int(self._wall()))
            result = decide(draft)
            return result, draft.records()

        try:
            return await self._records.change(body)
        finally:
            if self._records.generation >= 0:
                self._adopt()

    def _adopt(self) -> None:
        if self._records.generation != self._of_generation:
            self.state = State(self._records.known)
            self._of_generation = self._records.generation
            self.memory = {}
