"""Finding and loading plugins: stevedore lists and loads, pluggy calls, registries remember."""

from __future__ import annotations

import enum
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import pluggy
import stevedore

from warp_core import hooks
from warp_core.errors import NotFound, PluginError
from warp_core.plugins.distributions import Distribution, owners, refusal
from warp_core.registry import KINDS, Entry, Registry

GROUP = "warp.plugins"
IMPORT_LIMIT_S = 5.0  # an import only defines; one that takes longer waits for something

P = TypeVar("P")


class State(enum.Enum):
    """How far a plugin came."""

    LISTED = "listed"  # installed, nobody asked for it
    LOADED = "loaded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Found:
    """An entry point, not imported."""

    kind: str
    name: str
    module: str
    distribution: Distribution

    @property
    def entry(self) -> str:
        """The entry point's name."""
        return f"{self.kind}.{self.name}"


@dataclass(frozen=True, slots=True)
class Status:
    """What became of an entry point; `reason` says why it failed and what to do."""

    found: Found
    state: State
    reason: str = ""
    summary: str = ""


class Plugins:
    """Everything that is installed, loaded on demand.

    `registries[kind].get(name)` loads the plugin at its first use; errors name the distribution and
    the remedy. Iterating over a registry shows what was loaded so far; `names` what could be.
    """

    def __init__(self, *, limit_s: float = IMPORT_LIMIT_S) -> None:
        self._limit_s = limit_s
        self._hooks = pluggy.PluginManager("warp")
        self._hooks.add_hookspecs(hooks)
        self.registries: Mapping[str, Registry[Any]] = {
            kind: _OnDemand(kind, self) for kind in KINDS
        }
        for kind, registry in self.registries.items():
            # Historic: every module that is registered later is called with the registry then.
            getattr(self._hooks.hook, f"warp_register_{kind}").call_historic(
                kwargs={"registry": registry}
            )
        self._status: dict[str, Status] = {}
        self._list()

    def names(self, kind: str) -> list[str]:
        """Return the installed names of a kind, sorted; nothing is imported."""
        return sorted(
            {status.found.name for status in self._status.values() if status.found.kind == kind}
        )

    def status(self) -> list[Status]:
        """Return what became of each entry point, sorted by kind and name."""
        return [self._status[key] for key in sorted(self._status)]

    def load(self, kind: str, name: str) -> Status:
        """Load one plugin if it is not; a failure is in the status, and is not tried again."""
        key = f"{kind}.{name}"
        status = self._status.get(key)
        if status is None:
            raise NotFound(self._unknown(kind, name))
        if status.state is State.LISTED:
            status = self._status[key] = self._load(status.found)
        return status

    def load_all(self) -> list[Status]:
        """Load everything, as `warp plugin list` and `warp doctor` do."""
        for key in list(self._status):
            found = self._status[key].found
            self.load(found.kind, found.name)
        return self.status()

    def _list(self) -> None:
        whose = owners(GROUP)
        claims: dict[str, list[Found]] = {}
        for point in _manager([]).list_entry_points():
            kind, _, name = point.name.partition(".")
            for owner in whose.get((point.name, point.value), [Distribution("unknown", "?")]):
                claims.setdefault(point.name, []).append(Found(kind, name, point.value, owner))
        for entry, found in claims.items():
            self._status[entry] = Status(found[0], State.LISTED)
            if found[0].kind not in KINDS or not found[0].name:
                self._fail(
                    found[0],
                    f'{found[0].distribution} offers "{entry}", which is no kind that this release'
                    f" knows ({', '.join(KINDS)}): upgrade warp-core or uninstall it",
                )
            elif len(found) > 1:
                both = " and ".join(sorted(str(each.distribution) for each in found))
                self._fail(
                    found[0],
                    f'{found[0].kind} "{found[0].name}" is offered by {both}: uninstall one',
                )
            elif reason := refusal(found[0].distribution):
                self._fail(found[0], reason)

    def _fail(self, found: Found, reason: str) -> Status:
        status = self._status[found.entry] = Status(found, State.FAILED, reason)
        return status

    def _load(self, found: Found) -> Status:
        problem: list[BaseException] = []
        try:
            with _time_limit(self._limit_s, found.module):
                manager = _manager([found.entry], problem)
                module = next((extension.plugin for extension in manager), None)
                if module is not None:
                    self._register(module, found)
        except KeyboardInterrupt:
            raise
        # A plugin may raise anything while it is imported, SystemExit included.
        except BaseException as error:
            problem.append(error)
        if problem:
            return self._fail(found, " ".join(_explain(found, problem[0]).split()))
        registry = self.registries[found.kind]
        if found.name not in registry:
            who = found.distribution
            offered = [each.name for each in registry if registry.owner(each.name) == str(who)]
            return self._fail(
                found,
                f'{who} announces {found.kind} "{found.name}" but registers'
                f" {', '.join(offered) or 'nothing'}: upgrade {who.name} or uninstall it",
            )
        summary = Registry.get(registry, found.name).summary
        return Status(found, State.LOADED, summary=summary)

    def _register(self, module: object, found: Found) -> None:
        if self._hooks.is_registered(module):
            return  # one module may stand behind several entries
        for registry in self.registries.values():
            registry.offering_as(str(found.distribution))
        try:
            self._hooks.register(module, name=found.module)
            self._hooks.check_pending()
        except BaseException:
            self._hooks.unregister(name=found.module)
            for registry in self.registries.values():
                registry.withdraw(str(found.distribution))
            raise

    def _unknown(self, kind: str, name: str) -> str:
        from difflib import get_close_matches

        near = get_close_matches(name, self.names(kind), n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        installed = ", ".join(self.names(kind)) or "none"
        return f'no {kind} plugin "{name}" is installed (installed: {installed}){hint}'


class _OnDemand(Registry[P]):
    """A registry whose `get` loads what is installed but not loaded yet."""

    def __init__(self, kind: str, plugins: Plugins) -> None:
        super().__init__(kind)
        self._plugins = plugins

    def get(self, name: str) -> Entry[P]:
        if name not in self:
            status = self._plugins.load(self.kind, name)
            if status.state is State.FAILED:
                raise PluginError(f'{self.kind} "{name}" cannot be used: {status.reason}')
        return super().get(name)


def _manager(
    names: list[str], problem: list[BaseException] | None = None
) -> stevedore.NamedExtensionManager[Any]:
    """Load the named entries; with no names, nothing is imported and the rest can be listed."""

    def failed(manager: object, entry: object, error: BaseException) -> None:
        if problem is not None:
            problem.append(error)

    return stevedore.NamedExtensionManager(
        GROUP,
        names=names,
        invoke_on_load=False,
        on_load_failure_callback=failed,
        on_missing_entrypoints_callback=lambda missing: None,
    )


class _TooSlow(BaseException):
    """Not an Exception, so that a plugin's own `except Exception` does not swallow it."""


@contextmanager
def _time_limit(limit_s: float, module: str) -> Iterator[None]:
    """Interrupt the block after `limit_s`; only the main thread can be interrupted, others wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _TooSlow(f"importing {module} took more than {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _explain(found: Found, error: BaseException) -> str:
    """Say in one sentence what went wrong with a plugin, and what to do."""
    who = found.distribution
    if isinstance(error, _TooSlow):
        return f"{who}: {error}: it waits for something; upgrade or uninstall {who.name}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        if found.module.partition(".")[0] == error.name.partition(".")[0]:
            return f"{who}: its module {error.name} is missing: reinstall {who.name}"
        return f"{who} needs the module {error.name}, which is not installed: reinstall {who.name}"
    if isinstance(error, ImportError):
        return f"{who} cannot be imported ({error}): upgrade {who.name} or reinstall it"
    if isinstance(error, pluggy.PluginValidationError):
        return f"{who} was written for another release ({error}): upgrade {who.name}"
    if isinstance(error, PluginError):
        return str(error)
    what = f"{type(error).__name__}: {error}"
    return f"{who} failed while loading ({what}): upgrade {who.name} or uninstall it"


def describe(status: Status) -> Mapping[str, str]:
    """Return a status as flat text fields, for tables and JSON."""
    found = status.found
    return {
        "kind": found.kind,
        "name": found.name,
        "state": status.state.value,
        "distribution": found.distribution.name,
        "version": found.distribution.version,
        "module": found.module,
        "summary": status.summary,
        "reason": status.reason,
    }
