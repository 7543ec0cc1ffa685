"""S3 load that knows what it was promised.

A few workers, each with one connection and keys of its own, and some keys that all of them compete for, do everything that changes
objects: PUT, overwrite, DELETE one and many, copy, multipart, conditional writes, versions. Each change is noted in a
ledger before it is asked for and right after its answer. Every body names itself, so that whatever is read later
is either exactly one body that was sent for that key, or it is mixed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from warp_integration.powercut.ledger import ABSENT, Finding, Ledger, Operation
from warp_integration.s3client import ConnectionLost, Response, S3Connection, content_md5

PLAIN = "load"
VERSIONED = "versions"
PART_MIN = 5 << 20  # S3's least size of a part that is not the last
SIZES = (0, 1, 300, 1000, 4096, 5000, 20_000, 131_072, 1_000_000)
WEIGHTS = (1, 2, 6, 6, 10, 6, 6, 3, 1)
_HEADER = "x-amz-meta-content"
_HANG_S = 120.0  # within which as much is acknowledged as was wished, on any machine


def body_of(content: str, size: int) -> bytes:
    """Return the body of about `size` bytes that names itself `content`; never shorter than that name."""
    head = f"{content}\n".encode()
    return head + random.Random(content).randbytes(max(0, size - len(head)))


def identify(body: bytes) -> str:
    """Return the name of a body, or, if it is not exactly what that name stands for, what is wrong with it."""
    head, _, _ = body.partition(b"\n")
    content = head.decode("latin-1")
    if body == body_of(content, len(body)):
        return content
    return f"{len(body)} bytes that begin as {body[:40]!r} and are not that"


@dataclass(frozen=True, slots=True)
class _Swap:
    """A conditional overwrite that was acknowledged."""

    key: str
    old_etag: str
    new_etag: str


class S3Load:
    """Load on one endpoint, resumable on the next start of the same server.

    Args:
        ledger: Where everything is noted.
        seed: Decides every choice; with several workers, not how they interleave.
        workers: How many connections.
        keys: How many keys each worker has to itself; few, so that most operations overwrite.
        parts: How many parts of PART_MIN a multipart upload has before its last; 0 keeps the trace of a power cut small.
    """

    def __init__(
        self, ledger: Ledger, *, seed: int, workers: int = 6, keys: int = 8, parts: int = 0
    ) -> None:
        self.ledger = ledger
        self.findings: list[Finding] = []
        """What was wrong while the load ran: stale reads, conditional writes that overwrote each other."""
        self.answers: Counter[str] = Counter()
        """How many answers of each kind: "PUT 200", "PUT 503 SlowDown"."""
        self._workers = workers
        self._keys = keys
        self._parts = parts
        self._rng = random.Random(seed)
        self._serial = 0
        self._swaps: list[_Swap] = []

    async def prepare(self, endpoint: str) -> None:
        """Create the buckets, unless they are there."""
        async with S3Connection(endpoint) as s3:
            for bucket in (PLAIN, VERSIONED):
                answer = await s3.request("PUT", f"/{bucket}")
                if answer.status != 200 and answer.code != "BucketAlreadyOwnedByYou":
                    raise RuntimeError(f"create {bucket}: {answer}")
            body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
            path, query = f"/{VERSIONED}", {"versioning": ""}
            answer = await s3.request("PUT", path, query=query, body=body)
            if answer.status != 200:
                raise RuntimeError(f"enable versioning: {answer}")

    async def run(
        self, endpoint: str, *, seconds: float, operations: int = 1 << 30, acknowledged: int = 0
    ) -> None:
        """Load `endpoint` until time or operations (of each worker) are over, or the server is gone.

        Time is not over before as many more operations are `acknowledged`: a busy machine takes longer.
        """
        loop = asyncio.get_running_loop()
        began, wanted = loop.time(), self.ledger.acknowledged() + acknowledged

        def over() -> bool:
            passed = loop.time() - began
            return passed > seconds and (
                not acknowledged or self.ledger.acknowledged() >= wanted or passed > _HANG_S
            )

        rngs = [random.Random(self._rng.getrandbits(64)) for _ in range(self._workers)]

        async def work(number: int, rng: random.Random) -> None:
            async with S3Connection(endpoint) as s3:
                worker = _Worker(self, s3, number, rng)
                for _ in range(operations):
                    if over():
                        return
                    try:
                        await worker.step()
                    except ConnectionLost:
                        return

        async with asyncio.TaskGroup() as group:
            for number, rng in enumerate(rngs):
                group.create_task(work(number, rng))

    def check_swaps(self) -> list[Finding]:
        """Return the conditional overwrites that both replaced the same content: one of them is lost."""
        first: dict[tuple[str, str], _Swap] = {}
        findings = []
        for swap in self._swaps:
            other = first.setdefault((swap.key, swap.old_etag), swap)
            if other is not swap:
                findings.append(Finding("lost", swap.key, swap.new_etag, (other.new_etag,)))
        return findings

    def next_content(self, key: str) -> str:
        """Return a name for a body that was never used before."""
        self._serial += 1
        return f"{key}~{self._serial}"


class _Worker:
    """One connection's part of the load."""

    def __init__(self, load: S3Load, s3: S3Connection, number: int, rng: random.Random) -> None:
        self._load = load
        self._ledger = load.ledger
        self._s3 = s3
        self._rng = rng
        self._own = [f"{PLAIN}/w{number}/k{n:02}" for n in range(load._keys)]
        self._versioned = [f"{VERSIONED}/w{number}/k{n}" for n in range(3)]
        self._shared = [f"{PLAIN}/shared/{n}" for n in range(3)]
        self._verbs: tuple[Callable[[], Awaitable[None]], ...] = (
            self._put,
            self._get,
            self._delete,
            self._delete_many,
            self._copy,
            self._multipart,
            self._create,
            self._swap,
            self._put_version,
            self._delete_version,
        )
        self._version_ids: dict[str, str] = {}  # ledger key of a version → its id

    async def step(self) -> None:
        """Do one thing."""
        await self._rng.choices(self._verbs, (40, 15, 10, 3, 8, 4, 6, 10, 8, 2))[0]()

    async def _request(self, method: str, path: str, **more: object) -> Response:
        answer = await self._s3.request(method, path, **more)  # type: ignore[arg-type]
        self._load.answers[f"{method} {answer.status} {answer.code}".strip()] += 1
        return answer

    def _end(self, operation: Operation, answer: Response) -> bool:
        """Note how an operation ended; S3 may say 200 and then send an error in the body."""
        if answer.status in (200, 204) and b"<Error>" not in answer.body[:200]:
            self._ledger.acknowledge(operation)
            return True
        if answer.status in (404, 409, 412):
            self._ledger.refuse(operation)
        else:
            self._ledger.doubt(operation)
        return False

    def _size(self) -> int:
        return self._rng.choices(SIZES, WEIGHTS)[0]

    async def _write(self, key: str, headers: Mapping[str, str]) -> tuple[Response, bool]:
        content = self._load.next_content(key)
        body = body_of(content, self._size())
        operation = self._ledger.begin(key, content)
        headers = {_HEADER: content, **headers}
        answer = await self._request("PUT", f"/{key}", headers=headers, body=body)
        done = self._end(operation, answer)
        if done and answer.headers.get("etag", "").strip('"') != content_md5(body):
            self._blame("mixed", key, f"ETag {answer.headers.get('etag')}", content_md5(body))
        return answer, done

    async def _put(self) -> None:
        await self._write(self._rng.choice(self._own), {})

    async def _get(self) -> None:
        """Read a key that nobody else writes: what was acknowledged last, or what is in doubt since."""
        key = self._rng.choice(self._own)
        seen = await read_object(self._s3, f"/{key}")
        self._load.findings += [f for f in self._ledger.judge({key: seen}) if f.key == key]

    async def _delete(self) -> None:
        key = self._rng.choice(self._own)
        operation = self._ledger.begin(key, ABSENT)
        self._end(operation, await self._request("DELETE", f"/{key}"))

    async def _delete_many(self) -> None:
        keys = self._rng.sample(self._own, 3)
        operations = {key: self._ledger.begin(key, ABSENT) for key in keys}
        inner = "".join(f"<Object><Key>{k.partition('/')[2]}</Key></Object>" for k in keys)
        body = f"<Delete>{inner}</Delete>".encode()
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        query, headers = {"delete": ""}, {"Content-MD5": md5}
        answer = await self._request("POST", f"/{PLAIN}", query=query, headers=headers, body=body)
        deleted = answer.texts("Deleted/Key") if answer.status == 200 else []
        for key, operation in operations.items():
            if key.partition("/")[2] in deleted:
                self._ledger.acknowledge(operation)
            else:
                self._ledger.doubt(operation)

    async def _copy(self) -> None:
        source, target = self._rng.sample(self._own, 2)
        there = self._ledger.allowed(source)
        if len(there) != 1 or there == (ABSENT,):
            return
        operation = self._ledger.begin(target, there[0])
        headers = {"x-amz-copy-source": f"/{source}"}
        self._end(operation, await self._request("PUT", f"/{target}", headers=headers))

    async def _multipart(self) -> None:
        key = self._rng.choice(self._own)
        content = self._load.next_content(key)
        body = body_of(content, self._load._parts * PART_MIN + self._size())
        headers = {_HEADER: content}
        begun = await self._request("POST", f"/{key}", query={"uploads": ""}, headers=headers)
        if begun.status != 200:
            return
        upload = begun.texts("UploadId")[0]
        etags = []
        for number, at in enumerate(range(0, len(body), PART_MIN), start=1):
            query = {"partNumber": str(number), "uploadId": upload}
            part = body[at : at + PART_MIN]
            answer = await self._request("PUT", f"/{key}", query=query, body=part)
            if answer.status != 200:
                return
            etags.append(answer.headers["etag"])
        if self._rng.random() < 0.1:
            await self._request("DELETE", f"/{key}", query={"uploadId": upload})
            return
        inner = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in enumerate(etags, start=1)
        )
        complete = f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()
        operation = self._ledger.begin(key, content)
        query = {"uploadId": upload}
        self._end(operation, await self._request("POST", f"/{key}", query=query, body=complete))

    async def _create(self) -> None:
        """Create a key that must not exist; our own knowledge says what the answer has to be."""
        key = self._rng.choice(self._own)
        before = self._ledger.allowed(key)
        answer, done = await self._write(key, {"If-None-Match": "*"})
        if done and ABSENT not in before:
            self._blame("lost", key, "created over an object", *before)
        if answer.status == 412 and before == (ABSENT,):
            self._blame("mixed", key, "refused though absent", *before)

    async def _swap(self) -> None:
        """Replace exactly what was read, against the other workers."""
        key = self._rng.choice(self._shared)
        current = await self._request("HEAD", f"/{key}")
        if current.status == 404:
            await self._write(key, {"If-None-Match": "*"})
        elif current.status == 200:
            etag = current.headers["etag"]
            answer, done = await self._write(key, {"If-Match": etag})
            if done:
                self._load._swaps.append(_Swap(key, etag, answer.headers["etag"]))

    async def _put_version(self) -> None:
        key = self._rng.choice(self._versioned)
        content = self._load.next_content(key)
        version = f"{key}#{content}"
        operation = self._ledger.begin(version, content)
        headers, body = {_HEADER: content}, body_of(content, self._size())
        answer = await self._request("PUT", f"/{key}", headers=headers, body=body)
        if self._end(operation, answer):
            self._version_ids[version] = answer.headers["x-amz-version-id"]

    async def _delete_version(self) -> None:
        if not self._version_ids:
            return
        version, version_id = self._version_ids.popitem()
        operation = self._ledger.begin(version, ABSENT)
        path = "/" + version.partition("#")[0]
        query = {"versionId": version_id}
        self._end(operation, await self._request("DELETE", path, query=query))

    def _blame(self, kind: str, key: str, seen: str, *allowed: str) -> None:
        self._load.findings.append(Finding(kind, key, seen, allowed))


