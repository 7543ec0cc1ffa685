"""Requests that name very much at once: a thousand keys to delete, ten thousand parts to join."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import http.client
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from warp_core.config import Address
from warp_core.config.load import load
from warp_core.contexts import ProtocolContext
from warp_core.interfaces.auth import SYSTEM
from warp_core.node.assembly import Node, open_node
from warp_core.plugins import Plugins
from warp_core.views.objects import Attributes, Digests
from warp_integration.server import ACCESS_KEY, SECRET_KEY
from warp_s3.config import Config
from warp_s3.server import Server

pytestmark = pytest.mark.workspace

VOLUME = "large"
PART = 5 << 20
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Running:
    """A node with the `local` engine in this process, and its endpoint."""

    node: Node
    host: str

    async def post(self, path: str, body: bytes) -> bytes:
        """Send a signed document, return the answer's body; a refusal fails."""
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        request = AWSRequest("POST", f"http://{self.host}{path}", {"Content-MD5": md5}, body)
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1").add_auth(request)

        def send() -> bytes:
            connection = http.client.HTTPConnection(self.host, timeout=200)
            connection.request("POST", path, body, dict(request.headers.items()))
            answer = connection.getresponse()
            told = answer.read()
            connection.close()
            assert answer.status == 200, told[:2000]
            return told

        return await asyncio.to_thread(send)

    def commits(self) -> int:
        """Return how many commits there have been."""
        view = self.node.data.metastore.view()
        try:
            return view.version
        finally:
            view.close()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Running]:
    environ = {
        "WARP_DATA": str(folder),
        "WARP_ACCESS_KEY": ACCESS_KEY,
        "WARP_SECRET_KEY": SECRET_KEY,
    }
    plugins = Plugins()
    settings = load(None, catalog=plugins, environ=environ, options=[])
    async with open_node(settings, plugins, serve=False) as node:
        context = ProtocolContext(
            node="large",
            data=folder,
            objects=node.objects,
            files=node.files,
            blocks=node.blocks,
            authenticator=node.authenticator,
            metrics=node.data.metrics,
            drain_s=1.0,
        )
        async with Server(Config(listen=Address("127.0.0.1:0")), context) as server:
            await node.objects.create_volume(VOLUME, owner=SYSTEM)
            yield Running(node, server.endpoint.partition("//")[2])


async def test_a_thousand_keys_are_deleted_in_few_commits_and_syncs(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        objects, journal = here.node.objects, here.node.data.journal
        names = [f"folder {n // 300}/{n:04d}" for n in range(1000)]
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            puts = [
                objects.put(VOLUME, name.encode(), b"content", Attributes(), Digests(etag="0"))
                for name in some
            ]
            await asyncio.gather(*puts)
        rows = "".join(f"<Object><Key>{name}</Key></Object>" for name in names)

        commits, syncs = here.commits(), journal.batches_written
        answer = await here.post(f"/{VOLUME}?delete=", f"<Delete>{rows}</Delete>".encode())
        commits, syncs = here.commits() - commits, journal.batches_written - syncs

        deleted = [each.text for each in ElementTree.fromstring(answer).iter() if "Key" in each.tag]
        assert deleted == names
        assert not (await objects.list(VOLUME)).entries
        print(f"{commits} commits, {syncs} syncs")
        assert commits <= 64
        assert (
            syncs <= 16
        )  # four rounds of sixteen commits; five at rest, and some commits may just miss a sync


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_completing_costs_less_than_half_of_what_storing_the_parts_did(
    tmp_path: Path, count: int
) -> None:
    async with running(tmp_path) as here:
        objects = here.node.objects
        block = hashlib.shake_128(b"block").digest(PART)
        etag = hashlib.md5(block, usedforsecurity=False).hexdigest()
        writer = await objects.writer(VOLUME, b"block", Attributes(), size=PART)
        await writer.write(block)
        await writer.commit(Digests(etag=etag))
        upload = (await objects.create_upload(VOLUME, b"whole", Attributes())).upload

        async def part(number: int) -> None:  # a reference: fifty gigabytes take no space
            await objects.copy_part(
                VOLUME, b"block", VOLUME, b"whole", upload, number, digests=Digests(etag=etag)
            )

        stored = time.process_time()
        for start in range(1, count + 1, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, count + 1))
            await asyncio.gather(*[part(number) for number in numbers])
        stored = time.process_time() - stored
        rows = "".join(
            f'<Part><PartNumber>{n}</PartNumber><ETag>"{etag}"</ETag></Part>'
            for n in range(1, count + 1)
        )
        document = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        gc.collect()

        completed = time.process_time()
        answer = await here.post(f"/{VOLUME}/whole?uploadId={upload}", document)
        completed = time.process_time() - completed

        joined = hashlib.md5(bytes.fromhex(etag) * count, usedforsecurity=False).hexdigest()
        assert f"{joined}-{count}".encode() in answer
        reader = await objects.open(VOLUME, b"whole")
        assert reader.info.size == count * PART
        for at in (0, (count - 1) * PART, (count // 2) * PART + 12_345):
            piece = bytes(await reader.read(at, 1000))
            inside = at % PART
            assert piece == block[inside : inside + len(piece)]
        reader.close()
        print(f"{count} parts: stored in {stored:.2f} s of CPU, completed in {completed:.2f} s")
        assert completed < stored / 2
