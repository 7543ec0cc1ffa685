"""The kit for event targets: what `send` returned for is on the other side, as it was, once it was asked for and in order."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import strategies as st
from warp_core.errors import Unavailable
from warp_core.interfaces.targets import BODY_MAX, EventTarget, Message, TargetContext
from warp_core.registry import Entry

from warp_conformance.difference import same
from warp_conformance.kit import Kit, given, requires, sample_of

Mode = Literal["takes", "refuses", "hangs", "drops", "holds"]
Make = Callable[[], EventTarget]

TURNS = 20  # of the loop, in which something that should not happen would
TRIES = 5  # until a target is back that was away: connections that were kept fail first
CLOSE_S = 5.0  # in which an open target closes, whatever the other side does


class Taken(NamedTuple):
    """A message on the other side."""

    id: str
    body: bytes


class Receiver(ABC):
    """The other side, as the kit handles it. It may run in another process; what it has taken survives `stop`."""

    modes: frozenset[Mode] = frozenset({"takes"})

    @abstractmethod
    async def start(self) -> None:
        """Be there, at the same address as before."""

    @abstractmethod
    async def stop(self) -> None:
        """Be gone: connections end, new ones are refused."""

    @abstractmethod
    async def taken(self) -> list[Taken]:
        """Return every message that was taken, in order; one that came again with its id, and was known as such, once."""

    async def behave(self, mode: Mode) -> None:
        """Do with messages from now on: take them; say no; take no notice; end the connection instead of an answer; wait."""
        assert mode == "takes"

    async def holding(self) -> None:  # noqa: B027
        """Return when a message has come while it `holds`; they are taken when it `takes` again."""


def adopt(entry: Entry[Any]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit; its tests with a receiver are for the plugin's own adoption, which knows one."""

    @pytest.fixture
    def make(self: Kit, tmp_path: Path) -> Make:
        return lambda: entry.build(sample_of(entry, tmp_path), TargetContext("kit", tmp_path))

    yield TargetKit, {"make": make}


def message(number: int, size: int = 40, **named: Any) -> Message:
    """Return a message like no other."""
    body = b'{"Records":[{"n":%d,"x":"%b"}]}' % (number, b"y" * size)
    said = {"bucket": "photos", "event": "ObjectCreated:Put", "key": f"k/{number}", **named}
    return Message(f"v1-{number:020x}", body, **said)


