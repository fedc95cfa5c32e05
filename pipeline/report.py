"""Stage ``report``: one self-contained page on all data sets and variants."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netinv.core import redacted, write_text
from pipeline.stage import path_option, replaced, stage_command

if TYPE_CHECKING:
    from netinv.report import Interpreted, Inverted
    from pipeline.params import Params

CHIEF = ("num_generators", "steps", "batch_size", "sharpness", "alpha", "beta", "gamma", "perturbation", "epsilon")
"""Settings of an inversion that its pipeline's run shows; the stages' runs have all."""


@click.command()
@path_option("--evaluation", help="Folder of the evaluate stage.")
@path_option("--interpretation", help="Folder of that stage.")
@path_option("--metrics", help="Folder of all metrics.")
@path_option("--plots", help="Folder of all plots.")
@path_option("--runs", help="Folder of the MLflow run ids.")
@path_option("--ablation", help="Folder of ablations; may be empty.")
@path_option("--out", help="Folder for the page.")
@stage_command
def main(
    evaluation: Path, interpretation: Path, metrics: Path, plots: Path, runs: Path, ablation: Path, out: Path
) -> None:
    """Write the report on all data sets and variants of params.yaml."""
    from netinv.report import read_ablations, render, summary
    from pipeline import tracking
    from pipeline.params import load_params

    params = load_params()
    with (
        replaced(out) as folder,
        tracking.stage_run("report", "all", params=_chief_settings(params), wait=True, for_pipeline=True) as run,
    ):
        store = redacted(tracking.tracking_uri())
        inverted = collect(params, evaluation, interpretation, metrics, plots, runs, store)
        page = render(inverted, read_ablations(ablation), on_server=store.startswith("http"))
        write_text(folder / "index.html", page)
        run.log_artifact(folder / "index.html")
        run.log_metrics(_headlines(inverted))
        folders = [evaluated.folder for one in inverted for evaluated in one.variants]
        run.describe(f"```text\n{summary(folders, width=80)}```\n\nThe whole report: *Artifacts*, `index.html`.")
    print(f"report: {out / 'index.html'}, {len(page) / 1e6:.1f} MB", file=sys.stderr)


def _chief_settings(params: "Params") -> dict[str, Any]:
    """What tells one pipeline from another: what is set over the presets, and the inversion's chief settings."""
    chief: dict[str, Any] = {}
    for dataset in params.datasets:
        invert = params.for_dataset(dataset).invert.model_dump(mode="json")
        for variant in params.variants:
            settings = invert["common"] | invert[variant]
            chief[f"{dataset}/{variant}"] = {name: settings[name] for name in CHIEF}
    return {"datasets": list(params.datasets), "variants": list(params.variants), **params.overrides, **chief}


def _headlines(inverted: "list[Inverted]") -> dict[str, float]:
    """The headline numbers of each variant that were measured, as ``<data set>/<variant>/<measure>``."""
    from netinv.results import HEADLINE, Estimate

    found: dict[str, float] = {}
    for one in inverted:
        for variant, results, *_ in one.variants:
            for name in HEADLINE:
                if isinstance(measure := results.headline[name], Estimate):
                    found[f"{one.name}/{variant}/{name}"] = measure.value
            if results.leak is not None:
                found[f"{one.name}/{variant}/leak"] = float(results.leak)
    return found


def collect(
    params: "Params",
    evaluation: Path,
    interpretation: Path,
    metrics: Path,
    plots: Path,
    runs: Path,
    tracking_uri: str,
) -> "list[Inverted]":
    """What the other stages left.

    Args:
        params: Name the data sets and variants, and how they were inverted.
        evaluation: Folder of the evaluate stage.
        interpretation: Folder of the interpret stage.
        metrics: Folder of all metrics.
        plots: Folder of all plots.
        runs: Folder of the MLflow run ids.
        tracking_uri: The store that the ids belong to, without credentials.

    Raises:
        InputError: A stage's output is missing or damaged; names it.
    """
    from netinv.core import read_numbers
    from netinv.report import CURVES, MEND, TRAINING, Evaluated, Inverted
    from netinv.results import load_results
    from pipeline.tracking import flatten

    found = []
    for dataset in params.datasets:
        inversion = params.for_dataset(dataset).invert
        variants = []
        for variant in params.variants:
            folder = evaluation / dataset / variant
            settings = inversion.common.model_dump(mode="json") | getattr(inversion, variant).model_dump(mode="json")
            variants.append(
                Evaluated(
                    variant,
                    load_results(folder / "results.json"),
                    folder,
                    curves=read_numbers(plots / "invert" / f"{dataset}-{variant}.csv", MEND, CURVES),
                    settings=flatten(settings),
                    export=_exported(metrics / "export" / f"{dataset}-{variant}.json"),
                )
            )
        found.append(
            Inverted(
                dataset,
                variants,
                training={
                    model: read_numbers(plots / "train" / f"{dataset}-{model}.csv", MEND, TRAINING)
                    for model in ("classifier", "evaluator")
                },
                export=_exported(metrics / "export" / f"{dataset}-classifiers.json"),
                runs=_stage_runs(dataset, params.variants, runs, tracking_uri),
                interpretation=_interpreted(interpretation / dataset),
            )
        )
    return found


def _interpreted(folder: Path) -> "Interpreted | None":
    """What the interpret stage found; nothing where it has not run."""
    from netinv.report import Interpreted
    from netinv.results import load_interpretation

    return Interpreted(load_interpretation(folder), folder) if folder.exists() else None


def _exported(path: Path) -> dict[str, str]:
    """What the export stage measured; nothing where it has not run."""
    from netinv.report import read_values
    from netinv.results import number, percentage

    values = read_values(path) if path.exists() else {}

    def told(name: str, value: float | str) -> str:
        if isinstance(value, str):
            return value
        if name.endswith("/refused"):
            return f"of {int(value)} generators" if value else "of none"
        return percentage(value) if name.endswith(("/size", "_loss")) else number(value)

    return {name.replace("/", ": ").replace("_", " "): told(name, value) for name, value in values.items()}


def _stage_runs(dataset: str, variants: Iterable[str], runs: Path, tracking_uri: str) -> list[tuple[str, str, str]]:
    """The MLflow runs behind a data set's figures, in the order of the stages."""
    from pipeline.tracking import read_lineage

    stages = {
        "fetch": [dataset],
        "train": [f"{dataset}-classifier", f"{dataset}-evaluator"],
        **{stage: [f"{dataset}-{variant}" for variant in variants] for stage in ("invert", "evaluate", "export")},
    }
    stages["interpret"] = [dataset]
    stages["export"].append(f"{dataset}-classifiers")
    stages["register"] = stages["invert"]  # where it has ended already: the report does not wait for it
    found = []
    for stage, names in stages.items():
        for path in (runs / stage / f"{name}.json" for name in names):
            if run_id := read_lineage(path).run_id:
                address = f"{tracking_uri}/#/runs/{run_id}" if tracking_uri.startswith("http") else ""
                found.append((f"{stage} {path.stem.removeprefix(dataset).lstrip('-')}", run_id, address))
    return found


if __name__ == "__main__":
    main()
