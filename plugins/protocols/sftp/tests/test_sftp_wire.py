"""Records, framing and statuses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warp_core import errors
from warp_core.errors import RemoteProtocolError
from warp_sftp import wire
from warp_sftp.attributes import line, told, wanted
from warp_sftp.errors import status_of
from warp_sftp.session import Session
from warp_sftp.wire import Attributes, Fields, Malformed, Status

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
ATTRIBUTES = st.builds(
    lambda size, owner, mode, times: Attributes(size, *owner, mode, *times),
    st.none() | U64,
    st.just((None, None)) | st.tuples(U32, U32),
    st.none() | U32,
    st.just((None, None)) | st.tuples(U32, U32),
)


@settings(max_examples=40, deadline=None)
@given(ATTRIBUTES)
def test_attributes_come_back_as_they_were_packed(attributes: Attributes) -> None:
    fields = Fields(memoryview(wire.pack_attributes(attributes)))

    assert fields.attributes() == attributes
    fields.end()


@settings(max_examples=40, deadline=None)
@given(ATTRIBUTES, st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=3))
def test_extended_attributes_are_skipped(
    attributes: Attributes, extended: list[tuple[bytes, bytes]]
) -> None:
    packed = bytearray(wire.pack_attributes(attributes))
    packed[0] |= 0x80
    packed += wire.u32(len(extended))
    for name, value in extended:
        packed += wire.string(name) + wire.string(value)
    fields = Fields(memoryview(packed))

    assert fields.attributes() == attributes
    fields.end()


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=64), U32, U64)
def test_a_read_comes_back_as_it_was_packed(handle: bytes, number: int, offset: int) -> None:
    message = bytes([5]) + wire.u32(number) + wire.string(handle) + wire.u64(offset) + wire.u32(77)

    assert wire.unpack_read(memoryview(message)) == (number, handle, offset, 77)
    for wrong in (message[:-1], message + b"x", message[:12]):
        with pytest.raises(Malformed):
            wire.unpack_read(memoryview(wrong))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=80))
def test_fields_of_garbage_end_in_their_error_and_no_other(data: bytes) -> None:
    fields = Fields(memoryview(data))
    for take in (fields.u32, fields.string, fields.attributes, fields.u64, fields.end):
        try:
            take()
        except Malformed:
            return


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=12),
    st.lists(st.integers(1, 60), min_size=1, max_size=30),
)
def test_messages_are_found_however_their_bytes_come(
    messages: list[bytes], cuts: list[int]
) -> None:
    session = Session()
    data = b"".join(wire.string(each) for each in messages)
    found: list[bytes] = []
    at = 0
    while at < len(data):
        step = cuts[at % len(cuts)]
        found += map(bytes, session.receive(data[at : at + step]))
        at += step

    assert found == messages
    assert session.between_messages


@pytest.mark.parametrize("length", [0, wire.MESSAGE_MAX + 1, 2**32 - 1])
def test_a_length_that_no_message_has_ends_the_session(length: int) -> None:
    session = Session()
    for _ in range(2):  # and it stays ended
        with pytest.raises(RemoteProtocolError):
            list(session.receive(wire.u32(length)))


def test_every_error_of_core_has_a_status_and_a_sentence() -> None:
    for kind in errors.leaves():
        error = kind("what happened")
        code, text = status_of(error)

        assert code in (
            Status.FAILURE,
            Status.NO_SUCH_FILE,
            Status.PERMISSION_DENIED,
            Status.OP_UNSUPPORTED,
            Status.BAD_MESSAGE,
        )
        assert text.endswith(": what happened")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("x"), Status.NO_SUCH_FILE),
        (errors.VolumeNotFound("x"), Status.NO_SUCH_FILE),
        (errors.PermissionDenied("x"), Status.PERMISSION_DENIED),
        (errors.Retained("x"), Status.PERMISSION_DENIED),
        (errors.Unsupported("x"), Status.OP_UNSUPPORTED),
        (errors.NoSpace("x"), Status.FAILURE),
        (errors.QuotaExceeded("x"), Status.FAILURE),
        (errors.WritesStopped("x"), Status.FAILURE),
        (errors.NameTooLong("x"), Status.BAD_MESSAGE),
    ],
)
def test_errors_become_what_openssh_would_say(error: errors.WarpError, code: Status) -> None:
    assert status_of(error)[0] == code


def test_a_line_of_a_listing_looks_like_that_of_ls() -> None:
    shown = Attributes(1234, 0, 0, 0o100640, 0, 1_100_000_000)

    old = line(b"name", shown, 2, "ada", "users", now_s=1_300_000_000.0)
    new = line(b"name", shown, 2, "ada", "users", now_s=1_100_000_100.0)

    assert old == b"-rw-r-----    2 ada      users            1234 Nov  9  2004 name"
    assert new == b"-rw-r-----    2 ada      users            1234 Nov  9 11:33 name"


def test_times_that_32_bits_cannot_say_are_the_nearest_that_they_can() -> None:
    from warp_core.views.files import FileInfo, Ref

    info = FileInfo(
        ref=Ref("v", 2), kind="file", size=1, mode=0o4755, uid=1, gid=2, links=1, allocated=1,
        accessed_ns=-5, modified_ns=10**19, changed_ns=0, born_ns=0, change=1,
    )  # fmt: skip

    shown = told(info)

    assert (shown.accessed_s, shown.modified_s) == (0, 2**32 - 1)
    assert shown.mode == 0o104755
    assert wanted(Attributes(mode=0o100644, modified_s=7)).modified_ns == 7_000_000_000
    assert wanted(Attributes(mode=0o100644)).mode == 0o644
