"""The rules of adoption: kit tests are gated by capabilities, never hidden, and limited in time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

import pytest
from warp_conformance import Kit, KitOverridden, given, known_failure, refused, requires
from warp_conformance.report import check_classes
from warp_core.errors import Unsupported


@dataclass(frozen=True)
class Capabilities:
    watch: bool = False


class Thing:
    def __init__(self, *, watch: bool = False) -> None:
        self.capabilities = Capabilities(watch)

    async def watch(self) -> int:
        if not self.capabilities.watch:
            raise Unsupported("no")
        return 1


class ThingKit(Kit, kit=True):
    def test_plain(self, subject: Thing) -> None:
        assert subject

    async def test_waits(self, subject: Thing) -> None:
        await asyncio.sleep(0)

    @requires(watch=True)
    async def test_watches(self, subject: Thing) -> None:
        assert await subject.watch() == 1

    @requires(watch=False)
    async def test_refuses_to_watch(self, subject: Thing) -> None:
        with refused():
            await subject.watch()


class OnThing(ThingKit):
    @pytest.fixture
    async def subject(self) -> Thing:
        return Thing()


class OnWatcher(ThingKit):
    @pytest.fixture
    def subject(self) -> Thing:
        return Thing(watch=True)


def outcomes(*classes: type[Kit]) -> dict[str, str]:
    report = check_classes({f"Test{adopted.__name__}": adopted for adopted in classes})
    assert report.error == ""
    return {result.test: result.outcome for result in report.results}


def test_what_is_not_claimed_has_to_be_refused() -> None:
    assert outcomes(OnThing)["test_refuses_to_watch"] == "passed"
    assert outcomes(OnThing)["test_watches"] == "skipped"


def test_what_is_claimed_has_to_work() -> None:
    assert outcomes(OnWatcher)["test_watches"] == "passed"
    assert outcomes(OnWatcher)["test_refuses_to_watch"] == "skipped"


def test_a_capability_that_does_not_exist_fails() -> None:
    class AskingKit(Kit, kit=True):
        @requires(wathc=True)
        def test_misspelt(self, subject: Thing) -> None: ...

    class OnAsking(AskingKit):
        subject = OnThing.subject

    assert outcomes(OnAsking) == {"test_misspelt": "failed"}


def test_a_kit_without_subject_fails() -> None:
    class Forgot(ThingKit):
        pass

    assert outcomes(Forgot)["test_plain"] == "failed"


def test_a_kit_test_cannot_be_replaced() -> None:
    with pytest.raises(KitOverridden, match=r"Sly\.test_plain hides a test of ThingKit"):

        class Sly(OnThing):
            def test_plain(self, subject: Thing) -> None: ...


def test_a_kit_test_cannot_be_removed() -> None:
    with pytest.raises(KitOverridden):
        type("Sly", (OnThing,), {"test_plain": None})


def test_a_kit_test_cannot_be_hidden_by_a_mixin() -> None:
    class Mixin:
        def test_plain(self) -> None: ...

    with pytest.raises(KitOverridden):
        type("Sly", (Mixin, OnThing), {})


def test_a_kit_cannot_replace_the_test_of_another() -> None:
    with pytest.raises(KitOverridden):

        class SlyKit(OnThing, kit=True):
            def test_plain(self, subject: Thing) -> None: ...


def test_the_gate_cannot_be_replaced() -> None:
    with pytest.raises(KitOverridden):
        type("Sly", (OnThing,), {"_gate": None})


def test_a_whole_adoption_cannot_be_expected_to_fail() -> None:
    with pytest.raises(KitOverridden):
        type("Sly", (OnThing,), {"pytestmark": pytest.mark.xfail(reason="none")})


@pytest.mark.parametrize(
    "mark", [pytest.mark.xfail, pytest.mark.xfail(reason="so"), pytest.mark.xfail(strict=True)]
)
def test_an_expected_failure_needs_a_reason_and_strictness(mark: pytest.MarkDecorator) -> None:
    def test_plain(self: Kit) -> None: ...

    with pytest.raises(KitOverridden):
        type("Sly", (OnThing,), {"test_plain": mark(test_plain)})


def test_a_known_failure_fails_once_it_passes() -> None:
    class Known(OnThing):
        test_plain = known_failure(ThingKit.test_plain, reason="it was broken")

    assert outcomes(Known)["test_plain"] == "failed"
    assert outcomes(OnThing)["test_plain"] == "passed"


def test_a_known_failure_is_reported_as_such() -> None:
    class Known(OnThing):
        test_watches = known_failure(ThingKit.test_watches, reason="watching is broken")

        @pytest.fixture
        def subject(self) -> Thing:
            thing = Thing()
            object.__setattr__(thing.capabilities, "watch", True)
            thing.watch = lambda: asyncio.sleep(0, result=2)  # type: ignore[method-assign]
            return thing

    report = check_classes({"TestKnown": Known})

    assert report.passed
    assert {r.test: r.detail for r in report.results}["test_watches"] == "watching is broken"


def test_waiting_for_ever_fails() -> None:
    class SlowKit(Kit, kit=True):
        time_limit_s = 0.2

        async def test_waits(self, subject: Thing) -> None:
            await asyncio.Event().wait()

        def test_spins(self, subject: Thing) -> None:
            while True:
                time.sleep(0.001)

        @given()
        async def test_waits_by_example(self, subject: Thing) -> None:
            await asyncio.Event().wait()

    class OnSlow(SlowKit):
        subject = OnThing.subject

    assert set(outcomes(OnSlow).values()) == {"failed"}
    assert len(outcomes(OnSlow)) == 3


def test_what_closes_a_subject_may_wait_for_ever_too() -> None:
    class StubbornKit(Kit, kit=True):
        time_limit_s = 0.2

        async def test_waits(self, subject: Thing) -> None:
            for _ in range(3):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            await asyncio.Event().wait()

    class OnStubborn(StubbornKit):
        subject = OnThing.subject

    assert outcomes(OnStubborn) == {"test_waits": "failed"}
