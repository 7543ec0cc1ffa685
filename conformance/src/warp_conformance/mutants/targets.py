"""Faulty event targets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest
from warp_core.errors import Unavailable
from warp_core.interfaces.targets import EventTarget, Message, TargetCapabilities

from warp_conformance.kits.targets import Make, Receiver, TargetKit
from warp_conformance.mutation import Faults
from warp_conformance.reference.targets import LIMIT_S, SECRET, PlainReceiver, PlainTarget, Wire

HASTY_S = 0.1  # where nobody answers

faults = Faults("targets")


class OnTarget(TargetKit):
    implementation: ClassVar[Callable[..., EventTarget]] = PlainTarget
    secrets = (SECRET,)

    @pytest.fixture
    async def receiver(self) -> AsyncIterator[Receiver]:
        there = PlainReceiver()
        await there.start()
        yield there
        await there.stop()

    @pytest.fixture
    def make(self, receiver: PlainReceiver) -> Make:
        return lambda: type(self).implementation(receiver.port)

    @pytest.fixture
    def hasty(self, receiver: PlainReceiver) -> Make:
        return lambda: type(self).implementation(receiver.port, HASTY_S)


# What arrives -------------------------------------------------------------------------------------


@faults(OnTarget, "EventTarget.send", "cuts-large-bodies")
class CutsLargeBodies(PlainTarget):
    def body_of(self, message: Message) -> bytes:
        return message.body[: 256 * 1024]


@faults(OnTarget, "EventTarget.send", "writes-json-anew")
class WritesJsonAnew(PlainTarget):
    def body_of(self, message: Message) -> bytes:
        return json.dumps(json.loads(message.body)).encode()


@faults(OnTarget, "EventTarget.send", "sends-the-last-body")
class SendsTheLastBody(PlainTarget):
    last = b"{}"

    def body_of(self, message: Message) -> bytes:
        body, self.last = self.last, message.body
        return body


@faults(OnTarget, "EventTarget.send", "new-id-each-time")
class NewIdEachTime(PlainTarget):
    sent = 0

    def id_of(self, message: Message) -> str:
        self.sent += 1
        return f"{message.id}-{self.sent}"


@faults(OnTarget, "EventTarget.send", "id-of-the-body")
class IdOfTheBody(PlainTarget):
    def id_of(self, message: Message) -> str:
        return str(hash(message.body))


@faults(OnTarget, "EventTarget.send", "one-id-for-all")
class OneIdForAll(PlainTarget):
    def id_of(self, message: Message) -> str:
        return "message"


@faults(OnTarget, "EventTarget.send", "names-as-lines")
class NamesAsLines(PlainTarget):
    async def exchange(self, message: Message) -> None:
        for part in message.key.split("\r\n"):
            await super().exchange(
                Message(message.id if part == message.key else f"{message.id}-{part}", message.body)
            )


@faults(OnTarget, "EventTarget.send", "ascii-names")
class AsciiNames(PlainTarget):
    async def exchange(self, message: Message) -> None:
        message.key.encode("ascii")
        await super().exchange(message)


@faults(OnTarget, "EventTarget.send", "refuses-control-characters")
class RefusesControlCharacters(PlainTarget):
    async def exchange(self, message: Message) -> None:
        if not message.event.isprintable():
            raise Unavailable("a name with control characters")
        await super().exchange(message)


@faults(OnTarget, "EventTarget.send", "newest-first")
class NewestFirst(PlainTarget):
    """Gathers what is sent and writes it in reverse, some turns later."""

    def __init__(self, port: int, limit_s: float = LIMIT_S) -> None:
        super().__init__(port, limit_s)
        self.waiting: list[Message] = []

    async def send(self, message: Message) -> None:
        self.waiting.append(message)
        if len(self.waiting) > 2:
            while self.waiting:
                await super().send(self.waiting.pop())


@faults(OnTarget, "EventTarget.send", "sends-twice")
class SendsTwice(PlainTarget):
    async def exchange(self, message: Message) -> None:
        await super().exchange(message)
        await super().exchange(Message(f"{message.id}-", message.body))


# When it is taken ---------------------------------------------------------------------------------


@faults(OnTarget, "EventTarget.send", "waits-for-no-answer")
class WaitsForNoAnswer(PlainTarget):
    async def answer(self, reader: asyncio.StreamReader) -> bytes:
        return b"y"


@faults(OnTarget, "EventTarget.send", "sends-behind-the-back")
class SendsBehindTheBack(PlainTarget):
    def __init__(self, port: int, limit_s: float = LIMIT_S) -> None:
        super().__init__(port, limit_s)
        self.sending: set[asyncio.Task[None]] = set()

    async def send(self, message: Message) -> None:
        task = asyncio.create_task(super().send(message))
        self.sending.add(task)
        task.add_done_callback(self.sending.discard)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self.sending, return_exceptions=True)
        await super().__aexit__(None, None, None)


@faults(OnTarget, "EventTarget.send", "no-is-yes")
class NoIsYes(PlainTarget):
    def judge(self, answer: bytes) -> None:
        pass


@faults(OnTarget, "EventTarget.send", "silence-is-yes")
class SilenceIsYes(PlainTarget):
    async def answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self.limit_s / 2):
                return await super().answer(reader)
        except TimeoutError:
            return b"y"


@faults(OnTarget, "EventTarget.send", "the-end-is-yes")
class TheEndIsYes(PlainTarget):
    async def answer(self, reader: asyncio.StreamReader) -> bytes:
        return await reader.read(1) or b"y"


@faults(OnTarget, "EventTarget.send", "errors-of-its-own")
class ErrorsOfItsOwn(PlainTarget):
    async def send(self, message: Message) -> None:
        async with asyncio.timeout(self.limit_s), self.open:
            await self.exchange(message)


@faults(OnTarget, "EventTarget.send", "timeouts-of-its-own")
class TimeoutsOfItsOwn(PlainTarget):
    async def send(self, message: Message) -> None:
        try:
            await super().send(message)
        except Unavailable as error:
            if isinstance(error.__cause__, TimeoutError):
                raise error.__cause__ from None
            raise


@faults(OnTarget, "EventTarget.send", "waits-for-ever")
class WaitsForEver(PlainTarget):
    async def send(self, message: Message) -> None:
        try:
            await self.exchange(message)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Unavailable(str(error)) from error


@faults(OnTarget, "EventTarget.send", "gives-up-for-good")
class GivesUpForGood(PlainTarget):
    given_up = False

    async def send(self, message: Message) -> None:
        if self.given_up:
            raise Unavailable("it failed before")
        try:
            await super().send(message)
        except Unavailable:
            self.given_up = True
            raise


@faults(OnTarget, "EventTarget.send", "refused-once-refused-ever")
class RefusedOnceRefusedEver(PlainTarget):
    refused = False

    def judge(self, answer: bytes) -> None:
        self.refused = self.refused or answer != b"y"
        super().judge(b"n" if self.refused else answer)


@faults(OnTarget, "EventTarget.send", "never-connects-again")
class NeverConnectsAgain(PlainTarget):
    connected = False

    async def wire(self) -> Wire:
        if self.connected and not self.idle:
            raise OSError("the connection is gone")
        wire = await super().wire()
        self.connected = True
        return wire

    async def send(self, message: Message) -> None:
        async with self.one:
            await super().send(message)

    def __init__(self, port: int, limit_s: float = LIMIT_S) -> None:
        super().__init__(port, limit_s)
        self.one = asyncio.Lock()


@faults(OnTarget, "EventTarget.send", "keeps-what-was-cancelled")
class KeepsWhatWasCancelled(PlainTarget):
    """An answer that came too late is taken for that of the next message."""

    def give_up(self, wire: Wire) -> None:
        self.idle.append(wire)


@faults(OnTarget, "EventTarget.send", "answers-get-mixed-up")
class AnswersGetMixedUp(PlainTarget):
    """One connection for all that is sent at once, and whoever asks first gets the first answer."""

    async def wire(self) -> Wire:
        if not self.idle:
            self.idle.append(await asyncio.open_connection("127.0.0.1", self.port))
        return self.idle[0]


@faults(OnTarget, "EventTarget.send", "tells-its-secret")
class TellsItsSecret(PlainTarget):
    async def send(self, message: Message) -> None:
        try:
            await super().send(message)
        except Unavailable as error:
            raise Unavailable(f"{error} (with {self.secret})") from error


@faults(OnTarget, "EventTarget.send", "fails-without-a-word")
class FailsWithoutAWord(PlainTarget):
    async def send(self, message: Message) -> None:
        try:
            await super().send(message)
        except Unavailable as error:
            raise Unavailable("") from error


@faults(OnTarget, "EventTarget.send", "drops-what-comes-together")
class DropsWhatComesTogether(PlainTarget):
    busy = False

    async def exchange(self, message: Message) -> None:
        if self.busy:
            return
        self.busy = True
        try:
            await super().exchange(message)
        finally:
            self.busy = False


# Around it ----------------------------------------------------------------------------------------


@faults(OnTarget, "EventTarget.__aenter__", "needs-somebody-there")
class NeedsSomebodyThere(PlainTarget):
    async def __aenter__(self) -> Self:
        try:
            self.idle.append(await self.wire())
        except OSError as error:
            raise Unavailable(str(error)) from error
        return self


@faults(OnTarget, "EventTarget.__aenter__", "looks-for-ever")
class LooksForEver(PlainTarget):
    """Keeps a task that tries to connect, and does not end it."""

    async def __aenter__(self) -> Self:
        self.looking = asyncio.create_task(asyncio.sleep(3600))
        return self


@faults(OnTarget, "EventTarget.__aexit__", "leaves-connections")
class LeavesConnections(PlainTarget):
    left: ClassVar[list[Any]] = []

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.left.extend(self.idle)


@faults(OnTarget, "EventTarget.__aexit__", "waits-for-a-goodbye")
class WaitsForAGoodbye(PlainTarget):
    sent = 0

    async def exchange(self, message: Message) -> None:
        self.sent += 1
        await super().exchange(message)

    async def __aexit__(self, *_: object) -> None:
        if self.sent > 1:
            await asyncio.Event().wait()
        await super().__aexit__(None, None, None)


@faults(OnTarget, "EventTarget.capabilities", "takes-nothing-at-once")
class TakesNothingAtOnce(PlainTarget):
    capabilities = TargetCapabilities(at_once=0)


@faults(OnTarget, "EventTarget.__repr__", "shows-its-secret")
class ShowsItsSecret(PlainTarget):
    def __repr__(self) -> str:
        return f"PlainTarget({self.port}, secret={self.secret!r})"
