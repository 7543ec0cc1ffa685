"""Ways to names: a key's steps through directories, as far as rows know them."""

from __future__ import annotations

from dataclasses import dataclass

from warp_core.namespace import keys
from warp_core.namespace.keys import Step
from warp_core.namespace.rows import Name, decode_name, decode_way
from warp_core.namespace.tree import Rows


@dataclass(slots=True)
class Path:
    """The way to a key as far as it is known: `nodes[i]` is where `steps[i]` is looked up, `names[i]` what was found there."""

    key: bytes
    steps: list[Step]
    nodes: list[int]
    names: list[Name]

    @property
    def complete(self) -> bool:
        """Say whether the last node is known."""
        return len(self.nodes) == len(self.steps)

    @property
    def current(self) -> Name | None:
        """Return the entry at the end, if there is one."""
        return self.names[-1] if len(self.names) == len(self.steps) else None

    @property
    def place(self) -> tuple[int, bytes]:
        """Return directory and component of the last step; the path is complete."""
        return self.nodes[len(self.steps) - 1], self.steps[-1].key

    def directory(self, index: int = -1) -> int:
        """Return the directory that the component of a step is in: long ones continue in nodes of their own."""
        index %= len(self.steps)
        while index and self.steps[index - 1].key.endswith(keys.CONTINUED_END):
            index -= 1
        return self.nodes[index]

    def holder(self, sequence: int) -> bytes:
        """Return how the version of this number at the end is named as a holder of its revision."""
        return keys.holder_of_name(*self.place, sequence)


async def resolve(
    stored: Rows, steps: list[Step], key: bytes = b"", *, root: int = keys.ROOT
) -> Path:
    """Look a path up among live names."""
    nodes: list[int] = [root]
    names: list[Name] = []
    path = Path(key, steps, nodes, names)
    if not steps:
        return path
    last = steps[-1]
    for step in steps:
        value = await stored.get(keys.name_key(nodes[-1], step[0]))
        if value is None:
            return path
        if step is last:
            names.append(decode_name(value))
        else:
            name = decode_way(value)
            names.append(name)
            nodes.append(name.inode)
    return path


async def extend(stored: Rows, path: Path) -> Path:
    """Go on where live names end, through the directories that versions keep."""
    while not path.complete:
        step = path.steps[len(path.nodes) - 1]
        value = await stored.get(keys.kept_directory_key(path.nodes[-1], step.key))
        if value is None:
            break
        path.nodes.append(decode_name(value).inode)
    return path
