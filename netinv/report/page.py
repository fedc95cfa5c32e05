"""One self-contained page on everything that was inverted.

This module says what the page consists of; ``page.html``, ``page.css`` and ``page.js`` say how it looks and what it
does. The other modules of the package make what it shows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from netinv.core import InputError, page_template
from netinv.report.checks import check_inputs
from netinv.report.curves import (
    Choice,
    comparison_charts,
    condition_charts,
    intensity_chart,
    interval_charts,
    inversion_curves,
    robustness_chart,
    training_charts,
)
from netinv.report.inputs import REFERENCES, TITLES, Ablation, Evaluated, Inverted, compared, sources_of, title_of
from netinv.report.learned import LearnedView, learned
from netinv.report.pictures import Grid, Neighbours, class_grid, figure, neighbours
from netinv.report.tables import (
    Matrix,
    Table,
    ablation_table,
    audit_class_table,
    audit_table,
    audits_table,
    class_tables,
    confusion,
    headline_table,
    measure_table,
    robustness_table,
)
from netinv.report.words import description, span
from netinv.results import Estimate, Finding, Measure, each_class, findings

if TYPE_CHECKING:
    from markupsafe import Markup

NOISE_ROWS = ", in the rows of the classes that the classifier takes it for"
"""Why noise fills few rows."""
IDS = ("summary", "ablations", "reading", "theme", "tip", "enlarged")
"""Of the page's own parts."""
MAX_GRIDS = 6
"""Grids of one variant: the ensemble's and those of the first generators."""


class VariantView(NamedTuple):
    """What the page shows of one variant."""

    name: str
    style: str
    """Class in the style sheet."""
    figure: Grid
    findings: list[Finding]
    grids: list[Grid]
    """Many images of each class: of the ensemble, of each generator."""
    measures: Table
    audits: Table
    """Of each generator, all together, and the references."""
    audited: str
    """The row that the next four look at closer."""
    audit: Table
    audit_by_class: Table
    pool: int
    """Images of either kind that the audit compared with."""
    neighbours: list[Neighbours]
    settings: dict[str, str]
    export: dict[str, str]


class SetView(NamedTuple):
    """What the page shows of one classifier."""

    name: str
    """Its id."""
    title: str
    description: str
    classes: tuple[str, ...]
    each_class: str
    """Of which classes its grids have a row, in words."""
    variants: list[VariantView]
    references: list[Grid]
    measures: Table
    vendi_n: str
    """How many images of each class are behind a Vendi score."""
    intervals: tuple[list[Choice], list[Choice]]
    """How images are read; how diverse and how real they are."""
    robustness: "Markup"
    robustness_table: Table
    attack: str
    curves: list[Choice]
    training: "list[Markup]"
    intensity: "Markup"
    accuracy_by_condition: list[Choice]
    confusion: list[Matrix]
    by_class: list[tuple[str, Table]]
    classifier_export: dict[str, str]
    runs: list[tuple[str, str, str]]
    """Stage, id and address of each MLflow run; no address where the store is no server."""
    learned: LearnedView | None


def render(inverted: Sequence[Inverted], ablations: Sequence[Ablation] = (), on_server: bool = True) -> str:
    """The page, as HTML that needs nothing else.

    Args:
        inverted: Classifiers and what was found on them.
        ablations: Tables of ablations.
        on_server: MLflow's runs have addresses to link to.

    Raises:
        InputError: A picture is missing or damaged, or two things have one name; names it.
    """
    _expect_distinct([one.name for one in inverted])
    for one in inverted:
        names = [e.variant for e in one.variants]
        _expect_distinct([*names, *(f"{name}, dropout on" for name in names), *TITLES])
    check_inputs(inverted)
    found = {one.name: one.variants for one in inverted}
    return page_template(Path(__file__).parent).render(
        sets=[_set_view(one, name) for one, name in zip(inverted, _ids([one.name for one in inverted]), strict=True)],
        headline=headline_table(found),
        comparison=comparison_charts(found),
        ablations=[(ablation.title, ablation_table(ablation)) for ablation in ablations],
        on_server=on_server,
    )


