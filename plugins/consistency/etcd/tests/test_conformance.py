"""The kit of metadata engines, on one member and on a cluster of three."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from warp_conformance.kits.consistency import Make, MetaStoreKit
from warp_core.interfaces.consistency import MetaStore
from warp_etcd.config import Config
from warp_etcd.engine import Etcd


def maker(servers: Any, prefix: str, folder: Path) -> Make:
    def opened() -> AbstractAsyncContextManager[MetaStore]:
        endpoints = tuple(server.endpoint for server in servers)
        return Etcd(Config(endpoints=endpoints, prefix=prefix), folder)

    return opened


class TestOneMember(MetaStoreKit):
    @pytest.fixture
    def make(self, one_member: Any, prefix: str, tmp_path: Path) -> Make:
        return maker(one_member, prefix, tmp_path)


class TestThreeMembers(MetaStoreKit):
    @pytest.fixture
    def make(self, three_members: Any, prefix: str, tmp_path: Path) -> Make:
        return maker(three_members, prefix, tmp_path)
