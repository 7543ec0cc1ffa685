"""Faulty protocols."""

from __future__ import annotations

import asyncio
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest
from warp_core.config import Address
from warp_core.contexts import ProtocolContext
from warp_core.errors import AlreadyRunning
from warp_core.interfaces.protocols import ProtocolCapabilities

from warp_conformance.kits.protocols import Build, LocalProtocolKit, Make, ProtocolKit
from warp_conformance.mutation import Faults
from warp_conformance.reference.protocols import LINE_MAX, Ears, Lines

faults = Faults("protocols")


class OnProtocol(ProtocolKit):
    implementation: ClassVar[type[Lines]] = Lines
    exchange = (b"GET he", b"llo\n", b"ERROR nothing of that name")

    @pytest.fixture
    def make(self, context: ProtocolContext) -> Make:
        return lambda listen: self.implementation(listen, context)


class OnStranger(OnProtocol):
    """What catches faults without knowing what the protocol says."""

    exchange = None  # type: ignore[assignment]


class OnLocal(LocalProtocolKit):
    implementation: ClassVar[type[Ears]] = Ears

    @pytest.fixture
    def make(self, context: ProtocolContext) -> Build:
        return lambda: self.implementation()


# Without an address -------------------------------------------------------------------------------


@faults(OnLocal, "Protocol.__init__", "opens-its-device-when-built")
class OpensItsDeviceWhenBuilt(Ears):
    def __init__(self) -> None:
        super().__init__()
        self.open()


@faults(OnLocal, "Protocol.__aexit__", "keeps-its-device")
class KeepsItsDevice(Ears):
    async def __aexit__(self, *how: Any) -> None:
        self.device = -1
        await super().__aexit__(*how)


@faults(OnLocal, "Protocol.__aexit__", "keeps-its-task")
class KeepsItsTask(Ears):
    async def __aexit__(self, *how: Any) -> None:
        self.task = None
        await super().__aexit__(*how)


@faults(OnLocal, "Protocol.__aexit__", "keeps-all-after-an-error")
class KeepsAllAfterAnError(Ears):
    async def __aexit__(self, *how: Any) -> None:
        if how[0] is None:
            await super().__aexit__(*how)


@faults(OnLocal, "Protocol.__aexit__", "swallows-the-error")
class SwallowsTheError(Ears):
    async def __aexit__(self, *how: Any) -> bool:  # type: ignore[override]
        await super().__aexit__(*how)
        return True


@faults(OnLocal, "Protocol.__aexit__", "waits-for-nobody")
class WaitsForNobody(Ears):
    async def __aexit__(self, *how: Any) -> None:
        await asyncio.sleep(0.6)
        await super().__aexit__(*how)


# Opening ------------------------------------------------------------------------------------------


@faults(OnProtocol, "Protocol.__aenter__", "library-error-for-a-taken-port")
class RaisesOsError(Lines):
    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except AlreadyRunning as error:
            raise error.__cause__ or error from None


@faults(OnProtocol, "Protocol.__aenter__", "address-not-named")
class DoesNotNameTheAddress(Lines):
    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except AlreadyRunning as error:
            raise AlreadyRunning("the address is taken") from error


@faults(OnProtocol, "Protocol.__aenter__", "shares-a-taken-port")
class SharesThePort(Lines):
    async def bind(self, host: str, port: int) -> None:
        self.server = await asyncio.start_server(
            self.accept, host, port, limit=LINE_MAX, reuse_port=True
        )


@faults(OnProtocol, "Protocol.__aenter__", "another-port-for-a-taken-one")
class TakesAnotherPort(Lines):
    async def bind(self, host: str, port: int) -> None:
        try:
            await super().bind(host, port)
        except OSError:
            await super().bind(host, 0)


@faults(OnProtocol, "Protocol.__aenter__", "ignores-the-port")
class IgnoresThePort(Lines):
    async def bind(self, host: str, port: int) -> None:
        await super().bind(host, port)
        if port and self.server:
            self.server.close()
            await super().bind(host, 0)


