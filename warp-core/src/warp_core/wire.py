"""Records: a class body that is its packet diagram, compiled once to a `struct.Struct`.

```python
class Request(Record, frozen=True, gc=False):
    magic: u32
    flags: u16
    command: u16
    cookie: u64


Request.SIZE  # 16
request = Request.unpack(buffer, 0)
request.pack()
```

Fields lie back to back in the order of the body, without padding, big endian unless the class says
`endian="little"`. Their types are the aliases below: `u8` to `u64`, `i8` to `i64`, `f32`, `f64`, and
`bytesN` for exactly N bytes. Variable tails are plain code beside the record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Literal, Self, dataclass_transform, get_args

import msgspec

from warp_core.errors import LocalProtocolError, RemoteProtocolError

Buffer = bytes | bytearray | memoryview


class Code(msgspec.Struct, frozen=True):
    """The `struct` format of one field type."""

    format: str


u8 = Annotated[int, Code("B")]
u16 = Annotated[int, Code("H")]
u32 = Annotated[int, Code("I")]
u64 = Annotated[int, Code("Q")]
i8 = Annotated[int, Code("b")]
i16 = Annotated[int, Code("h")]
i32 = Annotated[int, Code("i")]
i64 = Annotated[int, Code("q")]
f32 = Annotated[float, Code("f")]
f64 = Annotated[float, Code("d")]
bytes2 = Annotated[bytes, Code("2s")]
bytes3 = Annotated[bytes, Code("3s")]
bytes4 = Annotated[bytes, Code("4s")]
bytes6 = Annotated[bytes, Code("6s")]
bytes7 = Annotated[bytes, Code("7s")]
bytes8 = Annotated[bytes, Code("8s")]
bytes12 = Annotated[bytes, Code("12s")]
bytes16 = Annotated[bytes, Code("16s")]
bytes20 = Annotated[bytes, Code("20s")]
bytes24 = Annotated[bytes, Code("24s")]
bytes32 = Annotated[bytes, Code("32s")]
bytes40 = Annotated[bytes, Code("40s")]
bytes48 = Annotated[bytes, Code("48s")]
bytes64 = Annotated[bytes, Code("64s")]

_ALIASES: dict[str, str] = {
    name: get_args(alias)[1].format for name, alias in globals().items() if name[-1:].isdigit()
}


@dataclass_transform(field_specifiers=(msgspec.field,))
class RecordMeta(msgspec.StructMeta):
    """Compiles the layout when the class is made."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        endian: Literal["big", "little"] = "big",
        **options: Any,
    ) -> RecordMeta:
        """Make the class; `endian` is the byte order, `options` are those of `msgspec.Struct`."""
        cls: Any = super().__new__(mcls, name, bases, namespace, **options)
        codes: dict[str, str] = {}
        for base in reversed(bases):
            codes |= getattr(base, "_codes", {})
        annotations = namespace.get("__annotations__", {})
        fields: tuple[str, ...] = cls.__struct_fields__
        for field in fields:
            if field in annotations:
                codes[field] = _format(name, field, annotations[field])
        if not fields:
            return cls  # type: ignore[no-any-return]
        layout = struct.Struct(
            (">" if endian == "big" else "<") + "".join(codes[field] for field in fields)
        )
        lengths = {field: int(code[:-1]) for field, code in codes.items() if code.endswith("s")}
        getter = attrgetter(*fields)
        cls._codes = codes
        cls._layout = layout
        cls._values = getter if len(fields) > 1 else (lambda record: (getter(record),))
        cls._lengths = tuple(lengths.items())
        cls.SIZE = layout.size
        return cls  # type: ignore[no-any-return]


class Record(msgspec.Struct, metaclass=RecordMeta):
    """A fixed-size packet or header; subclass it with one annotation for each field."""

    SIZE: ClassVar[int] = 0
    _codes: ClassVar[dict[str, str]]
    _layout: ClassVar[struct.Struct]
    _values: ClassVar[Callable[[Any], tuple[Any, ...]]]
    _lengths: ClassVar[tuple[tuple[str, int], ...]]

    def pack(self) -> bytes:
        """Return the record's `SIZE` bytes.

        Raises:
            LocalProtocolError: A value does not fit its field.
        """
        cls = type(self)
        if cls._lengths:
            self._check_lengths()
        try:
            return cls._layout.pack(*cls._values(self))
        except struct.error as error:
            raise LocalProtocolError(f"{self!r} does not fit its layout: {error}") from error

    def pack_into(self, buffer: bytearray | memoryview, offset: int = 0) -> None:
        """Write the record's `SIZE` bytes into `buffer` at `offset`; raises as `pack`."""
        cls = type(self)
        if cls._lengths:
            self._check_lengths()
        try:
            cls._layout.pack_into(buffer, offset, *cls._values(self))
        except struct.error as error:
            raise LocalProtocolError(f"{self!r} does not fit its layout: {error}") from error

    @classmethod
    def unpack(cls, buffer: Buffer, offset: int = 0) -> Self:
        """Read a record that starts at `offset`.

        Raises:
            RemoteProtocolError: Fewer than `SIZE` bytes follow.
        """
        try:
            return cls(*cls._layout.unpack_from(buffer, offset))
        except struct.error:
            raise RemoteProtocolError(
                f"{cls.__name__} takes {cls.SIZE} bytes, {max(0, len(buffer) - offset)} are there"
            ) from None

    @classmethod
    def unpack_all(cls, buffer: Buffer) -> Iterator[Self]:
        """Read records that lie back to back and fill the buffer.

        Raises:
            RemoteProtocolError: The buffer is no whole number of records.
        """
        if len(buffer) % cls.SIZE:
            raise RemoteProtocolError(
                f"{len(buffer)} bytes are no multiple of {cls.__name__}'s {cls.SIZE}"
            )
        return (cls(*values) for values in cls._layout.iter_unpack(buffer))

    def _check_lengths(self) -> None:
        # struct would silently cut or fill byte strings of another length.
        for field, length in type(self)._lengths:
            found = len(getattr(self, field))
            if found != length:
                raise LocalProtocolError(
                    f"{type(self).__name__}.{field} takes {length} bytes, got {found}"
                )


def _format(record: str, field: str, annotation: object) -> str:
    """Return the struct format of an annotation: an alias, or its name if annotations are strings."""
    code: str | None
    if isinstance(annotation, str):
        code = _ALIASES.get(annotation.rpartition(".")[2])
    else:
        code = next((part.format for part in get_args(annotation) if isinstance(part, Code)), None)
    if code is None:
        allowed = ", ".join(_ALIASES)
        raise TypeError(f"{record}.{field}: {annotation!r} is no wire type; take one of {allowed}")
    return code
