"""How links and listeners begin and end."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import AlreadyRunning, TimedOut, Unavailable
from warp_core.interfaces.transports import PAYLOAD_MAX, Link, Transport

from warp_conformance.kits.transports.stage import (
    BUFFERED_MAX,
    TransportPart,
    descriptors,
    echo,
    forever,
)


class Endings(TransportPart, kit=True):
    """How links and listeners begin and end."""

    # Endings --------------------------------------------------------------------------------------

    async def test_the_other_side_hears_of_the_end(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):
            receiving = asyncio.create_task(other.receive())
            await asyncio.sleep(0.01)
            await link.close()

            with pytest.raises(Unavailable):
                await receiving
            with pytest.raises(Unavailable):
                await other.receive()

    @pytest.mark.parametrize(("count", "size"), [(3, 10), (20, 5000)])
    async def test_what_was_sent_before_the_end_arrives_before_it(
        self, subject: Transport, count: int, size: int
    ) -> None:
        async with self.pair(subject) as (link, other):
            for number in range(count):
                await link.send(b"%d" % number, [bytes(size)])
            await link.close()
            await asyncio.sleep(0.02)

            arrived = [(await other.receive()).header for _ in range(count)]
            assert arrived == [b"%d" % number for number in range(count)]
            with pytest.raises(Unavailable):
                await other.receive()

    async def test_closing_wakes_whoever_waits(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, _):
            receiving = asyncio.create_task(link.receive())
            await asyncio.sleep(0.01)
            await link.close()

            with pytest.raises(Unavailable):
                await receiving

    async def test_closing_wakes_who_waits_to_send(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, _):
            count = BUFFERED_MAX // PAYLOAD_MAX
            sending = [
                asyncio.create_task(link.send(b"", [bytes(PAYLOAD_MAX)])) for _ in range(count)
            ]
            await asyncio.sleep(0.1)
            await link.close()
            outcomes = await asyncio.gather(*sending, return_exceptions=True)

        assert {type(outcome) for outcome in outcomes if outcome is not None} == {Unavailable}

    async def test_a_closed_link_refuses_everything(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):
            await other.send(b"unread")
            await link.close()
            await link.close()

            with pytest.raises(Unavailable):
                await link.send(b"late")
            with pytest.raises(Unavailable):
                await link.receive()

    async def test_sending_to_who_is_gone_fails(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):

            async def talk() -> None:
                for _ in range(100):
                    await link.send(b"hello", [bytes(10_000)])
                    await asyncio.sleep(0.01)

            await other.close()
            with pytest.raises(Unavailable):
                await talk()

    async def test_a_link_is_closed_when_its_service_returns(self, subject: Transport) -> None:
        async def serve(link: Link) -> None:
            await link.send(b"once")

        async with self.listening(subject, serve) as listener:
            link = await subject.dial(listener.address)

            assert (await link.receive()).header == b"once"
            with pytest.raises(Unavailable):
                await link.receive()
            await link.close()

    async def test_a_service_that_fails_harms_no_other(self, subject: Transport) -> None:
        async def serve(link: Link) -> None:
            message = await link.receive()
            if message.header == b"fail":
                raise ValueError("planted by the kit")
            await link.send(message.header, [message.payload])

        async with self.listening(subject, serve) as listener:
            failing = await subject.dial(listener.address)
            fine = await subject.dial(listener.address)
            await failing.send(b"fail")
            with pytest.raises(Unavailable):
                await failing.receive()
            await fine.send(b"fine")

            assert (await fine.receive()).header == b"fine"
            await self.echoes(subject, listener)
            await failing.close()
            await fine.close()

    async def test_closing_a_listener_ends_its_links(self, subject: Transport) -> None:
        async with self.listening(subject, forever) as listener:
            links = [await subject.dial(listener.address) for _ in range(3)]
            await listener.close()

            for link in links:
                with pytest.raises(Unavailable):
                    await link.receive()
                await link.close()
            await listener.close()

    async def test_a_closed_listener_gives_its_address_back(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:
            address = listener.address
            await listener.close()
            with pytest.raises(Unavailable):
                await subject.dial(address, timeout_s=1.0)
            again = await subject.listen(address, echo)

            await self.echoes(subject, again)
            await again.close()

    async def test_nothing_is_left_behind(self, subject: Transport) -> None:
        async with self.pair(subject):
            pass  # what a transport opens once and keeps is open from now on
        await asyncio.sleep(0.01)
        tasks, files = len(asyncio.all_tasks()), descriptors()
        for _ in range(5):
            async with self.pair(subject) as (link, other):
                await link.send(b"hello")
                await other.receive()
            with pytest.raises((Unavailable, TimedOut)):
                await subject.dial(await self.unused(subject), timeout_s=0.5)
        async with asyncio.timeout(2):
            # Nothing tells when the last of them is gone.
            while len(asyncio.all_tasks()) > tasks or descriptors() > files:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    # Dialing and listening ------------------------------------------------------------------------

    async def test_nobody_there_is_unavailable(self, subject: Transport) -> None:
        with pytest.raises(Unavailable):
            await subject.dial(await self.unused(subject), timeout_s=2.0)

    async def test_a_taken_address_is_refused(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:
            with pytest.raises(AlreadyRunning):
                await subject.listen(listener.address, echo)

            await self.echoes(subject, listener)

    async def test_many_links_at_once_are_kept_apart(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:

            async def talk(number: int, link: Link) -> None:
                for at in range(5):
                    header, payload = b"%d %d" % (number, at), bytes([number]) * 1000
                    await link.send(header, [payload])
                    message = await link.receive()
                    assert (message.header, bytes(message.payload)) == (header, payload)

            dialing = (subject.dial(listener.address, timeout_s=15.0) for _ in range(40))
            links = await asyncio.gather(*dialing)
            await asyncio.gather(*(talk(number, link) for number, link in enumerate(links)))
            for link in links:
                await link.close()

    async def test_a_listener_may_dial(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as first, self.listening(subject, echo) as second:
            assert first.address != second.address
            await self.echoes(subject, first)
            await self.echoes(subject, second)