@faults(OnProtocol, "Protocol.__aenter__", "endpoint-without-port")
class NamesNoPort(Lines):
    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.endpoint = f"lines://{self.listen.host}:{self.listen.port}"
        return self


@faults(OnProtocol, "Protocol.__aenter__", "endpoint-without-scheme")
class NamesNoScheme(Lines):
    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.endpoint = self.endpoint.removeprefix("lines:")
        return self


@faults(OnProtocol, "Protocol.__aenter__", "accepts-nobody")
class AcceptsNobody(Lines):
    def accept(self, reader: Reader, writer: Writer) -> None:
        writer.transport.abort()


@faults(OnProtocol, "Protocol.__aenter__", "opens-when-built")
class OpensWhenBuilt(Lines):
    def __init__(self, listen: Address, context: ProtocolContext) -> None:
        super().__init__(listen, context)
        self.early = asyncio.ensure_future(asyncio.sleep(0.2))


@faults(OnStranger, "Protocol.__aenter__", "leaks-at-a-taken-port")
class LeaksAtATakenPort(Lines):
    leaked: ClassVar[list[Any]] = []

    async def bind(self, host: str, port: int) -> None:
        file = open("/dev/null")  # noqa: SIM115, ASYNC230
        self.leaked.append(file)
        await super().bind(host, port)
        file.close()


@faults(OnProtocol, "Protocol.capabilities", "unknown-view")
class HasAnUnknownView(Lines):
    capabilities = ProtocolCapabilities(view="buckets")


# Clients ------------------------------------------------------------------------------------------


@faults(OnStranger, "Protocol", "garbage-stops-it")
class StopsAtGarbage(Lines):
    async def answer(self, line: bytes) -> bytes:
        if not line.isascii():
            self.stop()
        return await super().answer(line)

    async def rest(self, reader: Reader) -> bytes:
        try:
            return await super().rest(reader)
        except (ValueError, asyncio.LimitOverrunError):
            self.stop()
            raise


@faults(OnStranger, "Protocol", "error-reaches-the-loop")
class LeavesErrorsToTheLoop(Lines):
    async def run(self, reader: Reader, writer: Writer) -> None:
        try:
            await self.converse(reader, writer)
        except asyncio.LimitOverrunError as error:
            self.context.metrics.counter("errors_total", "Errors").add()
            asyncio.get_running_loop().call_exception_handler({"message": "oh", "exception": error})
        finally:
            writer.close()

    async def rest(self, reader: Reader) -> bytes:
        return await reader.readuntil(b"\n")


@faults(OnProtocol, "Protocol", "one-client-at-a-time")
class ServesOneAtATime(Lines):
    async def converse(self, reader: Reader, writer: Writer) -> None:
        if not hasattr(self, "turn"):
            self.turn = asyncio.Lock()
        async with self.turn:
            await super().converse(reader, writer)


@faults(OnProtocol, "Protocol", "fifty-clients")
class ServesFifty(Lines):
    def accept(self, reader: Reader, writer: Writer) -> None:
        if len(self.tasks) >= 50:
            writer.transport.abort()
        else:
            super().accept(reader, writer)


@faults(OnProtocol, "Protocol", "fifty-clients-ever")
class ServesFiftyEver(Lines):
    count = 0

    def accept(self, reader: Reader, writer: Writer) -> None:
        self.count += 1
        if self.count > 50:
            writer.transport.abort()
        else:
            super().accept(reader, writer)


@faults(OnProtocol, "Protocol", "blocks-for-the-slow")
class BlocksForTheSlow(Lines):
    async def rest(self, reader: Reader) -> bytes:
        try:
            async with asyncio.timeout(0):
                return await super().rest(reader)
        except TimeoutError:
            time.sleep(0.05)  # noqa: ASYNC251
            return await super().rest(reader)


@faults(OnStranger, "Protocol", "endless-request-is-buffered")
class BuffersEndlessly(Lines):
    async def rest(self, reader: Reader) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            data = await reader.read(1 << 16)
            if not data:
                return b""
            line += data
        return bytes(line)


