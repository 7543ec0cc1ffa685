"""Metrics: counters, gauges and histograms cheap enough for hot paths, and their Prometheus text.

A part asks for its metrics once, when it is built, keeps the children that it needs, and then pays
an attribute increment for each event:

```python
requests = metrics.counters("warp_s3_requests_total", "Requests answered", labels=("verb", "status"))
get_ok = requests.labels("GET", "200")
...
get_ok.value += 1
latency.observe(clock() - started)
```

Values are changed by the loop thread; a worker thread hands its counts over with its result. Names
and units follow Prometheus: seconds and bytes, counters end in `_total`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from warp_core.errors import InvalidArgument

# Label sets of one family. A label must never carry what a client chooses freely (keys, addresses);
# should one do so all the same, further sets are counted together under "other", so that neither
# memory nor the exposition grows with the number of clients.
LABEL_SETS_MAX = 500
OTHER = "other"

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")

# 10 us to 100 s in steps of 1.2, so that a quantile is at most 10 % off.
LATENCY_BOUNDS_S: tuple[float, ...] = tuple(round(1e-5 * 1.2**step, 9) for step in range(89))
# 64 bytes to 16 GiB in steps of 2.
SIZE_BOUNDS: tuple[float, ...] = tuple(float(64 << step) for step in range(29))
# Bounds shown to Prometheus are every n-th, so that a histogram stays near 20 lines.
_SHOWN_MAX = 24


class Counter:
    """A number that only grows. Hot paths may write `counter.value += n`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, count: float = 1) -> None:
        """Count `count` more."""
        self.value += count


class Gauge:
    """A number that goes up and down, set by its owner or read from a function when somebody looks."""

    __slots__ = ("_read", "_value")

    def __init__(self, read: Callable[[], float] | None = None) -> None:
        self._read = read
        self._value: float = 0

    @property
    def value(self) -> float:
        """The current number."""
        return self._value if self._read is None else self._read()

    def set(self, value: float) -> None:
        """Replace the number."""
        self._value = value

    def add(self, change: float = 1) -> None:
        """Change the number; negative to lower it."""
        self._value += change


