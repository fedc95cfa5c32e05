"""Line charts and interval charts as inline SVG: no library, no network, colours from the page's style sheet.

A chart is readable without a script. The page's script adds values under the pointer, which it takes from the
``data-`` attributes written here, and a legend that switches lines on and off.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from netinv.results import number, percentage

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 28, 46
"""Margins of the plot, wide enough for the larger letters of a phone."""
LETTER = 9
"""Width of a letter on a phone, where letters are largest."""
MAX_LETTERS = 28
"""Of a name beside a chart, which leaves room for the chart."""
MAX_POINTS = 100
"""Points of a line that are drawn; longer ones are thinned evenly, ends kept."""
MAX_MARKS = 16
"""A line of up to so many points gets a mark at each."""


class Series(NamedTuple):
    """One line."""

    name: str
    """What the pointer shows."""
    style: str
    """Class of the style sheet: colour and dashes."""
    x: Sequence[float]
    y: Sequence[float]
    interval: Sequence[tuple[float, float]] | None = None
    """(low, high) at each point."""
    legend: str | None = None
    """Entry in the legend; lines that share one are switched together. By default the name."""


class Axis(NamedTuple):
    """An axis: what it shows, and where it differs from what the values suggest."""

    label: str
    limits: tuple[float, float] | None = None
    ticks: Sequence[tuple[float, str]] | None = None
    percent: bool = False
    """Show shares as percentages."""

    def text(self, value: float) -> str:
        """A measured value."""
        return percentage(value) if self.percent else number(value)

    def tick(self, value: float) -> str:
        """A round value, in full."""
        return f"{100 * value:.4g}%" if self.percent else f"{value:,.6g}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count`` of them.

    Example:
        >>> ticks(0.0, 1.0), ticks(0.0, 51200.0)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 10000.0, 20000.0, 30000.0, 40000.0, 50000.0])
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda step: abs(step - rough))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(title: str, series: Sequence[Series], x: Axis, y: Axis) -> Markup:
    """A chart with its legend.

    Args:
        title: What the chart shows, for those who hear it read.
        series: Lines; values that are not finite are left out.
        x: Horizontal axis.
        y: Vertical axis.
    """
    series = [finite for line in series if (finite := _drawable(line)).x]
    if not series:
        return Markup('<p class="missing">Nothing was measured for this chart.</p>')
    x_low, x_high = x.limits or _limits([value for line in series for value in line.x], 0)
    lows = [low for line in series for low, _ in line.interval or ()]
    highs = [high for line in series for _, high in line.interval or ()]
    y_low, y_high = y.limits or _limits([*lows, *highs, *(value for line in series for value in line.y)], 0.06)

    def at_x(value: float) -> float:
        return LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def at_y(value: float) -> float:
        inside = min(max(value, y_low), y_high)
        return HEIGHT - BOTTOM - (inside - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [_frame(x, y, x.ticks or _tick_texts(x, x_low, x_high), _tick_texts(y, y_low, y_high), at_x, at_y)]
    places = dict(x.ticks or ())
    entries = list(dict.fromkeys(line.legend or line.name for line in series))
    for line in series:
        points = [(at_x(px), at_y(py)) for px, py in zip(line.x, line.y, strict=True)]
        drawn = Markup('<polyline points="{}"/>').format(" ".join(f"{px:.1f},{py:.1f}" for px, py in points))
        if line.interval:
            for (px, _), (low, high) in zip(points, line.interval, strict=True):
                drawn += Markup('<path class="whisker" d="M{0:.1f} {1:.1f}V{2:.1f}"/>').format(
                    px, at_y(low), at_y(high)
                )
        if len(points) <= MAX_MARKS:
            drawn += Markup("").join(
                Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(px, py) for px, py in points
            )
        parts.append(
            Markup('<g class="line {}" data-name="{}" data-entry="{}" data-x="{}" data-y="{}">{}</g>').format(
                line.style,
                line.name,
                entries.index(line.legend or line.name),
                "|".join(places.get(value) or x.tick(value) for value in line.x),
                "|".join(_value_texts(line, y)),
                drawn,
            )
        )
    styles = {line.legend or line.name: line.style for line in series}
    return Markup(
        '<div class="chart"><svg viewBox="0 0 {} {}" role="img" tabindex="0" aria-label="{}" data-x-label="{}">'
        '{}<path class="cursor" d=""/></svg>{}</div>'
    ).format(WIDTH, HEIGHT, _description(title, series, x, y), x.label, Markup("").join(parts), _legend(styles))


def _drawable(line: Series) -> Series:
    """The line without values that are not finite, and thinned."""
    keep = [i for i, (px, py) in enumerate(zip(line.x, line.y, strict=True)) if math.isfinite(px) and math.isfinite(py)]
    if len(keep) > MAX_POINTS:
        keep = [keep[round(i * (len(keep) - 1) / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]
    interval = [line.interval[i] for i in keep] if line.interval else None
    return line._replace(x=[line.x[i] for i in keep], y=[line.y[i] for i in keep], interval=interval)


def _limits(values: Sequence[float], margin: float) -> tuple[float, float]:
    """The range of the values, never empty."""
    low, high = min(values), max(values)
    extra = (high - low) * margin
    return (low - extra, high + extra) if high > low else (low - 0.5, high + 0.5)


def _tick_texts(axis: Axis, low: float, high: float, count: int = 5) -> list[tuple[float, str]]:
    return [(value, axis.tick(value)) for value in ticks(low, high, count)]


def _frame(
    x: Axis,
    y: Axis,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
) -> Markup:
    """Grid, ticks and labels."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, text in y_ticks:
        parts.append(
            Markup('<path class="grid" d="M{} {:.1f}H{}"/><text class="y" x="{}" y="{:.1f}">{}</text>').format(
                LEFT, at_y(value), right, LEFT - 7, at_y(value) + 4, text
            )
        )
    for i, (value, text) in enumerate(x_ticks):
        parts.append(
            Markup('<path class="tick" d="M{0:.1f} {1}v4"/><text class="{4}" x="{0:.1f}" y="{2}">{3}</text>').format(
                at_x(value),
                bottom,
                bottom + 18,
                text,
                "x odd" if i % 2 else "x",  # a phone has room for every other
            )
        )
    parts.append(
        Markup('<path class="axis" d="M{0} {1}H{2}"/><text class="label" x="{2}" y="{3}">{4}</text>').format(
            LEFT, bottom, right, HEIGHT - 6, x.label
        )
    )
    if y.label:
        parts.append(Markup('<text class="above" x="8" y="14">{}</text>').format(y.label))
    return Markup("").join(parts)


