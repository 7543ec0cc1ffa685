"""What a kit is: test methods on one interface, adopted by subclass, gated by what the subject claims."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as hypothesis_given
from hypothesis.strategies import SearchStrategy
from warp_core.errors import Unsupported
from warp_core.registry import Entry, NoConfig

TIME_LIMIT_S = (
    30.0  # of one kit test: a subject that loses a wake-up fails instead of hanging the run
)
CANCELLATIONS_MAX = 50  # of a test that is late: each may end one wait of what closes the subject
CANCELLATION_S = 0.1  # between them

Test = TypeVar("Test", bound=Callable[..., Any])


class KitOverridden(TypeError):
    """A subclass hides a test of the kit that it adopts."""


class Kit:
    """Base of all kits. A kit is declared with `class FilterKit(Kit, kit=True)`, and adopted by a subclass that gives `subject`.

    Kit tests are the interface's law: a subclass can neither replace nor remove one. What is known to fail is marked with
    `known_failure(FilterKit.test_..., reason="...")`, which fails as soon as the test passes.
    """

    time_limit_s: ClassVar[float] = TIME_LIMIT_S

    def __init_subclass__(cls, *, kit: bool = False, **rest: Any) -> None:
        """Check that no kit test is hidden; give each asynchronous one a time limit."""
        super().__init_subclass__(**rest)
        if kit:
            cls.__kit__ = True
            for name, test in list(vars(cls).items()):
                if name.startswith("test"):
                    setattr(cls, name, _limited(test))
        _check_overrides(cls)

    __kit__: ClassVar[bool] = False

    @pytest.fixture
    def subject(self) -> object:
        """Yield the open thing under test; every adoption gives its own."""
        raise NotImplementedError(
            f"{type(self).__name__} adopts a kit: give it a fixture `subject`"
        )

    @pytest.fixture(autouse=True)
    def _gate(self, request: pytest.FixtureRequest) -> None:
        """Skip a test that is about another set of capabilities than the subject claims."""
        wanted = required(request.node)
        if not wanted:
            return
        claimed = request.getfixturevalue("subject").capabilities
        for name, value in wanted.items():
            if not hasattr(claimed, name):
                pytest.fail(f"{type(claimed).__name__} has no field {name!r}: the kit asks for it")
            if getattr(claimed, name) != value:
                pytest.skip(
                    f"for subjects with {name}={value!r}, this one has {getattr(claimed, name)!r}"
                )


def requires(**capabilities: object) -> Callable[[Test], Test]:
    """Run a kit test only if the subject's capabilities have these values.

    Write two tests for each optional feature: `@requires(watch=True)` proves it, `@requires(watch=False)` proves with `refused()` that
    it is refused.
    """

    def mark(test: Test) -> Test:
        marked: Test = pytest.mark.warp_requires(**capabilities)(test)
        return marked

    return mark


def required(item: pytest.Item) -> dict[str, object]:
    """Return what `requires` asked for on a test and its class."""
    wanted: dict[str, object] = {}
    for mark in item.iter_markers("warp_requires"):
        wanted.update(mark.kwargs)
    return wanted


def refused() -> pytest.RaisesExc[Unsupported]:
    """Expect that a call without the capability raises `Unsupported`: `with refused(): await subject.watch(...)`."""
    return pytest.raises(Unsupported)


def known_failure(test: Test, *, reason: str) -> Test:
    """Return a copy of a kit test that has to fail, for a subclass to keep under the same name.

    Marking the test itself would mark it for every adopter.
    """
    if not isinstance(test, types.FunctionType):
        raise TypeError(f"{test!r} is no kit test")
    copy = types.FunctionType(
        test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__
    )
    copy.__dict__.update(vars(test))
    copy.__kwdefaults__ = test.__kwdefaults__
    copy.__dict__["pytestmark"] = list(vars(test).get("pytestmark", ()))
    return cast("Test", pytest.mark.xfail(strict=True, reason=reason)(copy))


PROPERTY_SETTINGS = settings(
    deadline=None,  # shared machines: an example may wait for the processor
    max_examples=60,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.differing_executors,  # several classes adopt one kit: that is the point
    ],
    print_blob=True,
)


def given(
    *positional: SearchStrategy[Any], **named: SearchStrategy[Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a property test of a kit: hypothesis' `given`, with `subject` shared by all examples.

    Examples of one test see the same subject: use fresh names, or clean up.
    """

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        return PROPERTY_SETTINGS(hypothesis_given(*positional, **named)(test))

    return decorate


def kit_tests(cls: type) -> Iterator[tuple[str, type]]:
    """Yield name and kit of every kit test that a class adopts."""
    for base in cls.__mro__:
        if vars(base).get("__kit__"):
            yield from ((name, base) for name in vars(base) if name.startswith("test"))


def _check_overrides(cls: type[Kit]) -> None:
    for name, kit in kit_tests(cls):
        found = inspect.getattr_static(cls, name)
        if found is not vars(kit)[name] and not _excused(found):
            raise KitOverridden(
                f"{cls.__qualname__}.{name} hides a test of {kit.__name__}: kit tests are never overridden; "
                f'what is known to fail is kept as {name} = known_failure({kit.__name__}.{name}, reason="...")'
            )
    if inspect.getattr_static(cls, "_gate") is not vars(Kit)["_gate"]:
        raise KitOverridden(f"{cls.__qualname__}._gate hides how capabilities gate tests")
    marks = vars(cls).get("pytestmark", [])
    for mark in marks if isinstance(marks, list) else [marks]:
        if mark.name == "xfail":
            raise KitOverridden(
                f"{cls.__qualname__} is marked xfail as a whole: mark single tests with known_failure"
            )


def _excused(test: object) -> bool:
    return any(
        mark.name == "xfail" and mark.kwargs.get("strict") is True and mark.kwargs.get("reason")
        for mark in getattr(test, "pytestmark", ())
    )


def _limited(test: Any) -> Any:
    """Wrap an asynchronous test so that it ends after the class's `time_limit_s`."""
    if getattr(test, "is_hypothesis_test", False):
        test.hypothesis.inner_test = _limited(test.hypothesis.inner_test)
        return test
    if not inspect.iscoroutinefunction(test):
        return test
    return _with_limit(test)


def _with_limit(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def limited(self: Kit, *args: Any, **kwargs: Any) -> None:
        task = asyncio.ensure_future(test(self, *args, **kwargs))
        try:
            await asyncio.wait([task], timeout=self.time_limit_s)
            late = not task.done()
        finally:
            stubborn = not await _end(task)
        if late or stubborn:
            still = ", and does not end when it is cancelled" if stubborn else ""
            raise AssertionError(f"took longer than {self.time_limit_s} s{still}")
        await task

    return limited


async def _end(task: asyncio.Future[None]) -> bool:
    """Cancel a task until it is done; say whether it is.

    One cancellation may not be enough: it ends one wait for a lost wake-up, and what closes the subject may wait for the same.
    """
    for _ in range(CANCELLATIONS_MAX):
        if task.done():
            break
        task.cancel()
        await asyncio.wait([task], timeout=CANCELLATION_S)
    if task.done() and not task.cancelled():
        task.exception()  # it is told elsewhere, or that it took too long says more
    return task.done()


def sample_of(entry: Entry[Any], folder: Path) -> msgspec.Struct:
    """Return the configuration that an entry may be tried with: its sample, or all defaults where it names none."""
    try:
        made = entry.sampled(folder)
    except Unsupported as error:
        pytest.skip(f"{entry.name}: {error}")
    return entry.config() if isinstance(made, NoConfig) else made
