"""Charts as SVG: true to their values, and safe against names."""

import math
import re
from xml.etree import ElementTree

import pytest

from netinv.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Interval,
    Series,
    interval_chart,
    line_chart,
    ticks,
)


def polyline(svg: str) -> list[tuple[float, float]]:
    match = re.search(r'<polyline points="([^"]*)"', svg)
    assert match is not None
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in match[1].split())]


def test_points_lie_where_the_axes_say() -> None:
    chart = line_chart("t", [Series("a", "robust", [0, 5, 10], [0, 0.25, 1])], Axis("x"), Axis("y", (0, 1)))
    bottom = HEIGHT - BOTTOM
    middle = (LEFT + WIDTH - RIGHT) / 2
    assert polyline(chart) == [(LEFT, bottom), (middle, bottom - 0.25 * (bottom - TOP)), (WIDTH - RIGHT, TOP)]


def test_values_outside_the_limits_stay_in_the_frame() -> None:
    chart = line_chart("t", [Series("a", "robust", [0, 1], [-5, 7])], Axis("x"), Axis("y", (0, 1)))
    assert [y for _, y in polyline(chart)] == [HEIGHT - BOTTOM, TOP]


def test_values_that_are_not_finite_are_left_out() -> None:
    chart = line_chart("t", [Series("a", "robust", [0, 1, 2], [1, math.nan, 3])], Axis("x"), Axis("y"))
    assert len(polyline(chart)) == 2
    assert "a from 1.00 to 3.00" in chart
    nothing = line_chart("t", [Series("a", "robust", [0], [math.inf])], Axis("x"), Axis("y"))
    assert "<svg" not in nothing
    assert "Nothing was measured" in nothing


def test_long_lines_are_thinned_and_keep_their_ends() -> None:
    num = 12_345
    line = Series("a", "robust", range(num), range(num), [(y, y) for y in range(num)])
    chart = line_chart("t", [line], Axis("x"), Axis("y"))
    assert len(polyline(chart)) == MAX_POINTS
    assert f"a from 0 to {num - 1:,}" in chart


def test_one_constant_value_is_drawn() -> None:
    assert polyline(line_chart("t", [Series("a", "robust", [3], [7])], Axis("x"), Axis("y")))


@pytest.mark.parametrize("name", ["<b>&\"'", "a|b"])
def test_names_are_text(name: str) -> None:
    line = Series(name, "robust", [0, 1], [0, 1], [(0, 1), (0, 1)])
    other = Series("other", "noise", [0, 1], [0, 1])
    row = Interval(name, "robust", 0.5, 0.4, 0.6, name)
    for chart in (line_chart(name, [line, other], Axis(name), Axis(name)), interval_chart(name, [row], Axis(name))):
        tree = ElementTree.fromstring(chart)
        assert not list(tree.iter("b"))
        assert name in "".join(tree.itertext())


def test_an_interval_chart_says_what_was_not_measured() -> None:
    rows = [Interval("a", "robust", 0.5, 0.4, 0.6, "50.0%"), Interval("b", "noise", None, 0, 0, "too few samples")]
    chart = interval_chart("Accuracy", rows, Axis("accuracy", percent=True))
    assert "Accuracy: a 50.0%; b too few samples." in chart
    assert chart.count("<circle") == 1
    nothing = interval_chart("Accuracy", rows[1:], Axis("accuracy"))
    assert "Not measured: too few samples." in nothing


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 1e-3), (1e-6, 2e-6), (0.0, 5e7), (0.97, 0.99)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 9
    assert all(low - 1e-9 * (high - low) <= tick <= high + 1e-9 * (high - low) for tick in found)


def test_a_long_name_leaves_room_for_its_interval() -> None:
    row = Interval("zoo:Net, /models/of/someone/weights.safetensors, run/evaluation", "robust", 0.5, 0.4, 0.6, "50.0%")
    chart = interval_chart("Accuracy", [row, row._replace(value=0.9, low=0.8, high=1.0)], Axis("accuracy"))
    worse, better = (float(x) for x in re.findall(r'<circle cx="([\d.-]+)"', chart))
    assert 0 < worse < better < 480
    assert f"<title>{row.name}</title>" in chart
    (shown, *_) = re.findall(r'<text class="name"[^>]*>([^<]+)<', chart)
    assert shown == "zoo:Net, /mod…run/evaluation"