def _value_texts(line: Series, y: Axis) -> list[str]:
    """What the pointer shows at each point."""
    texts = [y.text(value) for value in line.y]
    if line.interval:
        return [
            f"{text} ({y.text(low)} to {y.text(high)})" for text, (low, high) in zip(texts, line.interval, strict=True)
        ]
    return texts


def _description(title: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """The chart in words: where each line starts and ends."""
    lines = [
        f"{line.name} from {y.text(line.y[0])} to {y.text(line.y[-1])}"
        if len(line.y) > 1
        else f"{line.name} {y.text(line.y[0])}"
        for line in series[:12]
    ]
    return f"{title}. {y.label} by {x.label}: {'; '.join(lines)}."


def _legend(styles: dict[str, str]) -> Markup:
    """A switch for each entry; none where there is one line only."""
    if len(styles) < 2:
        return Markup("")
    keys = Markup("").join(
        Markup(
            '<button type="button" aria-pressed="true" data-entry="{}">'
            '<svg class="key {}" viewBox="0 0 26 10" aria-hidden="true"><path d="M1 5H25"/></svg>{}</button>'
        ).format(i, style, entry)
        for i, (entry, style) in enumerate(styles.items())
    )
    return Markup('<div class="legend">{}</div>').format(keys)


class Interval(NamedTuple):
    """One line of an interval chart."""

    name: str
    style: str
    value: float | None
    """``None`` where nothing was measured."""
    low: float
    high: float
    text: str
    """What stands at the end of the line: the value, or why there is none."""


def _shortened(name: str) -> str:
    """A name without its middle, if it is long: both ends tell it from others."""
    half = MAX_LETTERS // 2
    return name if len(name) <= MAX_LETTERS else f"{name[: half - 1]}…{name[-half:]}"


def interval_chart(title: str, rows: Sequence[Interval], x: Axis) -> Markup:
    """Values of one measure below each other, with their intervals and one common scale.

    Args:
        title: What the chart shows, for those who hear it read.
        rows: Lines, from top to bottom.
        x: The measure.
    """
    measured = [row for row in rows if row.value is not None]
    if not measured:
        return Markup('<p class="missing">Not measured: {}.</p>').format(rows[0].text if rows else "no samples")
    low, high = x.limits or _limits([end for row in measured for end in (row.low, row.high)], 0.05)
    right, top, pitch = 80, 8, 24
    names = [_shortened(row.name) for row in rows]
    left = 14 + LETTER * max(map(len, names))
    bottom = top + pitch * len(rows)

    def at_x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (WIDTH - left - right)

    parts = [
        Markup('<path class="grid" d="M{0:.1f} {1}V{2}"/><text class="x" x="{0:.1f}" y="{3}">{4}</text>').format(
            at_x(value), top, bottom, bottom + 16, text
        )
        for value, text in _tick_texts(x, low, high, count=3)
    ]
    for i, row in enumerate(rows):
        y = top + pitch * (i + 0.5)
        drawn = Markup('<text class="name" x="{}" y="{}">{}<title>{}</title></text>').format(
            left - 10, y + 4, names[i], row.name
        )
        if row.value is None:
            drawn += Markup('<text class="none" x="{}" y="{}">not measured<title>{}</title></text>').format(
                left + 6, y + 4, row.text
            )
        else:
            drawn += Markup(
                '<path class="whisker" d="M{:.1f} {:.1f}H{:.1f}"/><circle cx="{:.1f}" cy="{:.1f}" r="4.5"/>'
                '<text class="value" x="{}" y="{}">{}</text>'
            ).format(at_x(row.low), y, at_x(row.high), at_x(row.value), y, WIDTH - right + 10, y + 4, row.text)
        parts.append(Markup('<g class="line {}">{}</g>').format(row.style, drawn))
    spoken = "; ".join(f"{row.name} {row.text}" for row in rows)
    return Markup('<div class="chart"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg></div>').format(
        WIDTH, bottom + 24, f"{title}: {spoken}.", Markup("").join(parts)
    )