async def read_object(s3: S3Connection, path: str, query: Mapping[str, str] | None = None) -> str:
    """Return the content of an object as a ledger names it, or what is wrong with it."""
    answer = await s3.request("GET", path, query=query)
    if answer.status == 404:
        return ABSENT
    if answer.status != 200:
        return f"error {answer.status} {answer.code}"
    content = identify(answer.body)
    described = answer.headers.get(_HEADER, "")
    if content != described:
        return f"{content} described as {described!r}"
    etag = answer.headers.get("etag", "").strip('"')
    if "-" not in etag and etag != content_md5(answer.body):
        return f"{content} with ETag {etag}"
    return content


async def read_everything(endpoint: str, keys: list[str]) -> dict[str, str]:
    """Return the content of every object and version that is there, as ledger keys.

    Reads what the listings name and also `keys`, the ledger's: listing and reading have to agree.
    """
    seen: dict[str, str] = {}
    async with S3Connection(endpoint) as s3:
        listed = await _list(s3)
        plain = {key for key in keys if key.startswith(f"{PLAIN}/")} | listed
        for key in sorted(plain):
            seen[key] = await _read_or_say(s3, f"/{key}")
            if (seen[key] != ABSENT) != (key in listed):
                seen[key] += " though listed" if key in listed else " though not listed"
        for key, version_id in await _list_versions(s3):
            content = await _read_or_say(s3, f"/{key}", {"versionId": version_id})
            seen[f"{key}#{content}"] = content
    return seen


