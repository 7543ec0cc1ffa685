"""Requests as bytes, and what becomes of errors."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.errors import NotFound, OutOfRange, QuotaExceeded, Retained, WarpError
from warp_fuse import wire
from warp_fuse.connection import errno_of

# A LOOKUP of "hello" below the root by uid 1000 of group 100, process 77, as Linux 6.18 sent it.
LOOKUP = bytes.fromhex(
    "2e000000 01000000 0800000000000000 0100000000000000 e8030000 64000000 4d000000 0000 0000"
    "68656c6c6f00"
)


def test_a_request_of_the_kernel_is_understood() -> None:
    request = wire.parse(memoryview(LOOKUP))

    assert request[:6] == (wire.Opcode.LOOKUP, 8, wire.ROOT, 1000, 100, 77)
    assert wire.names(request.body, 1) == [b"hello"]


def test_extensions_are_no_part_of_the_body() -> None:
    words = (wire.IN_HEADER.size + 6 + 8, 1, 8, 1, 0, 0, 0, 1, 0)
    request = wire.parse(memoryview(wire.IN_HEADER.pack(*words) + b"hello\0" + bytes(8)))

    assert bytes(request.body) == b"hello\0"


@given(st.binary(max_size=80))
def test_what_is_no_request_is_refused_or_has_its_length(data: bytes) -> None:
    try:
        request = wire.parse(memoryview(data))
    except ValueError:
        return
    assert struct.unpack_from("=I", data)[0] == len(data)
    assert len(request.body) <= len(data) - wire.IN_HEADER.size


def test_missing_names_are_refused() -> None:
    with pytest.raises(ValueError, match="1 names where 2 belong"):
        wire.names(memoryview(b"one\0"), 2)


@given(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF))
def test_device_numbers_come_back(major: int, minor: int) -> None:
    assert wire.unpack_device(wire.pack_device(major, minor)) == (major, minor)


@given(st.binary(min_size=1, max_size=255))
def test_entries_are_padded_to_eight_bytes(name: bytes) -> None:
    entry = wire.dirent(5, 7, 0o100000, name)

    assert len(entry) % 8 == 0
    assert wire.DIRENT.unpack_from(entry) == (5, 7, len(name), 8)
    assert entry[wire.DIRENT.size :].rstrip(b"\0") == name.rstrip(b"\0")


def test_layouts_have_the_sizes_of_the_kernels() -> None:
    sizes = {
        wire.IN_HEADER: 40, wire.OUT_HEADER: 16, wire.ATTR: 88, wire.ENTRY_OUT: 40, wire.ATTR_OUT: 16,
        wire.SETATTR_IN: 88, wire.OPEN_OUT: 16, wire.IO_IN: 40, wire.STATFS_OUT: 80, wire.LOCK_IN: 48,
        wire.LOCK_OUT: 24, wire.INIT_OUT: 64, wire.DIRENT: 24, wire.INVAL_INODE: 24, wire.INVAL_ENTRY: 16,
    }  # fmt: skip
    assert {layout.format: layout.size for layout in sizes} == {
        layout.format: size for layout, size in sizes.items()
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [(NotFound("x"), errno.ENOENT), (OutOfRange("x"), errno.ENXIO), (Retained("x"), errno.EPERM),
     (QuotaExceeded("x"), errno.EDQUOT)],
)  # fmt: skip
def test_errors_have_the_errno_of_a_file_system(error: WarpError, code: int) -> None:
    assert errno_of(error) == code
    assert wire.failure(1, errno_of(error)) == struct.pack("=IiQ", 16, -code, 1)


def test_an_errno_that_the_kernel_would_not_take_is_eio() -> None:
    assert wire.failure(1, 5000) == struct.pack("=IiQ", 16, -errno.EIO, 1)