class Histogram:
    """How many observations fell at or below each bound; the last count is of those above all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """Observations so far."""
        return sum(self.counts)

    def quantile(self, fraction: float) -> float:
        """Return the value that `fraction` of the observations lie below, to a bucket's width.

        Without observations it is 0.
        """
        rank = fraction * self.count
        seen, lower = 0, 0.0
        for count, upper in zip(self.counts, self.bounds, strict=False):
            if count and seen + count >= rank:
                return lower + (upper - lower) * max(0.0, rank - seen) / count
            seen, lower = seen + count, upper
        return self.bounds[-1] if seen < self.count else 0.0


M = TypeVar("M", Counter, Gauge, Histogram)


class Family(Generic[M]):
    """The metrics of one name, one for each set of label values."""

    def __init__(
        self, name: str, help: str, labels: tuple[str, ...], make: Callable[[], M]
    ) -> None:
        self.name = name
        self.help = help
        self.label_names = labels
        self._make: Callable[[], M] = make
        self._children: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        """Return the metric of these label values, made at its first use; keep it if used often.

        Beyond LABEL_SETS_MAX sets, further ones share the metric whose labels are all "other".
        """
        child = self._children.get(values)
        if child is not None:
            return child
        if len(values) != len(self.label_names):
            raise InvalidArgument(f"{self.name} has labels {self.label_names}, got {values}")
        if len(self._children) >= LABEL_SETS_MAX:
            values = (OTHER,) * len(values)
        return self._children.setdefault(values, self._make())

    def adopt(self, metric: M, *values: str) -> None:
        """Show a metric that its owner made, in place of one of these label values; beyond LABEL_SETS_MAX none is added."""
        if values in self._children or len(self._children) < LABEL_SETS_MAX:
            self._children[values] = metric

    def drop(self, *values: str) -> None:
        """Forget a label set whose subject is gone (a volume, a peer)."""
        self._children.pop(values, None)

    def items(self) -> Iterator[tuple[tuple[str, ...], M]]:
        """Yield label values and metric, sorted by label values."""
        return iter(sorted(self._children.items()))


AnyFamily = Family[Counter] | Family[Gauge] | Family[Histogram]


class Metrics:
    """A registry.

    Asking twice for one name returns the same metric; another kind or other labels are refused.
    """

    def __init__(self) -> None:
        self._families: dict[str, tuple[type, AnyFamily]] = {}

    def counters(self, name: str, help: str, *, labels: Sequence[str]) -> Family[Counter]:
        """Return a family of counters."""
        return self._family(Counter, name, help, labels, Counter)

    def gauges(self, name: str, help: str, *, labels: Sequence[str]) -> Family[Gauge]:
        """Return a family of gauges."""
        return self._family(Gauge, name, help, labels, Gauge)

    def histograms(
        self,
        name: str,
        help: str,
        *,
        labels: Sequence[str],
        bounds: tuple[float, ...] = LATENCY_BOUNDS_S,
    ) -> Family[Histogram]:
        """Return a family of histograms; `bounds` ascend."""
        return self._family(Histogram, name, help, labels, lambda: Histogram(bounds))

    def counter(self, name: str, help: str) -> Counter:
        """Return a counter without labels."""
        return self.counters(name, help, labels=()).labels()

    def gauge(self, name: str, help: str, read: Callable[[], float] | None = None) -> Gauge:
        """Return a gauge without labels; with `read`, it is asked for when somebody looks."""
        return self._family(Gauge, name, help, (), lambda: Gauge(read)).labels()

    def histogram(
        self, name: str, help: str, *, bounds: tuple[float, ...] = LATENCY_BOUNDS_S
    ) -> Histogram:
        """Return a histogram without labels."""
        return self.histograms(name, help, labels=(), bounds=bounds).labels()

    def families(self) -> list[AnyFamily]:
        """Return every family, sorted by name."""
        return [family for _, (_, family) in sorted(self._families.items())]

    def _family(
        self, kind: type[M], name: str, help: str, labels: Sequence[str], make: Callable[[], M]
    ) -> Family[M]:
        known = self._families.get(name)
        if known is not None:
            if known[0] is not kind or known[1].label_names != tuple(labels):
                raise InvalidArgument(
                    f"metric {name} is already a {known[0].__name__} with labels {known[1].label_names}"
                )
            return known[1]  # type: ignore[return-value]
        for word in (name, *labels):
            if not _NAME.match(word):
                raise InvalidArgument(
                    f'metric or label name "{word}": letters, digits and "_" only'
                )
        family: Family[M] = Family(name, help, tuple(labels), make)
        self._families[name] = (kind, family)
        return family


def render(metrics: Metrics) -> str:
    """Return the text that Prometheus scrapes (exposition format 0.0.4), sorted."""
    lines: list[str] = []
    for family in metrics.families():
        help = family.help.replace("\\", r"\\").replace("\n", r"\n")
        body = [
            line for values, metric in family.items() for line in _lines(family, values, metric)
        ]
        if body:
            kind = body[0][0]
            lines += [f"# HELP {family.name} {help}", f"# TYPE {family.name} {kind}"]
            lines += [line for _, line in body]
    return "\n".join(lines) + "\n" if lines else ""


def snapshot(metrics: Metrics) -> dict[str, float]:
    """Return every number by its Prometheus name; histograms as `_count`, `_sum`, `_p50`, `_p99`."""
    numbers: dict[str, float] = {}
    for family in metrics.families():
        for values, metric in family.items():
            labels = _labels(family.label_names, values)
            if isinstance(metric, Histogram):
                numbers[f"{family.name}_count{labels}"] = metric.count
                numbers[f"{family.name}_sum{labels}"] = metric.total
                numbers[f"{family.name}_p50{labels}"] = metric.quantile(0.5)
                numbers[f"{family.name}_p99{labels}"] = metric.quantile(0.99)
            else:
                numbers[f"{family.name}{labels}"] = metric.value
    return numbers


def _lines(
    family: AnyFamily, values: tuple[str, ...], metric: Counter | Gauge | Histogram
) -> Iterator[tuple[str, str]]:
    labels = _labels(family.label_names, values)
    if isinstance(metric, Histogram):
        step = -(-len(metric.bounds) // _SHOWN_MAX)
        total = 0
        for index, bound in enumerate(metric.bounds):
            total += metric.counts[index]
            if (index + 1) % step == 0 or index + 1 == len(metric.bounds):
                inner = _labels((*family.label_names, "le"), (*values, _number(bound)))
                yield "histogram", f"{family.name}_bucket{inner} {total}"
        total += metric.counts[-1]
        inner = _labels((*family.label_names, "le"), (*values, "+Inf"))
        yield "histogram", f"{family.name}_bucket{inner} {total}"
        yield "histogram", f"{family.name}_sum{labels} {_number(metric.total)}"
        yield "histogram", f"{family.name}_count{labels} {total}"
    else:
        kind = "counter" if isinstance(metric, Counter) else "gauge"
        yield kind, f"{family.name}{labels} {_number(metric.value)}"


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
