"""The limits of a store in memory."""

from __future__ import annotations

import pytest
from warp_core.config.types import Size
from warp_core.errors import ConfigError, NoSpace
from warp_store_memory import Config, Memory


async def test_space_is_counted_through_every_change() -> None:
    store = Memory(Config(capacity=Size(10_000), reserve=Size(1_000)))
    await store.put("a", [bytes(2_000)])
    await store.put("a", [bytes(500)])
    await store.create("g", reserve=3_000)
    await store.write("g", offset=2_900, buffers=[bytes(200)])
    await store.seal("g", size=1_000)

    assert await store.space() == (10_000, 7_500, 1_000)
    with pytest.raises(NoSpace):
        await store.put("b", [bytes(7_501)])
    await store.put("b", [bytes(8_500)], vital=True)
    for name in ("a", "b", "g"):
        await store.delete(name)
    assert await store.space() == (10_000, 9_000, 1_000)


def test_a_reserve_larger_than_the_store_is_refused() -> None:
    with pytest.raises(ConfigError, match="reserve"):
        Memory(Config(capacity=Size(10), reserve=Size(11)))