class TargetKit(Kit, kit=True):
    """Give `make`, a function that builds the target with a time limit that a busy machine keeps, and `receiver`, which it sends to.

    `secrets` are words of the configuration that nobody may read in an error.
    """

    secrets: Sequence[str] = ()

    @pytest.fixture
    def make(self) -> Make:
        """Return how to build the target."""
        raise NotImplementedError("an adoption of TargetKit gives a fixture `make`")

    @pytest.fixture
    def hasty(self, make: Make) -> Make:
        """Return how to build the target with a time limit of less than a second, if that is another way."""
        return make

    @pytest.fixture
    async def receiver(self) -> AsyncIterator[Receiver | None]:
        """Yield the other side, taking; None where there is none, and the target leads nowhere."""
        yield None  # noqa: PT022

    @pytest.fixture
    async def subject(self, make: Make, receiver: Receiver | None) -> AsyncIterator[EventTarget]:
        """Yield the open target."""
        async with make() as target:
            yield target

    # Without anybody there ------------------------------------------------------------------------

    async def test_it_opens_and_closes_where_nobody_is(
        self, make: Make, receiver: Receiver | None
    ) -> None:
        if receiver is not None:
            await receiver.stop()
        before = asyncio.all_tasks()
        made = make()
        async with asyncio.timeout(CLOSE_S), made as target:
            assert target.capabilities.at_once >= 1
            assert target.capabilities.batch_max >= 1
        await turns()

        assert asyncio.all_tasks() == before

    async def test_where_nobody_is_it_says_so_each_time(
        self, make: Make, receiver: Receiver | None
    ) -> None:
        if receiver is not None:
            await receiver.stop()
        async with make() as target:
            for number in range(3):
                with pytest.raises(Unavailable) as told:
                    await target.send(message(number))
                assert str(told.value)
                assert not [word for word in self.secrets if word in str(told.value)]

    async def test_nobody_reads_a_secret_in_it(self, make: Make, receiver: Receiver | None) -> None:
        async with make() as target:
            shown = repr(target) + str(target) + repr(target.capabilities)

        assert not [word for word in self.secrets if word in shown]

    # What arrives ---------------------------------------------------------------------------------

    async def test_what_was_sent_is_there_as_it_was(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        sent = [message(1), message(2, 0), message(3, 5000)]
        for each in sent:
            await subject.send(each)

        assert [found.body for found in await there.taken()] == [each.body for each in sent]

    async def test_it_has_its_id(self, subject: EventTarget, receiver: Receiver | None) -> None:
        there = demand(receiver)
        sent = [message(number) for number in range(3)]
        for each in sent:
            await subject.send(each)

        assert [found.id for found in await there.taken()] == [each.id for each in sent]

    async def test_bytes_are_not_read(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        odd = '{"Records": [ {"k":"\\u00e9 é 🎈\\n"} ]}\n'.encode()
        await subject.send(Message("v1-1", odd, "b", "ObjectCreated:Put", "k"))

        assert [found.body for found in await there.taken()] == [odd]

    async def test_a_large_message_arrives(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        large = b'{"Records":["%b"]}' % (b"z" * (BODY_MAX // 2))
        await subject.send(Message("v1-1", large, "photos", count=100))

        assert same(b"".join(found.body for found in await there.taken()), large)

    async def test_order_is_kept(self, subject: EventTarget, receiver: Receiver | None) -> None:
        there = demand(receiver)
        for number in range(30):
            await subject.send(message(number))

        assert [found.id for found in await there.taken()] == [
            message(number).id for number in range(30)
        ]

    async def test_messages_go_side_by_side(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        width = min(subject.capabilities.at_once, 16)
        for start in range(0, 6 * width, width):
            sent = [message(number) for number in range(start, start + width)]
            await asyncio.gather(*(subject.send(each) for each in sent))

        found = [each.id for each in await there.taken()]
        assert sorted(found) == [message(number).id for number in range(6 * width)]

    @given(st.text(max_size=40), st.text(max_size=20), st.integers(1, 100))
    async def test_no_name_does_harm(self, make: Make, key: str, event: str, count: int) -> None:
        """Keys are the client's own: whatever is in them, a message is one message."""
        # `receiver` and `subject` are of the test, not of each example: the ids tell.
        unique = os.urandom(8).hex()
        sent = Message(f"v1-{unique}", b"{}", "bucket", event, key, count)
        try:
            async with make() as target:
                await target.send(sent)
        except Unavailable:
            return  # nobody is there: it was tried

    async def test_no_name_becomes_a_second_message(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        names = [
            "a\r\nX: y",
            "\r\n\r\nPOST / HTTP/1.1",
            "a b\tc",
            "\0",
            "é🎈",
            "x" * 1024,
            "*.>",
            ".",
        ]
        for number, name in enumerate(names):
            await subject.send(message(number, bucket=f"b{number}", key=name, event=name))

        assert [found.id for found in await there.taken()] == [
            message(number).id for number in range(len(names))
        ]

    # When it is taken -----------------------------------------------------------------------------

    async def test_it_returns_when_the_message_is_taken_and_not_before(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver, "holds")
        await there.behave("holds")
        sending = asyncio.create_task(subject.send(message(1)))
        await there.holding()
        await turns()
        early = sending.done()
        await there.behave("takes")
        await sending

        assert not early
        assert [found.id for found in await there.taken()] == [message(1).id]

    async def test_nothing_is_sent_twice_that_was_taken(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        for number in range(5):
            await subject.send(message(number))
        await turns()

        assert len(await there.taken()) == 5

    async def test_a_refusal_is_told_and_the_next_may_be_taken(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver, "refuses")
        await subject.send(message(1))
        await there.behave("refuses")
        with pytest.raises(Unavailable) as told:
            await subject.send(message(2))
        await there.behave("takes")
        await sent_at_last(subject, message(3))

        assert not [word for word in self.secrets if word in str(told.value)]
        assert [found.id for found in await there.taken()] == [message(1).id, message(3).id]

    async def test_who_does_not_answer_is_not_waited_for_long(
        self, hasty: Make, receiver: Receiver | None
    ) -> None:
        there = demand(receiver, "hangs")
        await there.behave("hangs")
        async with hasty() as target:
            with pytest.raises(Unavailable):
                await target.send(message(1))
        await there.behave("takes")

    async def test_a_connection_that_ends_is_no_answer(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver, "drops")
        await subject.send(message(1))
        await there.behave("drops")
        for number in (2, 3):
            with pytest.raises(Unavailable):
                await subject.send(message(number))
        await there.behave("takes")
        await sent_at_last(subject, message(4))

        assert [found.id for found in await there.taken()] == [message(1).id, message(4).id]

    async def test_it_goes_on_when_the_other_side_is_back(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        await subject.send(message(1))
        await there.stop()
        with pytest.raises(Unavailable):
            await subject.send(message(2))
        await there.start()
        await sent_at_last(subject, message(3))

        found = [each.id for each in await there.taken()]
        assert found[0] == message(1).id
        assert found[-1] == message(3).id

    async def test_it_comes_to_life_when_the_other_side_does(
        self, make: Make, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        await there.stop()
        async with make() as target:
            with pytest.raises(Unavailable):
                await target.send(message(1))
            await there.start()
            await sent_at_last(target, message(2))

            assert (await there.taken())[-1].id == message(2).id

    async def test_what_is_cancelled_spoils_nothing(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver, "holds")
        await there.behave("holds")
        given_up = asyncio.create_task(subject.send(message(1)))
        await there.holding()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await there.behave("takes")
        await turns()
        if "refuses" in there.modes:
            await there.behave("refuses")
            with pytest.raises(Unavailable):
                await subject.send(message(2))
            await there.behave("takes")
        await sent_at_last(subject, message(3))

        found = [each.id for each in await there.taken()]
        assert message(2).id not in found
        assert found[-1] == message(3).id

    async def test_it_closes_while_the_other_side_hangs(
        self, make: Make, receiver: Receiver | None
    ) -> None:
        there = demand(receiver, "hangs")
        before = asyncio.all_tasks()
        target = make()
        await target.__aenter__()
        await target.send(message(1))
        await there.behave("hangs")
        waiting = asyncio.create_task(target.send(message(2)))
        await turns()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(CLOSE_S):
            await target.__aexit__(None, None, None)
        await there.behave("takes")
        await turns()

        assert {each for each in asyncio.all_tasks() - before if not each.done()} <= serving()

    async def test_it_leaves_no_connection_behind(
        self, make: Make, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        await there.taken()
        before = sockets()
        for number in range(4):
            async with make() as target:
                await target.send(message(number))
        for _ in range(100):
            await asyncio.sleep(0.005)
            if sockets() <= before + len(serving()):
                break

        assert sockets() <= before + len(serving())

    @requires(deduplicates=True)
    async def test_a_message_that_is_sent_again_is_there_once(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        for _ in range(3):
            await subject.send(message(1))
        same_body = message(1)
        await subject.send(Message("v1-another", same_body.body, "b", "e", "k"))

        assert [found.id for found in await there.taken()] == [message(1).id, "v1-another"]

    @requires(deduplicates=False)
    async def test_a_message_may_be_sent_again(
        self, subject: EventTarget, receiver: Receiver | None
    ) -> None:
        there = demand(receiver)
        for _ in range(2):
            await subject.send(message(1))

        assert {found.id for found in await there.taken()} == {message(1).id}


def demand(receiver: Receiver | None, mode: Mode = "takes") -> Receiver:
    """Return the receiver, or skip where there is none that can be told to behave so."""
    if receiver is None:
        pytest.skip("no receiver here: the plugin's own tests have one")
    if mode not in receiver.modes:
        pytest.skip(f"this receiver cannot be told that it {mode}")
    return receiver


async def sent_at_last(target: EventTarget, wanted: Message) -> None:
    """Send a message to somebody who has just come back: what was connected before may fail first."""
    for left in reversed(range(TRIES)):
        try:
            await target.send(wanted)
        except Unavailable:
            if not left:
                raise
            await asyncio.sleep(0.02)
        else:
            return


async def turns() -> None:
    """Let others go on for a moment."""
    for _ in range(TURNS):
        await asyncio.sleep(0.001)


def sockets() -> int:
    """Return how many sockets this process has."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:  # the listing's own
            continue
    return found


def serving() -> set[asyncio.Task[Any]]:
    """Return the tasks of a receiver in this process, which outlive what they serve by a moment."""
    return {each for each in asyncio.all_tasks() if each.get_name().startswith("receiver")}
