"""The API over sockets: who may what, what is refused and how, long work, limits."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from warp_admin.config import Config
from warp_admin.limits import Failures, network_of
from warp_admin.problems import STATUS, from_error
from warp_core import errors
from warp_core.audit.reading import list_changes
from warp_core.certificates import issue, make_authority
from warp_core.config import Address, Size
from warp_core.errors import leaves

from .node import Served, serving

PROBLEM = "application/problem+json"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with client(served) as http:
        yield http


def client(served: Served, **options: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=served.server.endpoint, timeout=30, **options)


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"] == f"urn:warp:error:{body['kind']}"
    assert body["title"]
    assert body["detail"]
    return answer.status_code, body["kind"]


def changes(served: Served) -> list[tuple[str, str, str]]:
    found = list_changes(served.folder / "audit", limit=100)
    return [(each.entry.by.partition(":")[0], each.entry.what, each.result) for each in found]


async def condition(true: object, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < until, "it never came true"
        await asyncio.sleep(0.01)


# Reading and changing -----------------------------------------------------------------------------


async def test_things_are_made_shown_listed_and_removed(
    served: Served, http: httpx.AsyncClient
) -> None:
    http.headers.update(await served.bearer())
    made = await http.post("/v1/boxes", json={"name": "a/b é", "size": 7})
    shown = await http.get("/v1/boxes/a%2Fb%20%C3%A9")
    listed = await http.get("/v1/boxes", params={"least": 5, "heavy": "true"})
    none = await http.get("/v1/boxes?least=8")
    gone = await http.delete("/v1/boxes/a%2Fb%20%C3%A9")

    assert (made.status_code, made.json()) == (201, {"name": "a/b é"})
    assert shown.json() == {"name": "a/b é", "size": 7}
    assert (listed.json(), none.json()) == ([shown.json()], [])
    assert gone.json() == {"deleted": "a/b é"}
    assert served.boxes.sizes == {}
    assert changes(served) == [("token", "box.create", "ok"), ("token", "box.delete", "ok")]


async def test_a_head_is_an_answer_without_its_body(
    served: Served, http: httpx.AsyncClient
) -> None:
    http.headers.update(await served.bearer())
    whole, head = await http.get("/v1/boxes"), await http.head("/v1/boxes")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


@pytest.mark.parametrize(
    ("method", "target", "options", "expected"),
    [
        ("GET", "/v2/boxes", {}, (404, "NotFound")),
        ("GET", "/v1/boxes/", {}, (404, "NotFound")),
        ("GET", "/v1/boxes/none", {}, (404, "NotFound")),
        ("GET", "/v1/boxes/%FF", {}, (400, "InvalidArgument")),
        ("GET", "/v1/boxes/a%00b", {}, (400, "InvalidArgument")),
        ("GET", "/v1/boxes?least=many", {}, (400, "InvalidArgument")),
        ("GET", "/v1/boxes?least=1&least=2", {}, (400, "InvalidArgument")),
        ("GET", "/v1/boxes?most=1", {}, (400, "InvalidArgument")),
        ("GET", "/v1/boxes", {"content": b"{}"}, (400, "InvalidArgument")),
        ("PUT", "/v1/boxes", {}, (405, "MethodNotAllowed")),
        ("POST", "/healthz", {}, (405, "MethodNotAllowed")),
        ("POST", "/v1/boxes?name=x", {"json": {"name": "x"}}, (400, "InvalidArgument")),
        ("POST", "/v1/boxes", {"json": {"name": 5}}, (400, "InvalidArgument")),
        ("POST", "/v1/boxes", {"json": {"name": "x", "colour": 1}}, (400, "InvalidArgument")),
        ("POST", "/v1/boxes", {"json": ["x"]}, (400, "InvalidArgument")),
        ("POST", "/v1/boxes", {}, (400, "InvalidArgument")),
        ("POST", "/v1/boxes", {"content": b"name=x"}, (415, "InvalidArgument")),
        ("POST", "/v1/boxes", {"content": b"[" * 9000}, (415, "InvalidArgument")),
        ("POST", "/v1/boxes", {"json": {"name": "there"}}, (409, "AlreadyExists")),
    ],
)
async def test_what_is_wrong_is_a_problem_and_harms_nobody(
    served: Served,
    http: httpx.AsyncClient,
    method: str,
    target: str,
    options: dict[str, object],
    expected: tuple[int, str],
) -> None:
    served.boxes.sizes["there"] = 1
    http.headers.update(await served.bearer())
    answer = await http.request(method, target, **options)

    assert problem(answer) == expected
    if expected[0] == 405:
        assert answer.headers["allow"]
    assert (await http.get("/v1/boxes")).json() == [{"name": "there", "size": 1}]


async def test_deep_json_is_refused(served: Served, http: httpx.AsyncClient) -> None:
    headers = {**await served.bearer(), "Content-Type": "application/json"}
    for body in (b"[" * 100_000, b'{"labels":' * 5000 + b"1" + b"}" * 5000, b'{"name":"\xff"}'):
        answer = await http.post("/v1/boxes", content=body, headers=headers)
        assert problem(answer)[0] == 400


async def test_errors_of_the_node_have_their_status_and_defects_tell_nothing(
    served: Served, http: httpx.AsyncClient
) -> None:
    http.headers.update(await served.bearer())
    served.boxes.error = errors.Unavailable("not now")
    unavailable = await http.get("/v1/boxes")
    served.boxes.error = ZeroDivisionError("/etc/secret")
    defect = await http.get("/v1/boxes")

    assert problem(unavailable) == (503, "Unavailable")
    assert unavailable.headers["retry-after"] == "1"
    assert problem(defect) == (500, "WarpError")
    assert "/etc/secret" not in defect.text


def test_every_error_has_a_status() -> None:
    for kind in leaves():
        found = from_error(kind("x"))
        assert found.kind == kind.__name__
        assert found.status >= 400
        if kind not in STATUS:
            assert any(parent in STATUS for parent in kind.__mro__[1:3]), f"{kind} falls through"


# Who ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("viewer", {"GET /v1/boxes", "GET /metrics"}),
        ("operator", {"GET /v1/boxes", "GET /metrics", "POST /v1/boxes", "POST /v1/count"}),
        (
            "admin",
            {
                "GET /v1/boxes",
                "GET /metrics",
                "POST /v1/boxes",
                "POST /v1/count",
                "DELETE /v1/boxes/x",
            },
        ),
    ],
)
async def test_a_role_may_what_it_may(
    served: Served, http: httpx.AsyncClient, role: str, allowed: set[str]
) -> None:
    http.headers.update(await served.bearer(role))
    tried = {
        f"{method} {target}": await http.request(method, target, **options)
        for method, target, options in [
            ("GET", "/v1/boxes", {}),
            ("GET", "/metrics", {}),
            ("POST", "/v1/boxes", {"json": {"name": "x", "secret": "sesame"}}),
            ("POST", "/v1/count", {"json": {"count": 1}}),
            ("DELETE", "/v1/boxes/x", {}),
        ]
    }

    assert {name for name, answer in tried.items() if answer.status_code < 300} == allowed
    refused = [answer for name, answer in tried.items() if name not in allowed]
    assert all(problem(answer) == (403, "PermissionDenied") for answer in refused)
    assert sum(result == "refused" for _, _, result in changes(served)) == len(refused)
    assert all(
        "sesame" not in str(path.read_bytes()) for path in (served.folder / "audit").iterdir()
    )


async def test_who_is_not_known_gets_nothing(served: Served, http: httpx.AsyncClient) -> None:
    right = (await served.bearer())["Authorization"]
    expired = (await served.bearer(expires_s=0.001))["Authorization"]
    await asyncio.sleep(0.01)
    [revoked] = [await served.bearer()]
    await served.tokens.revoke(revoked["Authorization"].split("_")[1])
    wrong = [
        "Basic cm9vdDpyb290",
        "Bearer",
        "Bearer x",
        right[:-1],
        right.replace("Bearer ", "Bearer x"),
        expired,
    ]

    for authorization in [None, *wrong, revoked["Authorization"]]:
        headers = {"Authorization": authorization} if authorization else {}
        for target in ("/v1/boxes", "/metrics"):
            answer = await http.get(target, headers=headers)
            if answer.status_code != 429:
                assert problem(answer) == (401, "Unauthenticated")
                assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (await http.post("/v1/boxes", json={"name": "x"})).status_code == 401
    assert served.boxes.sizes == {}


async def test_tokens_are_not_kept(served: Served, tmp_path: Path) -> None:
    text = (await served.bearer())["Authorization"].rpartition("_")[2]
    [token] = await served.tokens.all()

    assert text.encode() not in msgspec.msgpack.encode(token)


async def test_an_address_that_is_wrong_too_often_has_to_wait(tmp_path: Path) -> None:
    async with serving(tmp_path, failures_max=3) as served, client(served) as http:
        right, wrong = await served.bearer(), {"Authorization": "Bearer warp_aaaaaaaa_x"}
        found = [(await http.get("/v1/boxes", headers=wrong)).status_code for _ in range(5)]
        waits = await http.get("/v1/boxes", headers=right)

        assert found == [401, 401, 401, 429, 429]
        assert waits.status_code == 429
        assert 0 < int(waits.headers["retry-after"]) <= 61
        assert (await http.get("/healthz")).status_code == 200


def test_failures_are_forgotten_in_time_and_by_number() -> None:
    now = 0.0
    failures = Failures(2, lambda: now)
    for _ in range(2):
        failures.failed("2001:db8::1")

    assert failures.wait_s("2001:db8::ffff") > 59, "one network"
    assert failures.wait_s("2001:db8:0:1::1") == 0
    now = 61.0
    assert failures.wait_s("2001:db8::1") == 0
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") == "10.0.0.1"
    for number in range(10_000):
        failures.failed(f"10.0.{number >> 8}.{number & 255}")
    assert len(failures._by_address) == 4096


async def test_who_may_open_the_socket_needs_no_token(tmp_path: Path) -> None:
    async with serving(tmp_path, listen=Address("unix:admin.sock")) as served:
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "admin.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as http:
            made = await http.post("/v1/boxes", json={"name": "x"})
            limited = await http.post(
                "/v1/boxes", json={"name": "y"}, headers=await served.bearer("viewer")
            )

        assert (tmp_path / "admin.sock").stat().st_mode & 0o777 == 0o600
        assert made.status_code == 201
        assert limited.status_code == 403, "a token that is shown counts"
        assert [each[:2] for each in changes(served)] == [
            ("unix", "box.create"),
            ("token", "box.create"),
        ]


async def test_certificates_are_who_the_file_says(tmp_path: Path) -> None:
    authority = tmp_path / "ca"
    make_authority(authority)
    for name in ("node", "ada", "eve"):
        issue(authority, name, tmp_path / name, hosts=["127.0.0.1"])
    options = {
        "tls_certificate": "node/node.pem",
        "tls_key": "node/node.key",
        "tls_client_ca": "ca/ca.pem",
        "clients": {"ada": "operator"},
    }

    def context(name: str) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority / "ca.pem"))
        if name:
            made.load_cert_chain(tmp_path / name / "node.pem", tmp_path / name / "node.key")
        return made

    async with serving(tmp_path, **options) as served:
        assert served.server.endpoint.startswith("https://127.0.0.1:")
        async with client(served, verify=context("ada")) as http:
            assert (await http.post("/v1/boxes", json={"name": "x"})).status_code == 201
            assert (await http.delete("/v1/boxes/x")).status_code == 403
        async with client(served, verify=context("eve")) as http:
            assert (await http.get("/v1/boxes")).status_code == 401
            assert (await http.get("/v1/boxes", headers=await served.bearer())).status_code == 200
        async with client(served, verify=context("")) as http:
            with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                await http.get("/healthz")
        assert changes(served)[0][0] == "certificate"


def test_tokens_do_not_go_over_the_open_wire() -> None:
    with pytest.raises(ValueError, match="TLS only"):
        Config(listen=Address("0.0.0.0:9443"), allow_plaintext=True)
    with pytest.raises(ValueError, match="tls_client_ca"):
        Config(clients={"ada": "admin"})


async def test_pages_of_other_sites_are_refused(served: Served, http: httpx.AsyncClient) -> None:
    http.headers.update(await served.bearer())
    body = {"json": {"name": "x"}}
    theirs = await http.post("/v1/boxes", headers={"Origin": "https://evil.example"}, **body)
    null = await http.post("/v1/boxes", headers={"Origin": "null"}, **body)
    own = await http.post("/v1/boxes", headers={"Origin": served.server.endpoint}, **body)

    assert (problem(theirs)[0], problem(null)[0], own.status_code) == (403, 403, 201)


# About itself -------------------------------------------------------------------------------------


async def test_what_needs_no_token(served: Served, http: httpx.AsyncClient) -> None:
    found = {
        path: await http.get(path)
        for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz")
    }

    assert {answer.status_code for answer in found.values()} == {200}
    assert found["/docs"].headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in found["/docs"].headers["content-security-policy"]
    assert found["/openapi.json"].json()["openapi"] == "3.1.0"
    served.stopped.append("a disk is gone")
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert "a disk is gone" not in ready.text


async def test_metrics_are_open_where_the_file_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path, open_metrics=True) as served, client(served) as http:
        answer = await http.get("/metrics")

    assert (answer.status_code, answer.text) == (200, "boxes 1\n")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


# Long work ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/jsonl", "application/x-ndjson"])
async def test_progress_comes_in_lines(served: Served, http: httpx.AsyncClient, kind: str) -> None:
    headers = {**await served.bearer(), "Accept": kind}
    answer = await http.post("/v1/count", json={"count": 60}, headers=headers)
    lines = [msgspec.json.decode(line) for line in answer.text.splitlines()]

    assert answer.headers["content-type"] == kind
    assert lines[-1] == {"result": {"counted": 60}}
    assert [list(line) for line in lines[:-1]] == [["progress"]] * (len(lines) - 1)
    assert 1 < len(lines) < 60, "only the newest is told"


async def test_progress_comes_as_events(served: Served, http: httpx.AsyncClient) -> None:
    headers = {**await served.bearer(), "Accept": "text/event-stream"}
    answer = await http.post("/v1/count", json={"count": 2, "fail": True}, headers=headers)
    *events, end = answer.text.split("\n\n")

    assert end == ""
    assert events[0].startswith('event: progress\ndata: {"done":')
    assert events[-1].startswith("event: error\ndata: {")
    assert msgspec.json.decode(events[-1].partition("data: ")[2])["kind"] == "WarpError"


async def test_what_is_refused_before_it_begins_is_no_stream(
    served: Served, http: httpx.AsyncClient
) -> None:
    headers = {**await served.bearer("viewer"), "Accept": "application/jsonl"}

    assert problem(await http.post("/v1/count", headers=headers)) == (403, "PermissionDenied")


async def test_without_a_wish_the_answer_comes_at_the_end(
    served: Served, http: httpx.AsyncClient
) -> None:
    answer = await http.post("/v1/count", headers=await served.bearer())

    assert answer.json() == {"counted": 3}


@pytest.mark.parametrize("accept", ["application/jsonl", "*/*"])
async def test_closing_the_connection_cancels_the_work(served: Served, accept: str) -> None:
    headers = {**await served.bearer(), "Accept": accept}
    async with client(served) as http:
        asked = asyncio.ensure_future(http.post("/v1/count", json={"hang": True}, headers=headers))
        await condition(lambda: served.boxes.working == 1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    await condition(lambda: served.boxes.cancelled == 1)
    await condition(lambda: changes(served) == [("token", "count", "cancelled")])

    async with client(served) as http:
        assert (await http.post("/v1/count", headers=headers)).status_code == 200


async def test_too_much_at_once_is_told_to_come_again(tmp_path: Path) -> None:
    async with serving(tmp_path, requests_max=2) as served, client(served) as http:
        http.headers.update(await served.bearer())
        hanging = [
            asyncio.ensure_future(http.post("/v1/count", json={"hang": True})) for _ in range(2)
        ]
        await condition(lambda: served.boxes.working == 2)
        answer = await http.get("/v1/boxes")
        for each in hanging:
            each.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        await condition(lambda: served.boxes.working == 0)

        assert problem(answer) == (503, "Busy")
        assert answer.headers["retry-after"]
        await condition(lambda: served.boxes.cancelled == 2)
        assert (await http.get("/v1/boxes")).status_code == 200


async def test_the_end_of_the_server_ends_its_work(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, client(served) as http:
        headers = {**await served.bearer(), "Accept": "application/jsonl"}
        asked = asyncio.ensure_future(http.post("/v1/count", json={"hang": True}, headers=headers))
        await condition(lambda: served.boxes.working == 1)
        boxes = served.boxes
    assert (boxes.working, boxes.cancelled) == (0, 1)
    with pytest.raises(httpx.TransportError):
        await asked


# Limits -------------------------------------------------------------------------------------------


async def said(served: Served, data: bytes, *, stop: bool = False) -> bytes:
    host, _, port = served.server.endpoint.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        if stop:
            writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 60_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/3.7\r\nHost: x\r\n\r\n", b"505"),
        (
            b"POST /v1/boxes HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"400",
        ),
        (b"POST /v1/boxes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: cow\r\n\r\n", b"501"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(400), b"400"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
async def test_what_is_no_request_is_told_so_and_ends(
    served: Served, data: bytes, status: bytes
) -> None:
    answer = await said(served, data)

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in answer or b"connection: close" in answer.lower()
    assert b"application/problem+json" in answer


async def test_long_bodies_are_refused_and_the_client_hears_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path, body_max=Size(2000)) as served:
        token = (await served.bearer())["Authorization"].encode()
        head = b"POST /v1/boxes HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n" % token
        long = await said(served, head + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000)
        chunks = (b"FF\r\n" + b"y" * 255 + b"\r\n") * 20
        chunked = await said(served, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)

    assert long.startswith(b"HTTP/1.1 413")
    assert chunked.startswith(b"HTTP/1.1 413")


async def test_slow_clients_are_told_that_it_took_too_long(tmp_path: Path) -> None:
    options = {"head_timeout": 0.2, "stall_timeout": 0.2, "idle_timeout": 0.3}
    async with serving(tmp_path, **options) as served:
        token = (await served.bearer())["Authorization"].encode()
        head = await said(served, b"GET /healthz HTTP/1.1\r\nHo")
        body = await said(
            served,
            b"POST /v1/boxes HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\nContent-Length: 9\r\n\r\n{"
            % token,
        )
        silent = await said(served, b"")

    assert head.startswith(b"HTTP/1.1 408")
    assert body.startswith(b"HTTP/1.1 408")
    assert silent == b""


async def test_requests_behind_one_another_are_answered_in_order(served: Served) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await said(served, one * 5 + last)

    assert answer.count(b'{"alive":true}') == 6


async def test_who_only_asks_and_closes_its_half_is_answered(served: Served) -> None:
    answer = await said(served, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", stop=True)

    assert b'"ready":true' in answer


async def test_a_body_is_waited_for_with_100_continue(served: Served) -> None:
    token = (await served.bearer())["Authorization"].encode()
    head = (
        b"POST /v1/boxes HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\nExpect: 100-continue\r\n"
        b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: 12\r\n\r\n" % token
    )
    host, _, port = served.server.endpoint.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(20):
        writer.write(head)
        go_on = await reader.readuntil(b"\r\n\r\n")
        writer.write(b'{"name":"x"}')
        rest = await reader.read()
    writer.close()

    assert go_on.startswith(b"HTTP/1.1 100")
    assert rest.startswith(b"HTTP/1.1 201")


async def test_more_connections_than_there_may_be_are_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, connections_max=2) as served:
        host, _, port = served.server.endpoint.removeprefix("http://").partition(":")
        open_ = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        await condition(lambda: len(served.server._connections) == 2)
        refused = await said(served, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        for _, writer in open_:
            writer.close()
        await condition(lambda: len(served.server._connections) == 0)
        async with client(served) as http:
            assert (await http.get("/healthz")).status_code == 200

    assert refused == b""


async def test_a_change_that_cannot_be_put_on_record_is_refused(
    served: Served, http: httpx.AsyncClient
) -> None:
    (served.folder / "audit").write_text("in the way")
    http.headers.update(await served.bearer())
    answer = await http.post("/v1/boxes", json={"name": "x"})

    assert problem(answer) == (500, "StoreFailed")
    assert "audit log" in answer.json()["detail"]
    assert served.boxes.sizes == {}
