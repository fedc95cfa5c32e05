"""The report's chapter on what a classifier has learned: dictionaries beside their controls, and units as pictures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from netinv.report.charts import Axis, line_chart
from netinv.report.curves import measured_line
from netinv.report.inputs import Interpreted
from netinv.report.pictures import Picture, open_picture, picture_of
from netinv.report.tables import Cells, Table, TableRow
from netinv.report.words import MeasureText
from netinv.results import Estimate, InterpretationResults, Measure, NotMeasured, Unit, number, percentage

if TYPE_CHECKING:
    from markupsafe import Markup

TEXTS = {
    "explained_variance": MeasureText(
        "Explained variance", "Of the activations, by the rebuilt ones; below 0 is worse than their mean."
    ),
    "loss_recovered_mean": MeasureText(
        "Loss recovered", "By the rebuilt activations in place of their mean; 1 is as good as the activations."
    ),
    "accuracy_recovered_mean": MeasureText("Accuracy recovered", "Likewise."),
    "active_units": MeasureText("Active units", "Of one activation (L0)."),
    "dead_units": MeasureText("Dead units", "Those that no image fires.", True),
    "monosemanticity": MeasureText(
        "Monosemanticity",
        "How alike the images are that fire a unit, as the evaluator sees them: 0 is chance. Of units that fire on 1% "
        "of the images or more.",
    ),
}
SHOWN = ("generated", "standard", "robust", "real", "noise", "random", "untrained")
"""Dictionaries in the table."""
EXAMPLES = 2
"""Columns of a unit's picture before its examples: the image made for it, and where it looks."""
NAMED = 3
"""Classes that are named with a unit."""
TOLD = 0.05
"""Share from which on a class is named."""


class UnitView(NamedTuple):
    """One unit on the page."""

    title: str
    picture: Picture
    facts: list[tuple[str, str]]


class LearnedView(NamedTuple):
    """The chapter."""

    sentences: list[str]
    layer: str
    tables: list[tuple[str, Table]]
    """By the kind of images that was measured on."""
    matches: Table
    curves: "list[Markup]"
    units: list[UnitView]


def learned(found: Interpreted) -> LearnedView:
    """The chapter on one classifier.

    Raises:
        InputError: A picture is missing or damaged; names it.
    """
    results = found.results
    kinds = list(results.dictionaries[0].on)
    return LearnedView(
        sentences(results),
        f"{results.layer}: {results.dim} numbers"
        + (f", {results.constant} of them always the same" if results.constant else "")
        + (f" at each of {results.positions} positions" if results.positions > 1 else ""),
        [(kind, _table(results, kind)) for kind in kinds],
        _matches(results),
        _curves(results),
        [_unit(found, unit) for unit in results.units],
    )


def sentences(results: InterpretationResults) -> list[str]:
    """What follows from the numbers, beside the controls."""
    told, numbers = [], results.headline
    variance, accuracy = numbers["explained_variance"], numbers["accuracy_recovered_mean"]
    units, active = results.settings["dictionary"]["units"], results.settings["dictionary"]["active"]
    if isinstance(variance, Estimate):
        kept = f" and {percentage(accuracy.value)} of the accuracy" if isinstance(accuracy, Estimate) else ""
        told.append(
            f"A dictionary of {units} units, of which an activation uses {active}, keeps {percentage(variance.value)} "
            f"of the variance{kept} on generated images that it was not trained on."
        )
    alike, own = numbers["monosemanticity"], results.neurons
    if isinstance(alike, Estimate) and isinstance(own, Estimate):
        told.append(
            f"Images that fire one of its units are alike by {number(alike.value)} (monosemanticity), those that raise "
            f"one of the layer's own numbers by {number(own.value)}."
        )
    controls = {name: numbers[f"transfer_{name}"] for name in ("random", "untrained", "noise")}
    transfer = numbers["transfer"]
    if isinstance(transfer, NotMeasured) and "real" in results.dictionaries[0].on:
        told.append(f"How much loss the dictionary recovers on real images is not measured: {transfer.not_measured}.")
    told += _beside(
        transfer,
        controls,
        "On real images, the dictionary that saw generated ones only recovers {value} of the loss that one of real "
        "images recovers",
    )
    controls = {name: numbers[f"found_{name}"] for name in ("random", "untrained", "noise")}
    ceiling = numbers["found_ceiling"]
    beside = f" ({number(ceiling.value)} for another seed on real images)" if isinstance(ceiling, Estimate) else ""
    told += _beside(
        numbers["found"],
        controls,
        "The directions of real images have partners in it at a mean cosine of {value}" + beside,
    )
    return told