def _expect_distinct(names: Sequence[str]) -> None:
    """Tables have a column for each name."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Two things are called {name}: give each a name of its own.")


def _ids(names: Sequence[str]) -> list[str]:
    """An id for each name, without spaces, which nothing else of the page has."""
    found = [*IDS]
    for name in names:
        place = "-".join(name.replace(",", " ").split())
        while place in found:
            place += "-"
        found.append(place)
    return found[len(IDS) :]


def _set_view(inverted: Inverted, name: str) -> SetView:
    found = inverted.variants
    first = found[0].results
    return SetView(
        name=name,
        title=title_of(inverted.name),
        description=description(found),
        classes=first.classes,
        each_class=each_class(len(first.classes)),
        variants=[_variant_view(e) for e in found],
        references=[
            class_grid(e, name, told + NOISE_ROWS if name == "noise" else told)
            for name, (title, _) in REFERENCES.items()
            for told, e in sources_of(found, name, title)
            if e.row(name).samples  # real images may not have been given
        ],
        measures=measure_table(_columns(found)),
        vendi_n=span(e.results.vendi_n for e in found),
        intervals=interval_charts(found),
        robustness=robustness_chart(found),
        robustness_table=robustness_table(found),
        attack=_attack(found),
        curves=inversion_curves(found),
        training=training_charts(inverted.training),
        intensity=intensity_chart(found),
        accuracy_by_condition=condition_charts(found),
        confusion=confusion(found),
        by_class=class_tables(found),
        classifier_export=inverted.export,
        runs=inverted.runs,
        learned=learned(inverted.interpretation) if inverted.interpretation else None,
    )


def _attack(found: Sequence[Evaluated]) -> str:
    """How images were attacked, and how many of them."""
    steps = found[0].results.settings["attack_steps"]
    points = [row.robustness[0].accuracy for _, _, row in compared(found) if row.robustness]
    return (
        f"PGD, {steps} steps of {2.5 / steps:.3g} ε, one random start, L-infinity bound ε in pixels of [0, 1], on "
        f"{span(point.n for point in points if isinstance(point, Estimate))} images of each kind. A stronger attack "
        "can only lower the curves."
    )


def _columns(found: Sequence[Evaluated]) -> dict[str, dict[str, Measure]]:
    """Measures by the title of a column: every variant, without dropout and with it, and the references."""
    columns: dict[str, dict[str, Measure]] = {}
    for title, _, row in compared(found):
        columns[title] = row.measures
        if row.kind == "ensemble":
            columns[f"{title}, dropout on"] = row.dropout
    return columns


def _variant_view(e: Evaluated) -> VariantView:
    references = {title: e.row(name) for name, (title, _) in REFERENCES.items()}
    # Closer: the first generator that copies, or all of them.
    audited = next((row for row in e.generators if row.audit.memorised), e.row("ensemble"))
    return VariantView(
        name=e.variant,
        style=e.style,
        figure=figure(e),
        findings=findings(e.results, e.row("ensemble")),
        grids=[
            class_grid(e, row.name, f"{e.variant}, {row.name}")
            for row in [e.row("ensemble"), *e.generators][:MAX_GRIDS]
        ],
        measures=measure_table(
            {row.name: row.measures for row in [*e.generators, e.row("ensemble")]}
            | {f"{row.name}, dropout on": row.dropout for row in e.generators}
        ),
        audits=audits_table({row.name: row for row in [*e.generators, e.row("ensemble")]} | references),
        audited=audited.name,
        audit=audit_table(audited.audit),
        audit_by_class=audit_class_table(audited.audit, e.results.classes),
        pool=audited.audit.pool,
        neighbours=neighbours(e, audited),
        settings=e.settings,
        export=e.export,
    )
