"""The Objects kit on the namespace over engines in memory."""

from __future__ import annotations

import pytest
from warp_conformance.kits.objects import ObjectsKit, Reopen, Usage
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Objects


class TestNamespaceObjects(ObjectsKit):
    @pytest.fixture
    def subject(self, namespace: Namespace) -> Objects:
        return NamespaceObjects(namespace)

    @pytest.fixture
    def usage(self, namespace: Namespace) -> Usage:
        async def of(volume: str) -> tuple[int, int, int, int]:
            found = await namespace.usage(volume)
            return found[:4]

        return of

    @pytest.fixture
    def reopen(self, namespace: Namespace) -> Reopen:
        """Forget what memory has; the engines stay, since theirs is memory."""

        async def again() -> Objects:
            return NamespaceObjects(Namespace(namespace.store, namespace.containers))

        return again
