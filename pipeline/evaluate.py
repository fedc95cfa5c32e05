"""Stage ``evaluate``: every measure of a variant's generators, with its controls."""

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netinv.core import VARIANTS, Variant, best_device, save_csv, write_text
from netinv.results import HEADLINE, findings
from pipeline.judges import Judges, load_judges
from pipeline.stage import path_option, replaced, stage_command

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from netinv.results import Measure, Results

    Pixels = NDArray[np.uint8]
    Table = list[tuple[object, ...]]

PLOTS = {
    "robustness": ("epsilon", "source", "accuracy"),
    "accuracy_by_gap": ("gap", "source", "accuracy"),
    "calibration": ("wanted", "source", "obtained"),
    "confusion": ("actual", "predicted", "count"),
    "confusion_evaluator": ("actual", "predicted", "count"),
}
"""Columns of the DVC plots. Each is written even without rows: DVC takes a missing output for a failure."""


@click.command()
@click.argument("dataset")
@click.argument("variant", type=click.Choice(VARIANTS))
@path_option("--data", help="Folder of the data set.")
@path_option("--models", help="Folder of classifier and evaluator.")
@path_option("--generators", help="Folder of the generators.")
@path_option("--out", help="Folder for results.json and the grids.")
@path_option("--metrics", help="JSON file for the headline numbers.")
@path_option("--plots", help="Folder for the plots.")
@stage_command
def main(
    dataset: str,
    variant: Variant,
    data: Path,
    models: Path,
    generators: Path,
    out: Path,
    metrics: Path,
    plots: Path,
) -> None:
    """Measure the generators of VARIANT (standard or robust) on DATASET."""
    from netinv.data import load_spec, load_split
    from netinv.evaluation import evaluate, save_evaluation
    from netinv.generators import load_generators
    from pipeline import tracking
    from pipeline.params import load_params

    params = load_params()
    config = params.evaluate
    settings = params.for_dataset(dataset)
    inversion = getattr(settings.invert, variant)
    spec = load_spec(data)
    device = best_device()
    inputs = [tracking.lineage_path("train", dataset, model) for model in Judges._fields]
    with (
        replaced(out, metrics) as folder,
        replaced(plots) as plot_folder,
        tracking.stage_run(
            "evaluate",
            dataset=dataset,
            variant=variant,
            params=config.model_dump(mode="json"),
            inputs=[*inputs, tracking.lineage_path("invert", dataset, variant)],
        ) as run,
    ):
        run.log_dataset(spec, data)
        train, test = load_split(data, "train"), load_split(data, "test")
        networks = [network.to(device) for network in load_generators(generators)]
        classifier, evaluator = load_judges(models, settings.train, device)
        evaluation = evaluate(networks, classifier, evaluator, spec.classes, train, test, config, inversion.sharpness)
        results = evaluation.results
        figure = save_evaluation(folder, evaluation, train, test)
        shutil.copyfile(folder / "figure2.png", plot_folder / "grid.png")
        for name, table in _tables(results).items():
            _write_table(plot_folder / f"{name}.csv", PLOTS[name], table)
        numbers = _metrics(results)
        run.log_metrics({f"evaluate/{name}": value for name, value in numbers.items() if not isinstance(value, str)})
        run.log_image(figure, key="samples")
        run.log_artifact(folder / "results.json")
        ensemble = next(row for row in results.rows if row.kind == "ensemble")
        run.describe("\n".join(f"- {finding.line}" for finding in findings(results, ensemble)))
        write_text(metrics, json.dumps({name: numbers[name] for name in (*HEADLINE, "leak")}, indent=2) + "\n")
    _print_summary(f"evaluate {dataset} {variant}", results)


def _print_summary(title: str, results: "Results") -> None:
    """Print the two accuracies that matter most, and what the privacy audit says."""
    found = (results.headline[name] for name in ("inversion_accuracy", "evaluator_accuracy"))
    told = [str(measure) if measure.value is None else f"{measure.value:.3f}" for measure in found]
    print(f"{title}: inversion accuracy {told[0]}, evaluator accuracy {told[1]}", file=sys.stderr)
    print(f"{title}: {results.verdict}", file=sys.stderr)


def _metrics(results: "Results") -> dict[str, float | str]:
    """Headline numbers, and each generator's accuracies; what was not measured says why."""

    def plain(measure: "Measure") -> float | str:
        return str(measure) if measure.value is None else measure.value

    numbers = {name: plain(measure) for name, measure in results.headline.items()}
    for row in results.rows:
        if row.kind == "generator":
            for name in ("inversion_accuracy", "evaluator_accuracy"):
                numbers[f"{row.name.replace(' ', '_')}_{name}"] = plain(row.measures[name])
    numbers["leak"] = results.verdict if results.leak is None else float(results.leak)
    return numbers


def _tables(results: "Results") -> "dict[str, Table]":
    """The rows of the DVC plots, by name; what was not measured has none."""
    from netinv.results import Estimate

    tables: dict[str, Table] = {name: [] for name in PLOTS}
    for row in results.rows:
        for point in row.robustness:
            if isinstance(point.accuracy, Estimate):
                tables["robustness"].append((point.epsilon, row.name, point.accuracy.value))
        for part in row.by_gap:
            if isinstance(part.inversion_accuracy, Estimate):
                tables["accuracy_by_gap"].append((part.low, row.name, part.inversion_accuracy.value))
        for cell in row.calibration:
            if isinstance(cell.wanted, Estimate) and isinstance(cell.obtained, Estimate):
                tables["calibration"].append((cell.wanted.value, row.name, cell.obtained.value))
    ensemble = next(row for row in results.rows if row.kind == "ensemble")
    for network, name in (("classifier", "confusion"), ("evaluator", "confusion_evaluator")):
        for wanted, counts in zip(results.classes, ensemble.confusion.get(network, ()), strict=False):
            for predicted, count in zip(results.classes, counts, strict=True):
                if count or wanted == predicted:  # each class has its place on both axes
                    tables[name].append((wanted, predicted, count))
    return tables


def _write_table(path: Path, columns: "tuple[str, ...]", table: "Table") -> None:
    if table:
        save_csv(path, [dict(zip(columns, values, strict=True)) for values in table])
    else:
        write_text(path, ",".join(columns) + "\n")


if __name__ == "__main__":
    main()
