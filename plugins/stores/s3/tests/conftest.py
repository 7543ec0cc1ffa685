"""Endpoints, one of each kind for all tests of a module; every test has a prefix of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from warp_core.config.types import Duration, Size
from warp_store_s3 import Config

sys.path.insert(0, str(Path(__file__).parent))
import endpoints

Configured = Callable[..., Config]


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with endpoints.moto() as url:
        endpoints.make_bucket(url)
        yield url


@pytest.fixture(scope="module")
def warp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with endpoints.warp(tmp_path_factory.mktemp("warp")) as url:
        endpoints.make_bucket(url)
        yield url


@pytest.fixture(scope="module")
def weed_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with endpoints.weed(tmp_path_factory.mktemp("weed")) as url:
        endpoints.make_bucket(url)
        yield url


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", endpoints.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", endpoints.SECRET_KEY)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


@pytest.fixture
def configured(request: pytest.FixtureRequest) -> Configured:
    prefix = f"t{abs(hash(request.node.nodeid)):x}"

    def make(url: str, **options: object) -> Config:
        given: dict[str, object] = {
            "endpoint": url,
            "bucket": endpoints.BUCKET,
            "prefix": prefix,
            "part": Size(5 << 20),
            "wait": Duration(0.1),
            "retries": 1,
        }
        return Config(**{**given, **options})  # type: ignore[arg-type]

    return make
