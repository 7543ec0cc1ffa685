"""Records: layout, limits, inverses."""

from __future__ import annotations

import struct
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core import wire
from warp_core.errors import LocalProtocolError, RemoteProtocolError
from warp_core.wire import Record, bytes4, f64, i8, i64, u8, u16, u32, u64


class Request(Record, frozen=True, gc=False):
    magic: u32
    flags: u16
    command: u16
    cookie: u64
    offset: u64
    length: u32


class Little(Record, frozen=True, endian="little"):
    LIMIT: ClassVar[int] = 7
    kind: u8
    name: bytes4
    delta: i64
    ratio: f64
    sign: wire.i8


class Child(Request, frozen=True):
    extra: u8 = 9


class One(Record):
    only: i8


def test_fields_lie_back_to_back_in_network_order() -> None:
    request = Request(0x25609513, 1, 2, 3, 4, 5)

    assert Request.SIZE == 28
    assert request.pack() == struct.pack(">IHHQQI", 0x25609513, 1, 2, 3, 4, 5)


def test_little_endian_is_a_class_argument_and_packs_without_padding() -> None:
    assert Little.SIZE == 1 + 4 + 8 + 8 + 1
    assert Little(1, b"abcd", -2, 0.5, -3).pack() == struct.pack("<B4sqdb", 1, b"abcd", -2, 0.5, -3)


def test_inherited_fields_come_first() -> None:
    assert Child.SIZE == 29
    assert Child.unpack(Child(1, 2, 3, 4, 5, 6).pack()).extra == 9


def test_a_record_of_one_field_works() -> None:
    assert One.unpack(One(-1).pack()).only == -1


@given(
    st.builds(
        Little,
        st.integers(0, 255),
        st.binary(min_size=4, max_size=4),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.integers(-128, 127),
    ),
    st.integers(0, 40),
)
def test_unpack_is_the_inverse_of_pack_at_any_offset(record: Little, offset: int) -> None:
    buffer = bytearray(offset + Little.SIZE + 3)
    record.pack_into(buffer, offset)

    assert Little.unpack(buffer, offset) == record
    assert Little.unpack(memoryview(buffer)[offset:]) == record
    assert bytes(buffer[offset : offset + Little.SIZE]) == record.pack()


@given(st.integers(0, 27))
def test_a_short_buffer_is_the_peers_mistake(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"takes 28 bytes, {length} are there"):
        Request.unpack(bytes(length))


def test_a_value_that_does_not_fit_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="does not fit"):
        Request(2**32, 0, 0, 0, 0, 0).pack()
    with pytest.raises(LocalProtocolError, match="does not fit"):
        One(200).pack_into(bytearray(1))


@pytest.mark.parametrize("name", [b"", b"abc", b"abcde"])
def test_byte_fields_are_neither_cut_nor_filled(name: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="name takes 4 bytes"):
        Little(1, name, 0, 0.0, 0).pack()


def test_unpack_all_reads_whole_records_only() -> None:
    assert [one.only for one in One.unpack_all(b"\x01\x02\xff")] == [1, 2, -1]
    with pytest.raises(RemoteProtocolError, match="no multiple"):
        Request.unpack_all(bytes(29))


def test_a_field_without_a_wire_type_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"Bad\.size: .*no wire type"):

        class Bad(Record):
            size: int