def _beside(measure: Measure, controls: Mapping[str, Measure], sentence: str) -> list[str]:
    """A sentence on a number, and whether it says more than the best of its controls; none without the number."""
    known = {name: control for name, control in controls.items() if isinstance(control, Estimate)}
    if not isinstance(measure, Estimate) or not known:
        return []
    name, best = max(known.items(), key=lambda item: item[1].value)
    if measure.low > best.high:
        verdict = f"more than the best control, the {name} dictionary, with {number(best.value)}"
    else:
        verdict = f"which tells nothing yet: the {name} dictionary, a control, has {number(best.value)}"
    return [f"{sentence.format(value=number(measure.value))}, {verdict}."]


def _table(results: InterpretationResults, kind: str) -> Table:
    rows = {row.name: row for row in results.dictionaries if row.name in SHOWN}
    cell = Cells()
    lines = [
        TableRow(text.title, text.meaning, [cell(row.on[kind][name], text) for row in rows.values()])
        for name, text in TEXTS.items()
    ]
    return Table("Measure", list(rows), lines, cell.notes)


def _matches(results: InterpretationResults) -> Table:
    cell = Cells()
    cosine = MeasureText("Mean cosine", "")
    share = MeasureText("Share of units", "", True)
    rows = [
        TableRow(f"{m.wanted}, in {m.among}", "", [cell(m.cosine, cosine), cell(m.found, share)])
        for m in results.matches
    ]
    return Table("Units of, found in", ["mean cosine of partners", "share at 0.7 or more"], rows, cell.notes)


def _curves(results: InterpretationResults) -> "list[Markup]":
    """What is kept at each sparsity, a chart for each measure; none where there is one sparsity only."""
    rows = sorted(
        (r for r in results.dictionaries if r.source == "generated" and not r.name.endswith("again")),
        key=lambda row: row.active,
    )
    charts = []
    for name in ("explained_variance", "loss_recovered_mean"):
        lines = []
        for kind, style in (("generated", "robust"), ("real", "test")):
            points = [(row.active, row.on[kind][name]) for row in rows if kind in row.on]
            lines.append(measured_line(f"{kind} images", style, points))
        drawn = [line for line in lines if len(line.x) > 1]
        if drawn:
            title = TEXTS[name].title
            charts.append(line_chart(f"{title} by sparsity", drawn, Axis("active units"), Axis(title.lower())))
    return charts


def _unit(found: Interpreted, unit: Unit) -> UnitView:
    results = found.results
    columns = EXAMPLES + int(results.settings["examples"])
    image = open_picture(found.folder / f"unit-{unit.unit}.png", 1, 1, mend="interpret again")
    fires = _named(unit.labels, results.classes)
    facts = [
        ("fires on", f"{percentage(unit.fires)} of generated images: {fires}"),
        *([("real images", _named(unit.real_labels, results.classes))] if unit.real_labels else []),
        *([("alike", number(unit.monosemanticity))] if unit.monosemanticity is not None else []),
        ("raises", _effects(unit.effect, results.classes)),
        ("switched off", _lost(unit.accuracy_lost, results.classes)),
        (
            "made image",
            f"{number(unit.made_strength)} times the strongest generated one; its own share of all units "
            f"{percentage(unit.made_purity)}, there {percentage(unit.strongest_purity)}",
        ),
    ]
    alt = f"Unit {unit.unit}: the image made for it, where it looks, images that fire it most; it fires on {fires}"
    return UnitView(f"Unit {unit.unit}", picture_of(image, columns, alt), facts)


def _named(shares: Sequence[float], classes: Sequence[str]) -> str:
    """The classes with the largest shares."""
    order = sorted(range(len(shares)), key=lambda k: -shares[k])[:NAMED]
    return ", ".join(f"{classes[k]} {percentage(shares[k])}" for k in order if shares[k] >= TOLD) or "many classes"


def _effects(effect: Sequence[float], classes: Sequence[str]) -> str:
    """The logits that a unit changes most."""
    order = sorted(range(len(effect)), key=lambda k: -abs(effect[k]))[:NAMED]
    return ", ".join(f"{classes[k]} by {number(effect[k])}" for k in order) + " (logits)"


def _lost(lost: Sequence[float | None], classes: Sequence[str]) -> str:
    """What it costs to do without a unit."""
    known = sorted(((share, k) for k, share in enumerate(lost) if share), reverse=True)[:NAMED]
    if not known:
        return "no image is read otherwise"
    return ", ".join(f"{classes[k]} loses {percentage(share)}" for share, k in known)
