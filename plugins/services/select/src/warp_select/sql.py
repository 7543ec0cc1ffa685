"""Pieces of DuckDB's SQL with their types, and the parameters that they name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["NULL", "BOOL", "INT", "DECIMAL", "FLOAT", "TEXT", "TIME", "JSON"]
"""What the dialect knows of a value before it is there. JSON: what it is, the record will tell."""


@dataclass(frozen=True, slots=True)
class Sql:
    """An expression.

    `atom`: computing it again costs little. `path`: NULL means that it is missing, and nothing else. `scale`: decimal places.
    """

    text: str
    kind: Kind
    atom: bool = False
    path: bool = False
    scale: int = 0

    def called(self, name: str) -> Sql:
        """Return the same value by the name of a variable."""
        return Sql(name, self.kind, atom=True, scale=self.scale)


@dataclass(slots=True)
class Parameters:
    """Values that SQL names: whatever a client wrote comes in here and nowhere else."""

    values: dict[str, object] = field(default_factory=dict)

    def add(self, value: object, type_: str) -> str:
        """Remember a value; return SQL for it as a type, which is ours."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"CAST(${name} AS {type_})"
