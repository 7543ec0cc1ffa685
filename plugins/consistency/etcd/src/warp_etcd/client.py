"""Calls of etcd's v3 API: one channel to each endpoint, the next endpoint when one does not answer, a deadline on everything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from warp_core.errors import Unauthenticated, Unavailable, WarpError

from warp_etcd.errors import Behind, translate
from warp_etcd.wire import etcd_pb2 as pb

Answer = TypeVar("Answer", bound=Message)

ATTEMPT_S = (
    2.0  # one endpoint's share of a call's time when there are others: two elections of 1 s pass
)
AGAIN_S = (
    0.05  # pause after every endpoint refused: a member that restarts is there within a second
)
OPTIONS = (
    ("grpc.max_receive_message_length", 128 << 20),  # 1,000 rows of 64 KiB
    ("grpc.enable_retries", 0),  # what may be sent again is decided here
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 2000),  # what one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1000),  # gRPC's own two minutes would outlast every outage
    ("grpc.keepalive_time_ms", 10_000),  # etcd refuses more than one in 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.use_local_subchannel_pool", 1),
)
# A member that knows no leader answers at once instead of waiting for one.
LEADER_ONLY = (("hasleader", "true"),)


@dataclass(frozen=True, slots=True)
class Method(Generic[Answer]):
    """One remote procedure: its path and what it answers."""

    path: str
    answer: type[Answer]


RANGE = Method("/etcdserverpb.KV/Range", pb.RangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", pb.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", pb.CompactionResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", pb.WatchResponse)
LEASE_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse)
LEASE_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse)
LEASE_KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", pb.StatusResponse)
ALARM = Method("/etcdserverpb.Maintenance/Alarm", pb.AlarmResponse)
DEFRAGMENT = Method("/etcdserverpb.Maintenance/Defragment", pb.DefragmentResponse)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse)


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a cluster. `tls` are the certificates of the authority, ours and our key, PEM; None: without TLS."""

    targets: tuple[str, ...]
    tls: tuple[bytes | None, bytes | None, bytes | None] | None = None
    user: str = ""
    password: str = ""


