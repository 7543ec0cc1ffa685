"""Requests to answers: which route, who asks, what with, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from warp_core import logs
from warp_core.contexts import ProtocolContext
from warp_core.errors import WarpError
from warp_core.node.administration import Administration
from warp_core.node.control import Role

from warp_admin import openapi, page
from warp_admin.config import Config
from warp_admin.identity import Asker, Doorman, Peer
from warp_admin.openapi import EVENTS, JSON_LINES
from warp_admin.problems import MEDIA_TYPE, RETRY_S, Problem, from_error
from warp_admin.routes import Route, Table, routes_of, split_path

JSON: Final = "application/json"
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"

QUERY_MAX: Final = 64  # fields; no verb takes so many
ALIVE_S: Final = 10.0
"""How often work that says nothing says so, so that nobody on the way takes the connection for dead."""

PROGRESS_S: Final = 0.2
"""How often progress is told at most; only the newest is."""

_LINES: Final = frozenset({JSON_LINES, "application/x-ndjson", "application/x-jsonlines"})
_GET: Final = frozenset({"GET", "HEAD"})

log = logs.get("warp_admin")


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose head is read.

    Attributes:
        method: In capitals.
        target: As it stands in the request line.
        headers: By their names in lower case; of several with one name the last.
        peer: Who sent it.
        body: Reads the body, at most so many bytes.
        gone: Returns when the client hangs up.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    peer: Peer
    body: Callable[[], Awaitable[bytes]]
    gone: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; with a stream its length is not known, and whoever sends it ends the work behind it."""

    status: int
    kind: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncGenerator[bytes, None] | None = None
    work: asyncio.Future[object] | None = None


@dataclass(slots=True)
class _Progress:
    """What a verb told last."""

    latest: Mapping[str, object] | None = None
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, progress: Mapping[str, object]) -> None:
        self.latest = dict(progress)
        self.told.set()


