"""Who is there, and what hostile peers do."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from warp_core.errors import RemoteProtocolError, TimedOut, Unauthenticated, Unavailable
from warp_core.interfaces.transports import Link, Transport

from warp_conformance.difference import same
from warp_conformance.kit import requires
from warp_conformance.kits.transports.stage import TransportPart, echo, pattern
from warp_conformance.kits.transports.wires import GARBAGE, raw, relay, silence, throw


class Strangers(TransportPart, kit=True):
    """Who is there, and what hostile peers do."""

    # Who is there ---------------------------------------------------------------------------------

    @requires(authenticated=True)
    async def test_both_sides_know_who_the_other_is(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):
            assert link.peer == self.node
            assert other.peer == self.node

    @requires(authenticated=True)
    async def test_dialing_a_node_by_name_reaches_only_that_node(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:
            link = await subject.dial(listener.address, peer=self.node)
            await link.close()

            for name in ("someone-else", self.node + "x", self.node[:-1], self.node.upper()):
                with pytest.raises(Unauthenticated):
                    await subject.dial(listener.address, peer=name)

    @requires(authenticated=True)
    async def test_a_stranger_is_not_let_in(self, subject: Transport, stranger: Transport) -> None:
        served: list[str] = []

        async def serve(link: Link) -> None:
            served.append(link.peer)

        async def talk() -> None:
            link = await stranger.dial(listener.address)
            await link.receive()

        async with self.listening(subject, serve) as listener:
            with pytest.raises((Unauthenticated, Unavailable)):
                await talk()

        assert served == []

    @requires(authenticated=True)
    async def test_a_stranger_is_not_talked_to(
        self, subject: Transport, stranger: Transport
    ) -> None:
        async with self.listening(stranger, echo) as listener:
            with pytest.raises(Unauthenticated):
                await subject.dial(listener.address)

    @requires(authenticated=True)
    async def test_who_stays_silent_is_given_up(self, subject: Transport) -> None:
        async with silence() as address:
            started = asyncio.get_running_loop().time()
            with pytest.raises(TimedOut):
                await subject.dial(address, timeout_s=0.3)

        assert asyncio.get_running_loop().time() - started < 2.0

    @requires(authenticated=False)
    async def test_without_names_dialing_by_name_is_refused(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:
            link = await subject.dial(listener.address)
            assert link.peer == ""
            await link.close()

            with pytest.raises(Unauthenticated):
                await subject.dial(listener.address, peer=self.node)

    # The wire -------------------------------------------------------------------------------------

    @requires(encrypted=True)
    async def test_the_wire_shows_nothing(self, subject: Transport) -> None:
        header, payload = b"secret header " * 4, b"secret payload " * 20_000
        async with self.listening(subject, echo) as listener, relay(listener.address) as wire:
            link = await subject.dial(wire.address)
            await link.send(header, [payload])
            assert same((await link.receive()).payload, payload)
            await link.close()

        assert len(wire.seen) > 2 * len(payload)
        assert b"secret" not in wire.seen

    @requires(encrypted=True)
    @pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
    async def test_what_was_changed_on_the_wire_is_refused(
        self, subject: Transport, place: float
    ) -> None:
        payload = pattern(200_000)
        async with self.listening(subject, echo) as listener, relay(listener.address) as wire:
            link = await subject.dial(wire.address)
            await link.send(b"first")
            await link.receive()

            async def talk() -> None:
                await link.send(b"second", [payload])
                await link.receive()

            wire.flip_at = len(wire.seen) + int(200_000 * place)
            with pytest.raises((Unavailable, RemoteProtocolError)):
                await talk()
            await link.close()

    async def test_an_end_in_the_middle_is_no_message(self, subject: Transport) -> None:
        arrived: list[int] = []

        async def serve(link: Link) -> None:
            while True:
                arrived.append(len((await link.receive()).payload))

        async with self.listening(subject, serve) as listener, relay(listener.address) as wire:
            link = await subject.dial(wire.address)
            wire.cut_at = len(wire.seen) + 150_000
            with contextlib.suppress(Unavailable):
                await link.send(b"first", [bytes(100_000)])
                await link.send(b"second", [bytes(100_000)])
            with pytest.raises((Unavailable, RemoteProtocolError)):
                await link.receive()
            await link.close()

        assert arrived in ([], [100_000])

    async def test_garbage_harms_no_other(self, subject: Transport) -> None:
        served = 0

        async def serve(link: Link) -> None:
            nonlocal served
            served += 1
            await echo(link)

        async with self.listening(subject, serve) as listener:
            for garbage in GARBAGE:
                await throw(listener.address, garbage)
                await self.echoes(subject, listener)

        # Without proofs, anything may pass for a peer that then says garbage.
        assert served == len(GARBAGE) or not subject.capabilities.authenticated

    async def test_peers_that_say_nothing_hold_nobody_up(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener, contextlib.AsyncExitStack() as stack:
            for number in range(30):
                writer = await stack.enter_async_context(raw(listener.address))
                writer.write(b"\x16" * (number % 3))

            async with asyncio.timeout(3):
                await self.echoes(subject, listener)

    async def test_peers_that_hang_up_at_once_harm_nobody(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:
            for _ in range(30):
                async with raw(listener.address) as writer:
                    writer.transport.abort()

            await self.echoes(subject, listener)
