"""The report's charts: curves, and measures with their intervals side by side."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from netinv.report.charts import Axis, Interval, Series, interval_chart, line_chart
from netinv.report.inputs import Evaluated, compared, title_of
from netinv.report.words import measure_text
from netinv.results import HEADLINE, Estimate, Measure

if TYPE_CHECKING:
    from markupsafe import Markup

DIVERSITY = ("vendi", "cosine", "density", "coverage", "frechet")
"""Beginnings of the names of measures that say how diverse and how real images are, not how they are read."""


class Choice(NamedTuple):
    """Views of which the page shows one at a time."""

    title: str
    views: "list[Markup]"


def training_charts(records: Mapping[str, list[dict[str, float]]]) -> "list[Markup]":
    """Accuracy and loss of the classifiers' training; none where there was none."""
    if not records:
        return []
    return [
        line_chart(
            f"Training of the classifiers: {column}",
            [Series(m, m, [r["epoch"] for r in rs], [r[column] for r in rs]) for m, rs in records.items()],
            Axis("epoch"),
            Axis(column, percent=column == "accuracy"),
        )
        for column in ("accuracy", "loss")
    ]


def inversion_curves(found: Sequence[Evaluated]) -> list[Choice]:
    """A chart for each quantity that the inversion records: all generators, a colour for each variant."""
    choices = []
    for column in [name for name in found[0].curves[0] if name not in ("generator", "step", "samples")]:
        lines = []
        for e in found:
            for generator in sorted({record["generator"] for record in e.curves}):
                records = [record for record in e.curves if record["generator"] == generator]
                lines.append(
                    Series(
                        f"{e.variant}, generator {generator:.0f}",
                        e.style,
                        [record["samples"] for record in records],
                        [record[column] for record in records],
                        legend=e.variant,
                    )
                )
        title = "KL divergence" if column == "kl" else column.replace("_", " ")
        y = Axis(title, (0, 1) if column == "accuracy" else None, percent=column == "accuracy")
        choices.append(Choice(title, [line_chart(f"Inversion: {title}", lines, Axis("samples drawn"), y)]))
    return choices


def robustness_chart(found: Sequence[Evaluated]) -> "Markup":
    """Accuracy under attack by its bound: every variant, and what to compare it with."""
    lines = [
        measured_line(title, style, [(p.epsilon, p.accuracy) for p in row.robustness])
        for title, style, row in compared(found)
    ]
    return line_chart(
        "Accuracy under attack", lines, Axis("bound ε of the attack"), Axis("accuracy", (0, 1), percent=True)
    )


def measured_line(name: str, style: str, points: Iterable[tuple[float, Measure]]) -> Series:
    """A line through the points that were measured, with their intervals."""
    known = [(x, y) for x, y in points if isinstance(y, Estimate)]
    return Series(name, style, [x for x, _ in known], [y.value for _, y in known], [(y.low, y.high) for _, y in known])


def intensity_chart(found: Sequence[Evaluated]) -> "Markup":
    """The probability of the wanted class that the classifier gives, by the one that was asked for."""
    lines = [Series("exactly as asked", "exact", [0, 1], [0, 1])]
    for e in found:
        bins = e.row("ensemble").calibration
        points = [(b.wanted.value, b.obtained) for b in bins if isinstance(b.wanted, Estimate)]
        lines.append(measured_line(e.variant, e.style, points))
    asked = Axis("probability asked for", (0, 1), percent=True)
    obtained = Axis("probability obtained", (0, 1), percent=True)
    return line_chart("Intensity", lines, asked, obtained)


def condition_charts(found: Sequence[Evaluated]) -> list[Choice]:
    """Accuracy under each network by the gap and by the sharpness of the condition."""
    choices = []
    for network, measure in (("classifier", "inversion_accuracy"), ("evaluator", "evaluator_accuracy")):
        for title, bins in (("gap", "by_gap"), ("sharpness", "by_sharpness")):
            lines = []
            texts: dict[float, str] = {}
            for e in found:
                parts = getattr(e.row("ensemble"), bins)
                texts |= {i: _range(part.low, part.high) for i, part in enumerate(parts)}
                points = [(i, getattr(part, measure)) for i, part in enumerate(parts)]
                lines.append(measured_line(e.variant, e.style, points))
            x = Axis(f"{title} of the condition", (-0.4, len(texts) - 0.6), list(texts.items()))
            chart = line_chart(f"Accuracy under the {network}", lines, x, Axis("accuracy", (0, 1), percent=True))
            choices.append(Choice(f"{network}, by {title}", [chart]))
    return choices


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def interval_charts(found: Sequence[Evaluated]) -> tuple[list[Choice], list[Choice]]:
    """A chart for each measure, of every generator, the ensembles and the references; in two parts by ``DIVERSITY``."""
    rows = []
    for e in found:
        rows += [(f"{e.variant}, {row.name}", e.style, row.measures) for row in [*e.generators, e.row("ensemble")]]
        rows.append((f"{e.variant}, dropout on", e.style, e.row("ensemble").dropout))
    rows += [(title, style, row.measures) for title, style, row in compared(found) if row.kind == "reference"]
    names = found[0].row("ensemble").measures
    return _in_two({name: [(title, style, measures[name]) for title, style, measures in rows] for name in names})


def comparison_charts(sets: Mapping[str, Sequence[Evaluated]]) -> tuple[list[Choice], list[Choice]]:
    """The same for the headline numbers of every data set and variant."""
    rows = [(f"{title_of(dataset)}, {e.variant}", e) for dataset, found in sets.items() for e in found]
    return _in_two({name: [(title, e.style, e.results.headline[name]) for title, e in rows] for name in HEADLINE})


def _in_two(measures: Mapping[str, Iterable[tuple[str, str, Measure]]]) -> tuple[list[Choice], list[Choice]]:
    """Charts of how images are read, and of how diverse and how real they are."""
    charts = {name: _interval_choice(name, rows) for name, rows in measures.items()}
    read = [chart for name, chart in charts.items() if not name.startswith(DIVERSITY)]
    real = [chart for name, chart in charts.items() if name.startswith(DIVERSITY)]
    return read, real


def _interval_choice(name: str, rows: Iterable[tuple[str, str, Measure]]) -> Choice:
    """One measure of rows with their titles and styles."""
    text = measure_text(name)
    intervals = [
        Interval(title, style, m.value, m.low, m.high, text.show(m.value))
        if isinstance(m, Estimate)
        else Interval(title, style, None, 0, 0, m.not_measured)
        for title, style, m in rows
    ]
    return Choice(text.title, [interval_chart(text.title, intervals, Axis(text.title, percent=text.percent))])