class Service:
    """The API without its sockets."""

    def __init__(
        self, config: Config, context: ProtocolContext, doorman: Doorman | None, *, endpoint: str
    ) -> None:
        """Take what it asks; without an administration it tells of itself only."""
        self._config = config
        self._node: Administration[Any] | None = context.administration
        self._doorman = doorman
        self._running = asyncio.Semaphore(config.requests_max)
        self.draining = False
        routes = routes_of(self._node.verbs) if self._node is not None else []
        self._table = Table(routes)
        secured = not config.listen.path
        made = openapi.document(routes, secured=secured, open_metrics=config.open_metrics)
        self._openapi = msgspec.json.encode(made)
        self._page = page.page(made, curl=_curl(endpoint))
        self._own: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": self._docs,
            "/docs": self._docs,
            "/openapi.json": self._document,
            "/healthz": self._alive,
            "/readyz": self._ready,
            "/metrics": self._metrics,
        }

    async def answer(self, request: Request) -> Response:
        """Answer a request.

        Raises:
            Problem: What the answer is instead.
            ConnectionError: The client is gone.
        """
        _check_origin(request)
        path, _, query = request.target.partition("?")
        if "#" in request.target:
            raise Problem(400, "InvalidArgument", "a target without fragment is needed")
        own = self._own.get(path)
        if own is not None:
            if request.method not in _GET:
                raise _not_allowed("GET, HEAD")
            return await own(request)
        try:
            segments = split_path(path)
        except ValueError as error:
            raise Problem(400, "InvalidArgument", f"path: {error}") from None
        methods, values = self._table.find(segments)
        if not methods:
            raise Problem(404, "NotFound", f"there is no {path[:200]}: /docs shows what there is")
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = [*methods, *(["HEAD"] if "GET" in methods else [])]
            raise _not_allowed(", ".join(sorted(allowed)))
        return await self._verb(request, route, values, query)

    # Verbs ----------------------------------------------------------------------------------------

    async def _verb(
        self, request: Request, route: Route, values: list[str], query: str
    ) -> Response:
        asker = await self._asker(request)
        given: dict[str, object] = dict(zip(route.named, values, strict=True))
        body = await request.body()
        if route.queried:
            if body:
                raise Problem(400, "InvalidArgument", f"{request.method} takes no body here")
            given |= _queried(query, route)
        else:
            if query:
                raise Problem(400, "InvalidArgument", "arguments go into the body, not the query")
            given |= _embodied(body, request.headers.get("content-type", ""), route)
        try:
            arguments = msgspec.convert(given, route.arguments, strict=not route.queried)
        except msgspec.ValidationError as error:
            raise Problem(400, "InvalidArgument", f"{route.verb}: {error}") from None
        if self._running.locked():
            raise Problem(
                503,
                "Busy",
                f"{self._config.requests_max} requests are at work: come again",
                headers=[("Retry-After", str(RETRY_S))],
            )
        form = _form(request) if route.long else ""
        if form:
            return await self._streamed(request, route, asker, arguments, form)
        async with self._running:
            work = asyncio.ensure_future(self._perform(route, asker, arguments, _Progress()))
            result = await (_unless_gone(work, request) if route.long else work)
        return Response(route.status, JSON, _json(result))

    async def _perform(
        self, route: Route, asker: Asker, arguments: msgspec.Struct, progress: _Progress
    ) -> object:
        assert self._node is not None, "there are routes"
        try:
            return await self._node.perform(
                route.verb, arguments, asker.caller, progress.tell, role=asker.role
            )
        except WarpError as error:
            raise from_error(error) from error
        except Exception as error:
            log.exception("admin request failed", error, verb=route.verb)
            raise Problem(
                500, "WarpError", f"{type(error).__name__}: see the node's log"
            ) from error

    async def _streamed(
        self, request: Request, route: Route, asker: Asker, arguments: msgspec.Struct, form: str
    ) -> Response:
        """Begin work that tells of its progress; what is refused before it tells anything is a plain problem."""
        await self._running.acquire()
        progress = _Progress()
        work = asyncio.ensure_future(self._perform(route, asker, arguments, progress))
        work.add_done_callback(lambda _: self._running.release())
        first = asyncio.ensure_future(progress.told.wait())
        try:
            await asyncio.wait((work, first), timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            work.cancel()
            raise
        finally:
            first.cancel()
        if work.done() and work.exception() is not None:
            work.result()
        return Response(
            200,
            form,
            headers=(("X-Accel-Buffering", "no"),),
            stream=_stream(work, progress, request, form),
            work=work,
        )

    async def _asker(self, request: Request) -> Asker:
        if self._doorman is None:
            raise Problem(503, "Unavailable", "nobody is here to be asked")
        return await self._doorman.identify(request.peer, request.headers.get("authorization"))

    # About itself ---------------------------------------------------------------------------------

    async def _docs(self, request: Request) -> Response:
        headers = (("Content-Security-Policy", page.POLICY),)
        return Response(200, "text/html; charset=utf-8", self._page, headers)

    async def _document(self, request: Request) -> Response:
        return Response(200, JSON, self._openapi)

    async def _alive(self, request: Request) -> Response:
        return Response(200, JSON, _json({"alive": True}))

    async def _ready(self, request: Request) -> Response:
        reasons = ["the node is about to end"] if self.draining else []
        if self._node is not None:
            reasons += await self._node.unready()
        body = _json({"ready": not reasons, "reasons": reasons})
        return Response(503 if reasons else 200, JSON, body)

    async def _metrics(self, request: Request) -> Response:
        if not self._config.open_metrics:
            asker = await self._asker(request)
            assert asker.role >= Role.VIEWER, "the lowest role"
        if self._node is None:
            raise Problem(503, "Unavailable", "nobody is here to be asked")
        return Response(200, PROMETHEUS, (await self._node.metrics()).encode())


def _curl(endpoint: str) -> str:
    path = endpoint.removeprefix("unix:")
    return f"--unix-socket {path} http://node" if path != endpoint else endpoint


# Requests -----------------------------------------------------------------------------------------


def _check_origin(request: Request) -> None:
    """Refuse what a page of another site sent: a browser may show it a certificate that the page does not have."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host", ""):
        raise Problem(403, "PermissionDenied", "requests of pages of other sites are refused")


def _not_allowed(allowed: str) -> Problem:
    return Problem(405, "MethodNotAllowed", f"allowed: {allowed}", headers=[("Allow", allowed)])


def _queried(query: str, route: Route) -> dict[str, object]:
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=QUERY_MAX,
        )
    except ValueError as error:
        raise Problem(400, "InvalidArgument", f"query: {error}") from None
    found: dict[str, object] = {}
    for name, value in pairs:
        if name not in route.others:
            raise _unknown("query", name, route)
        if name in found:
            raise Problem(400, "InvalidArgument", f'query: "{name}" is said twice')
        found[name] = value
    return found


def _embodied(body: bytes, kind: str, route: Route) -> Mapping[str, object]:
    if not body:
        return {}
    if kind.partition(";")[0].strip().lower() != JSON:
        raise Problem(415, "InvalidArgument", f"Content-Type: {JSON} is needed, not {kind[:100]!r}")
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "InvalidArgument", f"body: {error}") from None
    if not isinstance(found, dict):
        raise Problem(400, "InvalidArgument", "body: an object is needed")
    for name in found:
        if name not in route.others:
            raise _unknown("body", name, route)
    return found


def _unknown(where: str, name: str, route: Route) -> Problem:
    allowed = ", ".join(route.others) or "none"
    return Problem(
        400, "InvalidArgument", f'{where}: there is no argument "{name[:100]}"; allowed: {allowed}'
    )


def _form(request: Request) -> str:
    """Return the form in which a client wants to hear of progress, "" if it does not."""
    for each in request.headers.get("accept", "").split(","):
        kind = each.partition(";")[0].strip().lower()
        if kind in _LINES:
            return kind
        if kind == EVENTS:
            return EVENTS
    return ""


# Work ---------------------------------------------------------------------------------------------


async def _unless_gone(work: asyncio.Future[object], request: Request) -> object:
    """Wait for work, and cancel it if the client hangs up."""
    gone = asyncio.ensure_future(request.gone())
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ConnectionResetError("the client hung up")
        return work.result()
    finally:
        await _stop(work, gone)


async def _stop(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _stream(
    work: asyncio.Future[object], progress: _Progress, request: Request, form: str
) -> AsyncGenerator[bytes, None]:
    gone = asyncio.ensure_future(request.gone())
    try:
        while not work.done():
            told = asyncio.ensure_future(progress.told.wait())
            try:
                await asyncio.wait(
                    (work, gone, told), timeout=ALIVE_S, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                told.cancel()
            if gone.done():
                raise ConnectionResetError("the client hung up")
            if work.done():
                break
            progress.told.clear()
            yield _event(form, "progress", progress.latest or {})
            await asyncio.wait(
                (work, gone), timeout=PROGRESS_S, return_when=asyncio.FIRST_COMPLETED
            )
        if progress.latest is not None and progress.told.is_set():
            yield _event(form, "progress", progress.latest)
        try:
            result = work.result()
        except Problem as problem:
            yield _event(form, "error", problem.document())
        else:
            yield _event(form, "result", result)
    finally:
        await _stop(work, gone)


def _event(form: str, name: str, value: object) -> bytes:
    if form == EVENTS:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), _json(value).rstrip())
    return _json({name: value})


def _json(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=repr) + b"\n"


def problem_response(problem: Problem) -> Response:
    """Return the answer that a problem is."""
    headers = tuple(problem.headers)
    return Response(problem.status, MEDIA_TYPE, _json(problem.document()), headers)
