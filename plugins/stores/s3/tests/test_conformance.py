"""The store kit on buckets of three servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from warp_conformance.kits.stores import BlobStoreKit, Reopen
from warp_core.interfaces.stores import BlobStore
from warp_store_s3 import Config, S3Store


class OnEndpoint(BlobStoreKit, kit=True):
    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    async def reopen(
        self, url: str, configured: Callable[..., Config], tmp_path: Path
    ) -> AsyncIterator[Reopen]:
        stack = AsyncExitStack()

        async def again() -> BlobStore:
            await stack.aclose()
            return await stack.enter_async_context(S3Store(configured(url), tmp_path))

        yield again
        await stack.aclose()

    @pytest.fixture
    async def subject(self, reopen: Reopen) -> BlobStore:
        return await reopen()


@pytest.mark.workspace
class TestOnWarp(OnEndpoint):
    @pytest.fixture
    def url(self, warp_url: str) -> str:
        return warp_url


@pytest.mark.slow
class TestOnMoto(OnEndpoint):
    @pytest.fixture
    def url(self, moto_url: str) -> str:
        return moto_url


@pytest.mark.slow
@pytest.mark.workspace
class TestOnSeaweed(OnEndpoint):
    @pytest.fixture
    def url(self, weed_url: str) -> str:
        return weed_url
