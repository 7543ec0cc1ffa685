"""Everything together, against a dictionary."""

from __future__ import annotations

from hypothesis import strategies as st
from warp_core.errors import AlreadyExists, InvalidArgument, NotFound, WarpError
from warp_core.interfaces.stores import BlobStore

from warp_conformance.difference import same
from warp_conformance.kit import given
from warp_conformance.kits.stores.stage import NAMES, BlobStorePart, names, noise


class Sequences(BlobStorePart, kit=True):
    """Everything together, against a dictionary."""

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "delete", "read", "create", "write", "seal", "list"]),
                st.sampled_from(NAMES),
                st.integers(0, 9_000),
                st.integers(0, 9_000),
            ),
            max_size=40,
        )
    )
    async def test_any_sequence_of_calls_ends_as_in_a_dictionary(
        self, subject: BlobStore, steps: list[tuple[str, str, int, int]]
    ) -> None:
        grow = subject.capabilities.grow
        for info in await subject.list():  # of an example that failed
            await subject.delete(info.name)
        model: dict[str, bytearray] = {}
        growing: set[str] = set()
        for number, (verb, name, first, second) in enumerate(steps):
            expected: type[WarpError] | None = NotFound if name not in model else None
            try:
                if verb == "put":
                    expected = None
                    data = noise(first, number)
                    await subject.put(name, [data[: first // 2], data[first // 2 :]])
                    model[name] = bytearray(data)
                    growing.discard(name)
                elif verb == "delete":
                    await subject.delete(name)
                    del model[name]
                    growing.discard(name)
                elif verb == "read":
                    got = await subject.read(name, offset=first, length=second)
                    assert got == model[name][first : first + second]
                    now = subject.read_now(name, offset=first, length=second)
                    assert now in (None, got)
                elif verb == "list":
                    expected = None
                    found = [(info.name, info.size) for info in await subject.list(name, after="a")]
                    assert found == sorted(
                        (n, len(d)) for n, d in model.items() if n.startswith(name) and n > "a"
                    )
                elif grow and verb == "create":
                    expected = AlreadyExists if name in model else None
                    await subject.create(name, reserve=first)
                    model[name] = bytearray(first)
                    growing.add(name)
                elif grow and verb == "write":
                    expected = expected or (None if name in growing else InvalidArgument)
                    data = noise(second, number)
                    await subject.write(name, offset=first, buffers=[data])
                    blob = model[name]
                    if first > len(blob) and data:
                        blob.extend(bytes(first - len(blob)))
                    blob[first : first + len(data)] = data
                elif grow and verb == "seal" and name in growing:
                    size = min(first, len(model[name]))
                    await subject.seal(name, size=size)
                    del model[name][size:]
                    growing.discard(name)
                else:
                    continue
            except WarpError as error:
                raised: type = type(error)
            else:
                raised = type(None)
            assert issubclass(raised, expected or type(None)), f"{verb} {name}"
        for name, blob in model.items():
            assert same(await subject.read(name, offset=0, length=1 << 20), blob)
        assert await names(subject) == sorted(model)
        for name in model:
            await subject.delete(name)