@faults(OnStranger, "Protocol", "connection-outlives-its-client")
class KeepsConnections(Lines):
    kept: ClassVar[list[Writer]] = []

    def hang_up(self, writer: Writer) -> None:
        self.kept.append(writer)
        if self.leaving:
            writer.close()


@faults(OnStranger, "Protocol", "task-outlives-its-client")
class KeepsTasks(Lines):
    kept: ClassVar[list[Any]] = []

    def hang_up(self, writer: Writer) -> None:
        writer.close()
        self.kept.append(asyncio.ensure_future(asyncio.sleep(30)))


@faults(OnProtocol, "Protocol", "hanging-up-stops-it")
class StopsWhenOneHangsUp(Lines):
    async def rest(self, reader: Reader) -> bytes:
        rest = await super().rest(reader)
        if not rest:
            self.stop()
        return rest


@faults(OnStranger, "Protocol", "spins-at-the-end")
class SpinsAtTheEnd(Lines):
    async def converse(self, reader: Reader, writer: Writer) -> None:
        await super().converse(reader, writer)
        while not self.leaving and reader.at_eof():  # noqa: ASYNC110
            await asyncio.sleep(0)


# Leaving ------------------------------------------------------------------------------------------


@faults(OnProtocol, "Protocol.__aexit__", "request-in-flight-is-dropped")
class DropsRequests(Lines):
    async def drain(self) -> None:
        pass


@faults(OnProtocol, "Protocol.__aexit__", "accepts-while-draining")
class AcceptsWhileDraining(Lines):
    def stop(self) -> None:
        pass

    async def end(self) -> None:
        super().stop()
        await super().end()


@faults(OnStranger, "Protocol.__aexit__", "port-stays-open")
class KeepsThePort(Lines):
    kept: ClassVar[list[Any]] = []

    def stop(self) -> None:
        self.kept.append(self.server)


@faults(OnStranger, "Protocol.__aexit__", "waits-for-the-silent")
class WaitsForTheSilent(Lines):
    async def drain(self) -> None:
        if self.tasks:
            await asyncio.wait(self.tasks)


@faults(OnProtocol, "Protocol.__aexit__", "ignores-the-drain-time")
class WaitsForRequests(Lines):
    async def drain(self) -> None:
        for task in set(self.tasks) - self.busy:
            task.cancel()
        if self.busy:
            await asyncio.wait(self.busy)


@faults(OnStranger, "Protocol.__aexit__", "always-takes-the-drain-time")
class AlwaysTakesItsTime(Lines):
    async def drain(self) -> None:
        await asyncio.sleep(self.context.drain_s)


@faults(OnStranger, "Protocol.__aexit__", "connections-stay-open")
class LeavesConnectionsOpen(Lines):
    kept: ClassVar[list[Any]] = []

    async def drain(self) -> None:
        pass

    async def end(self) -> None:
        self.kept.extend(self.tasks.items())


@faults(OnStranger, "Protocol.__aexit__", "stays-after-an-error")
class StaysAfterAnError(Lines):
    kept: ClassVar[list[Any]] = []

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await super().__aexit__(kind, error, trace)
        else:
            self.kept.append(self.server)


@faults(OnStranger, "Protocol.__aexit__", "swallows-errors")
class SwallowsErrors(Lines):
    async def __aexit__(  # type: ignore[override]
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        await super().__aexit__(kind, error, trace)
        return True


@faults(OnStranger, "Protocol.__aexit__", "leaked-task")
class LeaksATask(Lines):
    leaked: ClassVar[list[Any]] = []

    async def end(self) -> None:
        await super().end()
        self.leaked.append(asyncio.ensure_future(asyncio.sleep(30)))


@faults(OnStranger, "Protocol.__aexit__", "leaked-descriptor")
class LeaksADescriptor(Lines):
    leaked: ClassVar[list[Any]] = []

    async def end(self) -> None:
        await super().end()
        self.leaked.append(open("/dev/null"))  # noqa: SIM115, ASYNC230