async def _read_or_say(s3: S3Connection, path: str, query: Mapping[str, str] | None = None) -> str:
    """As `read_object`; an answer that breaks off, as one must whose data turns out damaged, is a content of its own."""
    try:
        return await read_object(s3, path, query)
    except ConnectionLost as error:
        return f"cut off: {error}"


async def _list(s3: S3Connection) -> set[str]:
    keys: set[str] = set()
    query = {"list-type": "2", "max-keys": "100"}
    while True:
        answer = await s3.request("GET", f"/{PLAIN}", query=query)
        if answer.status == 404:
            return keys
        if answer.status != 200:
            raise ConnectionLost(f"list: {answer.status} {answer.code}")
        keys |= {f"{PLAIN}/{key}" for key in answer.texts("Contents/Key")}
        more = answer.texts("NextContinuationToken")
        if not more:
            return keys
        query["continuation-token"] = more[0]


async def _list_versions(s3: S3Connection) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    query = {"versions": "", "max-keys": "100"}
    while True:
        answer = await s3.request("GET", f"/{VERSIONED}", query=query)
        if answer.status == 404:
            return found
        if answer.status != 200:
            raise ConnectionLost(f"list versions: {answer.status} {answer.code}")
        names, ids = answer.texts("Version/Key"), answer.texts("Version/VersionId")
        found += [(f"{VERSIONED}/{k}", v) for k, v in zip(names, ids, strict=True)]
        if answer.texts("IsTruncated") != ["true"]:
            return found
        query["key-marker"] = answer.texts("NextKeyMarker")[0]
        query["version-id-marker"] = answer.texts("NextVersionIdMarker")[0]


async def settle(load: S3Load, endpoint: str) -> list[Finding]:
    """After a restart: judge what is there, then take it as known. Returns what is wrong, now or during the load."""
    seen = await read_everything(endpoint, load.ledger.used_keys())
    findings = load.findings + load.ledger.judge(seen) + load.check_swaps()
    load.findings = []
    for key in dict.fromkeys([*load.ledger.used_keys(), *seen]):
        load.ledger.observe(key, seen.get(key, ABSENT))
    return findings


__all__ = [
    "S3Load",
    "body_of",
    "identify",
    "read_everything",
    "read_object",
    "settle",
]