class Client:
    """A client of one cluster; use with `async with`."""

    def __init__(
        self, access: Access, *, timeout_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._access = access
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._channels: list[grpc.aio.Channel] = []
        self._calls: dict[tuple[int, str], Any] = {}
        self._current = 0
        self._token = ""

    async def __aenter__(self) -> Self:
        access = self._access
        if access.tls is None:
            self._channels = [
                grpc.aio.insecure_channel(target, options=OPTIONS) for target in access.targets
            ]
        else:
            authority, certificate, key = access.tls
            credentials = grpc.ssl_channel_credentials(authority, key, certificate)
            self._channels = [
                grpc.aio.secure_channel(target, credentials, options=OPTIONS)
                for target in access.targets
            ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls.clear()
        channels, self._channels = self._channels, []
        await asyncio.gather(*(channel.close() for channel in channels), return_exceptions=True)

    @property
    def where(self) -> str:
        """The endpoint that is asked next."""
        return self._access.targets[self._current]

    async def call(self, method: Method[Answer], request: Message, *, until: float = 0.0) -> Answer:
        """Call what may be repeated without harm, until an endpoint answers or the time is over.

        Args:
            method: What to call.
            request: What to send.
            until: When to give up, by the clock; 0: after the client's timeout.

        Raises:
            Unavailable: No endpoint answered in time.
            WarpError: etcd refused.
        """
        until = until or self._monotonic() + self._timeout_s
        attempts = 0
        while True:
            left = until - self._monotonic()
            try:
                return await self.attempt(method, request, timeout_s=max(left, 0.01))
            except Behind:
                raise
            except Unavailable:
                attempts += 1
                if attempts % len(self._channels) == 0:
                    if until - self._monotonic() <= AGAIN_S:
                        raise
                    await asyncio.sleep(AGAIN_S)
                elif self._monotonic() >= until:
                    raise

    async def attempt(
        self, method: Method[Answer], request: Message, *, timeout_s: float
    ) -> Answer:
        """Call once.

        Raises:
            Unavailable: It is unknown whether etcd did it.
            WarpError: etcd refused.
        """
        if not self._channels:
            raise Unavailable("the connection to etcd is closed")
        index = self._current
        if len(self._channels) > 1:
            timeout_s = min(timeout_s, ATTEMPT_S)
        try:
            metadata = await self._metadata(index)
            call = self._unary(index, method)
            answer: Answer = await call(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise self._failed(index, error) from error
        except grpc.aio.UsageError as error:  # the channel closed meanwhile
            raise Unavailable("the connection to etcd is closed") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Unavailable("the call of etcd was cancelled") from error  # gRPC's way to say so
        return answer

    async def each(self, method: Method[Answer], request: Message) -> list[Answer | WarpError]:
        """Call every endpoint once."""

        async def one(index: int) -> Answer | WarpError:
            try:
                metadata = await self._metadata(index)
                call = self._unary(index, method)
                return await call(request, timeout=self._timeout_s, metadata=metadata)  # type: ignore[no-any-return]
            except grpc.aio.AioRpcError as error:
                details = error.details() or ""
                return translate(self._access.targets[index], error.code().name, details)

        return await asyncio.gather(*(one(index) for index in range(len(self._channels))))

    async def stream(
        self, method: Method[Answer], requests: Sequence[Message], *, timeout_s: float | None = None
    ) -> AsyncGenerator[Answer, None]:
        """Send requests and yield what comes back, until the call ends or is closed.

        Raises:
            Unavailable: The connection broke.
            WarpError: etcd refused.
        """
        if not self._channels:
            raise Unavailable("the connection to etcd is closed")
        index = self._current
        call = None
        try:
            metadata = await self._metadata(index)
            call = self._channels[index].stream_stream(
                method.path,
                request_serializer=_serialize,
                response_deserializer=method.answer.FromString,
            )(metadata=metadata, timeout=timeout_s)
            for request in requests:
                await call.write(request)
            while True:
                answer = await call.read()
                if answer is grpc.aio.EOF:
                    raise Unavailable(f"etcd at {self._access.targets[index]} ended the stream")
                yield answer
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            raise Unavailable("the connection to etcd is closed") from error
        except grpc.aio.AioRpcError as error:
            raise self._failed(index, error) from error
        finally:
            if call is not None:
                call.cancel()

    def _failed(self, index: int, error: grpc.aio.AioRpcError) -> WarpError:
        """Return the error in our words; ask another endpoint next time if this one does not answer."""
        translated = translate(
            self._access.targets[index], error.code().name, error.details() or ""
        )
        if isinstance(translated, Unauthenticated) and self._token:
            self._token = ""
            translated = Unavailable(str(translated))  # it lapsed: another is asked for
        elif isinstance(translated, Behind):
            pass  # it answers, only not this
        elif isinstance(translated, Unavailable) and index == self._current:
            self._current = (index + 1) % len(self._access.targets)
        return translated

    def _unary(self, index: int, method: Method[Answer]) -> Any:
        call = self._calls.get((index, method.path))
        if call is None:
            call = self._channels[index].unary_unary(
                method.path,
                request_serializer=_serialize,
                response_deserializer=method.answer.FromString,
            )
            self._calls[index, method.path] = call
        return call

    async def _metadata(self, index: int) -> tuple[tuple[str, str], ...]:
        access = self._access
        if not access.user:
            return LEADER_ONLY
        if not self._token:
            request = pb.AuthenticateRequest(name=access.user, password=access.password)
            call = self._unary(index, AUTHENTICATE)
            self._token = (await call(request, timeout=self._timeout_s, metadata=LEADER_ONLY)).token
        return (*LEADER_ONLY, ("token", self._token))


def _serialize(message: Message) -> bytes:
    packed: bytes = message.SerializeToString()
    return packed
