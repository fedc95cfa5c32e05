"""Stage ``report``: one self-contained page on all data sets and variants.

This module says what the page consists of and ``report.html`` how it looks. What it shows comes from the modules named
``report_*``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from netinv.estimates import Measure
from pipeline.report_charts import (
    Choice,
    comparison_charts,
    condition_charts,
    intensity_chart,
    interval_charts,
    inversion_curves,
    robustness_chart,
    training_charts,
)
from pipeline.report_pictures import Grid, Neighbours, class_grid, figure, neighbours
from pipeline.report_results import (
    REFERENCES,
    Evaluated,
    compared,
    exported,
    load,
    read_ablations,
    stage_runs,
    title_of,
)
from pipeline.report_tables import (
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
from pipeline.report_words import Finding, description, findings
from pipeline.stage import replaced, stage_command, write_text

if TYPE_CHECKING:
    from markupsafe import Markup

    from pipeline.params import Params

MAX_GRIDS = 6
"""Grids of one variant: the ensemble's and those of the first generators."""


class VariantView(NamedTuple):
    """What the page shows of one variant."""

    name: str
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


class DatasetView(NamedTuple):
    """What the page shows of one data set."""

    name: str
    title: str
    description: str
    classes: tuple[str, ...]
    variants: list[VariantView]
    references: list[Grid]
    measures: Table
    vendi_n: int
    """Images of each class behind a Vendi score."""
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


@click.command()
@click.option("--evaluation", type=click.Path(path_type=Path), required=True, help="Folder of the evaluate stage.")
@click.option("--metrics", type=click.Path(path_type=Path), required=True, help="Folder of all metrics.")
@click.option("--plots", type=click.Path(path_type=Path), required=True, help="Folder of all plots.")
@click.option("--runs", type=click.Path(path_type=Path), required=True, help="Folder of the MLflow run ids.")
@click.option("--ablation", type=click.Path(path_type=Path), required=True, help="Folder of ablations; may be empty.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the page.")
@stage_command
def main(evaluation: Path, metrics: Path, plots: Path, runs: Path, ablation: Path, out: Path) -> None:
    """Write the report on all data sets and variants of params.yaml."""
    from pipeline import tracking
    from pipeline.params import load_params

    params = load_params()
    with replaced(out) as folder, tracking.stage_run("report", dataset="all") as run:
        page = render(params, evaluation, metrics, plots, runs, ablation, tracking.redacted(tracking.tracking_uri()))
        write_text(folder / "index.html", page)
        run.log_artifact(folder / "index.html")
    print(f"report: {out / 'index.html'}, {len(page) / 1e6:.1f} MB", file=sys.stderr)


def render(
    params: "Params", evaluation: Path, metrics: Path, plots: Path, runs: Path, ablation: Path, tracking_uri: str
) -> str:
    """The page.

    Args:
        params: Name the data sets and variants, and how they were inverted.
        evaluation: Folder of the evaluate stage.
        metrics: Folder of all metrics.
        plots: Folder of all plots.
        runs: Folder of the MLflow run ids.
        ablation: Folder of the tables of ablations; need not exist.
        tracking_uri: The store that the ids belong to, without credentials.

    Raises:
        InputError: A stage's output is missing or damaged; names it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = {
        dataset: [load(dataset, variant, evaluation, plots) for variant in params.variants]
        for dataset in params.datasets
    }
    return environment.get_template("report.html").render(
        sets=[_dataset_view(dataset, found[dataset], params, metrics, plots, runs, tracking_uri) for dataset in found],
        headline=headline_table(found),
        comparison=comparison_charts(found),
        ablations=[(found.title, ablation_table(found)) for found in read_ablations(ablation)],
        on_server=tracking_uri.startswith("http"),
    )


def _dataset_view(
    dataset: str,
    found: Sequence[Evaluated],
    params: "Params",
    metrics: Path,
    plots: Path,
    runs: Path,
    tracking_uri: str,
) -> DatasetView:
    first = found[0].results
    return DatasetView(
        name=dataset,
        title=title_of(dataset),
        description=description(found),
        classes=first.classes,
        variants=[_variant_view(e, dataset, params, metrics) for e in found],
        references=[
            class_grid(found[0], name, title)
            for name, (title, _) in REFERENCES.items()
            if found[0].row(name).samples  # real images may not have been given
        ],
        measures=measure_table(_columns(found)),
        vendi_n=first.vendi_n,
        intervals=interval_charts(found),
        robustness=robustness_chart(found),
        robustness_table=robustness_table(found),
        attack=(
            f"PGD, {first.settings['attack_steps']} steps of {2.5 / first.settings['attack_steps']:.3g} ε, one random "
            "start, L-infinity bound ε in pixels of [0, 1], "
            f"on {first.settings['robust_samples']} images of each kind. A stronger attack can only lower the curves."
        ),
        curves=inversion_curves(found),
        training=training_charts(dataset, plots),
        intensity=intensity_chart(found),
        accuracy_by_condition=condition_charts(found),
        confusion=confusion(found),
        by_class=class_tables(found),
        classifier_export=exported(metrics / "export" / f"{dataset}-classifiers.json"),
        runs=stage_runs(dataset, params.variants, runs, tracking_uri),
    )


def _columns(found: Sequence[Evaluated]) -> dict[str, dict[str, Measure]]:
    """Measures by the title of a column: every variant, without dropout and with it, and the references."""
    columns: dict[str, dict[str, Measure]] = {}
    for title, _, row in compared(found):
        columns[title] = row.measures
        if row.kind == "ensemble":
            columns[f"{title}, dropout on"] = row.dropout
    return columns


def _variant_view(e: Evaluated, dataset: str, params: "Params", metrics: Path) -> VariantView:
    from pipeline.tracking import flatten

    inversion = params.for_dataset(dataset).invert
    settings = {**inversion.common.model_dump(mode="json"), **getattr(inversion, e.variant).model_dump(mode="json")}
    references = {title: e.row(name) for name, (title, _) in REFERENCES.items()}
    # Closer: the first generator that copies, or all of them.
    audited = next((row for row in e.generators if row.audit.memorised), e.row("ensemble"))
    return VariantView(
        name=e.variant,
        figure=figure(e),
        findings=findings(e),
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
        settings=flatten(settings),
        export=exported(metrics / "export" / f"{dataset}-{e.variant}.json"),
    )


if __name__ == "__main__":
    main()
