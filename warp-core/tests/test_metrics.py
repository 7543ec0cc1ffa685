"""Metrics: what is counted is what is shown."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.errors import InvalidArgument
from warp_core.metrics import LABEL_SETS_MAX, Histogram, Metrics, render, snapshot


def test_the_text_is_prometheus_exposition() -> None:
    metrics = Metrics()
    requests = metrics.counters(
        "warp_requests_total", "Requests\nanswered", labels=("verb", "status")
    )
    requests.labels("GET", "200").add(3)
    requests.labels('a"b\\c\nd', "404").value += 1.5
    metrics.gauge("warp_free_bytes", "Free", lambda: 2.0**40)
    metrics.counter("warp_a_total", "First")

    assert render(metrics) == (
        "# HELP warp_a_total First\n"
        "# TYPE warp_a_total counter\n"
        "warp_a_total 0\n"
        "# HELP warp_free_bytes Free\n"
        "# TYPE warp_free_bytes gauge\n"
        "warp_free_bytes 1099511627776\n"
        "# HELP warp_requests_total Requests\\nanswered\n"
        "# TYPE warp_requests_total counter\n"
        'warp_requests_total{verb="GET",status="200"} 3\n'
        'warp_requests_total{verb="a\\"b\\\\c\\nd",status="404"} 1.5\n'
    )


def test_histogram_buckets_are_cumulative_and_end_in_inf() -> None:
    metrics = Metrics()
    histogram = metrics.histogram("warp_wait_seconds", "Waiting", bounds=(0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)

    assert render(metrics).splitlines()[2:] == [
        'warp_wait_seconds_bucket{le="0.1"} 2',
        'warp_wait_seconds_bucket{le="1"} 3',
        'warp_wait_seconds_bucket{le="+Inf"} 4',
        "warp_wait_seconds_sum 7.65",
        "warp_wait_seconds_count 4",
    ]


def test_a_family_without_members_shows_nothing() -> None:
    metrics = Metrics()
    metrics.counters("warp_unused_total", "Nothing", labels=("x",))

    assert render(metrics) == ""


def test_asking_twice_gives_the_same_metric() -> None:
    metrics = Metrics()

    assert metrics.counter("warp_x_total", "X") is metrics.counter("warp_x_total", "X")


def test_one_name_has_one_kind_and_one_set_of_labels() -> None:
    metrics = Metrics()
    metrics.counter("warp_x_total", "X")

    with pytest.raises(InvalidArgument, match="already a Counter"):
        metrics.gauge("warp_x_total", "X")
    with pytest.raises(InvalidArgument, match="already a Counter"):
        metrics.counters("warp_x_total", "X", labels=("verb",))


@pytest.mark.parametrize("name", ["", "1x", "warp-x", "wärp", "x y", "x\n"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="name"):
        Metrics().counter(name, "X")


def test_label_sets_are_bounded_and_the_rest_is_counted_as_other() -> None:
    family = Metrics().counters("warp_x_total", "X", labels=("who",))
    for who in range(3 * LABEL_SETS_MAX):
        family.labels(str(who)).add()

    values = dict(family.items())
    assert len(values) == LABEL_SETS_MAX + 1
    assert values[("other",)].value == 2 * LABEL_SETS_MAX


def test_the_wrong_number_of_labels_is_refused() -> None:
    family = Metrics().counters("warp_x_total", "X", labels=("who",))

    with pytest.raises(InvalidArgument, match="has labels"):
        family.labels("a", "b")


@given(st.lists(st.floats(2e-5, 90), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_ranked_value(
    values: list[float], fraction: float
) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    ranked = sorted(values)[max(0, -(-int(fraction * len(values) * 1e9) // 10**9) - 1)]

    assert ranked / 1.21 <= histogram.quantile(fraction) * 1.0001
    assert histogram.quantile(fraction) <= max(values) * 1.21


def test_quantiles_of_many_values_are_within_ten_percent() -> None:
    histogram = Histogram()
    draw = random.Random(5)
    values = sorted(draw.lognormvariate(-7, 1.5) for _ in range(20_000))
    for value in values:
        histogram.observe(value)

    for fraction in (0.5, 0.9, 0.99):
        assert histogram.quantile(fraction) == pytest.approx(
            values[int(fraction * len(values))], rel=0.1
        )


def test_quantiles_at_the_edges() -> None:
    histogram = Histogram((1.0, 2.0))
    assert histogram.quantile(0.5) == 0
    histogram.observe(50)

    assert histogram.quantile(0.5) == 2.0


def test_a_snapshot_has_every_number() -> None:
    metrics = Metrics()
    metrics.gauge("warp_g", "G").set(4)
    metrics.histograms("warp_h", "H", labels=("op",)).labels("get").observe(0.001)

    numbers = snapshot(metrics)
    assert numbers["warp_g"] == 4
    assert numbers['warp_h_count{op="get"}'] == 1
    assert numbers['warp_h_p99{op="get"}'] == pytest.approx(0.001, rel=0.2)
