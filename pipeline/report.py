"""Stage ``report``: one self-contained page on all data sets and variants.

This module gathers what the page says; ``report.html`` is how it looks, and ``charts.py`` draws its lines.
"""

import base64
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from netinv.errors import InputError
from netinv.estimates import Estimate, Measure, NotMeasured
from netinv.results import Audit, Results, Row, load_results
from pipeline.charts import Axis, Interval, Series, interval_chart, line_chart, number, percentage
from pipeline.stage import replaced, stage_command, write_text

if TYPE_CHECKING:
    from markupsafe import Markup
    from PIL.Image import Image

    from pipeline.params import Params

MAX_CLASSES = 20
"""Rows of the evaluation's grids, and of a confusion matrix that is a table; above this it is an image."""
MAX_CONFUSIONS = 10
"""Most frequent confusions named."""
MAX_LOSSLESS = 60_000
"""Bytes of a picture that is kept exactly as it is; larger ones are compressed."""
MAX_GRIDS = 6
"""Grids of one variant: the ensemble's and those of the first generators."""
MAX_SIDE = 1600
"""Pixels along the longer side of a picture."""
CELL = 46
"""Width of an image on the page, in its pixels."""
COLUMNS = 10
"""Images of a class in the evaluation's picture of one source."""

Grade = Literal["good", "fair", "bad", "unknown"]


class MeasureText(NamedTuple):
    """What people should know of a measure."""

    title: str
    meaning: str
    percent: bool = False

    def show(self, value: float) -> str:
        """A value in words."""
        return percentage(value) if self.percent else number(value)


MEASURES = {
    "inversion_accuracy": MeasureText(
        "Inversion accuracy", "The inverted classifier reads the class that was asked for.", True
    ),
    "inversion_accuracy_gap": MeasureText(
        "Inversion accuracy, no near-ties", "Where the condition's two largest entries are 0.05 apart or more.", True
    ),
    "inversion_accuracy_dropout": MeasureText(
        "Inversion accuracy, dropout on", "For images drawn with the generator's dropout left on.", True
    ),
    "evaluator_accuracy": MeasureText(
        "Evaluator accuracy",
        "An independent network, which no generator ever saw, reads that class too; on noise, that both agree.",
        True,
    ),
    "evaluator_accuracy_gap": MeasureText(
        "Evaluator accuracy, no near-ties", "Where the condition's two largest entries are 0.05 apart or more.", True
    ),
    "evaluator_accuracy_dropout": MeasureText(
        "Evaluator accuracy, dropout on", "For images drawn with the generator's dropout left on.", True
    ),
    "kl": MeasureText("KL divergence", "Of the classifier's output from the condition, in nats; 0 is exact."),
    "intensity_error": MeasureText(
        "Intensity error", "Mean gap between the probability asked for and the one obtained; 0 is exact."
    ),
    "intensity_correlation": MeasureText(
        "Intensity correlation", "Of the probability asked for with the one obtained; 1 is exact."
    ),
    "vendi": MeasureText("Vendi score", "Effective number of distinct images of a class, on evaluator features."),
    "vendi_ratio": MeasureText("Vendi score over real", "Over that of real test images; 1 is as diverse as they are."),
    "vendi_dropout": MeasureText("Vendi score, dropout on", "For images drawn with the generator's dropout left on."),
    "vendi_overall": MeasureText("Vendi score, all classes", "Of images of all classes at once."),
    "vendi_centred": MeasureText(
        "Centred Vendi score", "On features less their mean over real images: tells repetition from variety better."
    ),
    "vendi_centred_ratio": MeasureText("Centred Vendi score over real", "Over that of real test images."),
    "vendi_pixels": MeasureText("Pixel Vendi score", "The same on pixels, where no network has a say."),
    "vendi_pixels_ratio": MeasureText("Pixel Vendi score over real", "Over that of real test images."),
    "cosine_within": MeasureText("Cosine within classes", "Mean over pairs of one class; 1 is all alike."),
    "cosine_between": MeasureText("Cosine between classes", "Mean over pairs of two classes; 1 is all alike."),
    "density": MeasureText("Density", "How far the images lie where real ones do; about 1 for real images."),
    "coverage": MeasureText("Coverage", "Share of the real test images with one of these nearby.", True),
    "frechet": MeasureText("Fréchet distance", "To real test images; that of real training images is the floor."),
    "robust_accuracy": MeasureText("Robust accuracy", "Images that keep their class under attack.", True),
    "student_accuracy": MeasureText(
        "Student accuracy", "On real test images, of a fresh network trained on these images alone.", True
    ),
}
"""Of every measure in a row of the results."""

HEADLINE = (
    "inversion_accuracy",
    "evaluator_accuracy",
    "robust_accuracy",
    "vendi_ratio",
    "vendi_centred_ratio",
    "student_accuracy",
)
"""The measures that the summary shows."""
REFERENCES = {"real_train": ("real, train", "train"), "real_test": ("real, test", "test"), "noise": ("noise", "noise")}
"""Title and class in the style sheet of the rows to compare with."""
DISTANCES = {
    "pixel": "Euclidean, between pixels",
    "ssim": "1 - SSIM, structural similarity",
    "feature": "Euclidean, between evaluator features of unit length",
}
"""Kinds of distance to real images."""
READINGS = {
    "good": "they show what a class looks like",
    "fair": "many show what a class looks like",
    "bad": "most are inputs that only the inverted classifier reads so",
}
"""What evaluator accuracy says, by its grade."""
DIVERSITY = ("vendi", "cosine", "density", "coverage", "frechet")
"""Beginnings of the names of measures that say how diverse and how real images are, not how they are read."""


class Evaluated(NamedTuple):
    """What the pipeline found on one variant."""

    variant: str
    results: Results
    folder: Path
    """Of the evaluation's pictures."""
    curves: list[dict[str, float]]
    """Records of all generators' training."""

    def row(self, name: str) -> Row:
        """The row of one source of images."""
        return next(row for row in self.results.rows if row.name == name)

    @property
    def generators(self) -> list[Row]:
        """The rows of single generators."""
        return [row for row in self.results.rows if row.kind == "generator"]


class Cell(NamedTuple):
    """A measure as a table shows it."""

    text: str
    interval: str = ""
    note: int = 0
    """Number of the note that says why there is no number; 0 if there is one."""


class TableRow(NamedTuple):
    """A line of a table."""

    header: str
    meaning: str
    cells: list[Cell]


class Table(NamedTuple):
    """A table whose first column and first row are headers."""

    corner: str
    columns: list[str]
    rows: list[TableRow]
    notes: list[str]
    """Why cells without a number have none."""


class Cells:
    """Makes the cells of one table, and collects why some have no number."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __call__(self, measure: Measure, text: MeasureText) -> Cell:
        """A measure as the table shows it."""
        if isinstance(measure, NotMeasured):
            if measure.not_measured not in self.notes:
                self.notes.append(measure.not_measured)
            return Cell("not measured", note=self.notes.index(measure.not_measured) + 1)
        low, high = text.show(measure.low), text.show(measure.high)
        return Cell(text.show(measure.value), f"{low.removesuffix('%')} to {high}")


class Finding(NamedTuple):
    """One sentence of the summary."""

    grade: Grade
    text: str


class Choice(NamedTuple):
    """Views of which the page shows one at a time."""

    title: str
    views: "list[Markup]"


class Matrix(NamedTuple):
    """A confusion matrix: a table, or where there are too many classes a picture and words."""

    title: str
    rows: list[list[tuple[float, int]]]
    """Share of the wanted class, and count."""
    picture: "Picture | None" = None
    confusions: str = ""
    """The most frequent confusions."""


class Picture(NamedTuple):
    """An image of the page."""

    uri: str
    """Data URI."""
    width: float
    """On the page, in its pixels."""
    alt: str


class Grid(NamedTuple):
    """A picture with a row for each class."""

    title: str
    picture: Picture
    columns: list[str]
    """A label for each column, or none at all."""
    classes: tuple[str, ...]
    real: Picture | None = None
    """A column of real images to compare with."""


class Neighbours(NamedTuple):
    """The generated images nearest to training images, by one kind of distance."""

    title: str
    rows: list[tuple[str, Picture, str, str]]
    """Class; generated, training and test image side by side; distance to the two."""


class VariantView(NamedTuple):
    """What the page shows of one variant."""

    name: str
    figure: Grid
    findings: list[Finding]
    grids: list[Grid]
    """Many images of each class: of the ensemble, of each generator."""
    measures: Table
    audit: Table
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
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the page.")
@stage_command
def main(evaluation: Path, metrics: Path, plots: Path, runs: Path, out: Path) -> None:
    """Write the report on all data sets and variants of params.yaml."""
    from pipeline import tracking
    from pipeline.params import load_params

    params = load_params()
    with replaced(out) as folder, tracking.stage_run("report", dataset="all") as run:
        page = render(params, evaluation, metrics, plots, runs, tracking.redacted(tracking.tracking_uri()))
        write_text(folder / "index.html", page)
        run.log_artifact(folder / "index.html")
    print(f"report: {out / 'index.html'}, {len(page) / 1e6:.1f} MB", file=sys.stderr)


def render(params: "Params", evaluation: Path, metrics: Path, plots: Path, runs: Path, tracking_uri: str) -> str:
    """The page.

    Args:
        params: Name the data sets and variants, and how they were inverted.
        evaluation: Folder of the evaluate stage.
        metrics: Folder of all metrics.
        plots: Folder of all plots.
        runs: Folder of the MLflow run ids.
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
        dataset: [_load(dataset, variant, evaluation, plots) for variant in params.variants]
        for dataset in params.datasets
    }
    return environment.get_template("report.html").render(
        sets=[_dataset_view(dataset, found[dataset], params, metrics, plots, runs, tracking_uri) for dataset in found],
        headline=_headline_table(found),
        comparison=_comparison_charts(found),
        on_server=tracking_uri.startswith("http"),
    )


def _load(dataset: str, variant: str, evaluation: Path, plots: Path) -> Evaluated:
    folder = evaluation / dataset / variant
    curves = read_csv(plots / "invert" / f"{dataset}-{variant}.csv")
    return Evaluated(variant, load_results(folder / "results.json"), folder, curves)


def read_csv(path: Path) -> list[dict[str, float]]:
    """Read a table of numbers.

    Raises:
        InputError: The file is missing or holds something else.
    """
    try:
        with path.open(newline="") as file:
            records = [{key: float(value) for key, value in record.items()} for record in csv.DictReader(file)]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not a readable table of numbers ({error}): run its stage again.") from None
    if not records:
        raise InputError(f"{path} holds no records: run its stage again.")
    return records


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
        title=_title(dataset),
        description=_description(found),
        classes=first.classes,
        variants=[_variant_view(e, dataset, params, metrics) for e in found],
        references=[
            _class_grid(found[0], name, title)
            for name, (title, _) in REFERENCES.items()
            if found[0].row(name).samples  # real images may not have been given
        ],
        measures=_measure_table({title: row for title, _, row in _compared(found)}),
        vendi_n=first.vendi_n,
        intervals=_interval_charts(found),
        robustness=_robustness_chart(found),
        robustness_table=_robustness_table(found),
        attack=(
            f"PGD, {first.settings['attack_steps']} steps, one random start, L-infinity bound ε in pixels of [0, 1], "
            f"on {first.settings['robust_samples']} images of each kind. A stronger attack can only lower the curves."
        ),
        curves=_inversion_curves(found),
        training=_training_charts(dataset, plots),
        intensity=_intensity_chart(found),
        accuracy_by_condition=_condition_charts(found),
        confusion=_confusion(found),
        by_class=_class_tables(found),
        classifier_export=_export(metrics / "export" / f"{dataset}-classifiers.json"),
        runs=_runs(dataset, params.variants, runs, tracking_uri),
    )


def _variant_view(e: Evaluated, dataset: str, params: "Params", metrics: Path) -> VariantView:
    from pipeline.tracking import flatten

    inversion = params.for_dataset(dataset).invert
    settings = {**inversion.common.model_dump(mode="json"), **getattr(inversion, e.variant).model_dump(mode="json")}
    audit = e.row("ensemble").audit
    assert audit is not None  # only references have none
    return VariantView(
        name=e.variant,
        figure=_figure(e),
        findings=_findings(e),
        grids=[
            _class_grid(e, row.name, f"{e.variant}, {row.name}")
            for row in [e.row("ensemble"), *e.generators][:MAX_GRIDS]
        ],
        measures=_measure_table({row.name: row for row in [*e.generators, e.row("ensemble")]}),
        audit=_audit_table(audit),
        pool=audit.pool,
        neighbours=_neighbours(e, audit),
        settings=flatten(settings),
        export=_export(metrics / "export" / f"{dataset}-{e.variant}.json"),
    )


def _title(dataset: str) -> str:
    return dataset.replace("_", " ")


def _export(path: Path) -> dict[str, str]:
    """What the export stage measured; nothing where it has not run."""
    return {name: number(value) for name, value in json.loads(path.read_text()).items()} if path.exists() else {}


def _runs(dataset: str, variants: Iterable[str], runs: Path, tracking_uri: str) -> list[tuple[str, str, str]]:
    """The MLflow runs behind a data set's figures, in the order of the stages."""
    stages = {
        "fetch": [dataset],
        "train": [f"{dataset}-classifier", f"{dataset}-evaluator"],
        **{stage: [f"{dataset}-{variant}" for variant in variants] for stage in ("invert", "evaluate", "export")},
    }
    found = []
    for stage, names in stages.items():
        for path in (runs / stage / f"{name}.json" for name in names):
            run_id = json.loads(path.read_text()).get("run_id") if path.exists() else None
            if run_id:
                address = f"{tracking_uri}/#/runs/{run_id}" if tracking_uri.startswith("http") else ""
                found.append((f"{stage} {path.stem.removeprefix(dataset).lstrip('-')}", run_id, address))
    return found


# Words


def _description(found: Sequence[Evaluated]) -> str:
    """What was inverted."""
    results = found[0].results
    channels, height, width = results.image_shape
    tested = ", ".join(
        f"{network} {percentage(measure.value)}" if isinstance(measure, Estimate) else f"{network} not measured"
        for network in ("classifier", "evaluator")
        for measure in [results.headline[f"{network}_test_accuracy"]]
    )
    return (
        f"A classifier of {height} by {width} {'grey' if channels == 1 else 'colour'} images in "
        f"{len(results.classes)} classes, inverted by {len(found[0].generators)} generators in each variant. "
        f"Accuracy on real test images: {tested}."
    )


def _findings(e: Evaluated) -> list[Finding]:
    """How well the variant did: a sentence for each question that people ask."""
    headline, real = e.results.headline, e.row("real_test").measures

    def fooled(share: float) -> Finding:
        aside = _aside({"worst generator": headline["inversion_accuracy_min"]})
        return Finding(
            _grade(share, 0.98, 0.9), f"The classifier reads {percentage(share)} as the class asked for{aside}."
        )

    def recognised(share: float) -> Finding:
        aside = _aside({"real images": headline["evaluator_test_accuracy"]})
        grade = _grade(share / _ceiling(headline["evaluator_test_accuracy"]), 0.9, 0.5)
        reading = READINGS[grade]
        return Finding(grade, f"An independent network recognises {percentage(share)}{aside}: {reading}.")

    def survives(share: float) -> Finding:
        aside = _aside({"real images": real["robust_accuracy"]})
        epsilon = f"{e.results.settings['robust_epsilon']:g}"
        return Finding(
            _grade(share, 0.8, 0.4), f"{percentage(share)} keep their class under attack, ε = {epsilon}{aside}."
        )

    def diverse(ratio: float) -> Finding:
        text = f"Within a class, {number(ratio)} times as diverse as real images (centred Vendi score)"
        if recognition.grade not in ("good", "fair"):
            return Finding(
                "unknown", f"{text}; this means little while they are not recognised, since noise is diverse."
            )
        return Finding(_grade(ratio, 0.7, 0.4), f"{text}.")

    def useful(share: float) -> Finding:
        aside = _aside(
            {"on noise": headline["student_noise_accuracy"], "on real images": headline["student_real_accuracy"]}
        )
        return Finding(
            _grade(share / _ceiling(headline["student_real_accuracy"]), 0.9, 0.6),
            f"A fresh network trained on them alone reads {percentage(share)} of real test images right{aside}.",
        )

    recognition = _said("Evaluator accuracy", headline["evaluator_accuracy"], recognised)
    return [
        _said("Inversion accuracy", headline["inversion_accuracy"], fooled),
        recognition,
        _said("Robust accuracy", headline["robust_accuracy"], survives),
        _said("Diversity", headline["vendi_centred_ratio"], diverse),
        _said("Student accuracy", headline["student_accuracy"], useful),
        _privacy_finding(e),
    ]


def _said(title: str, measure: Measure, sentence: Callable[[float], Finding]) -> Finding:
    """The sentence on a number, or why there is none."""
    if isinstance(measure, NotMeasured):
        return Finding("unknown", f"{title} was not measured: {measure.not_measured}.")
    return sentence(measure.value)


def _ceiling(ceiling: Measure) -> float:
    """The best that can be hoped for: all, where it was not measured or is 0."""
    return ceiling.value or 1.0 if isinstance(ceiling, Estimate) else 1.0


def _grade(value: float, good: float, fair: float) -> Grade:
    return "good" if value >= good else "fair" if value >= fair else "bad"


def _aside(shares: Mapping[str, Measure]) -> str:
    """Numbers to compare with, in brackets; those that were not measured are left out."""
    known = [f"{name}: {percentage(share.value)}" for name, share in shares.items() if isinstance(share, Estimate)]
    return f" ({', '.join(known)})" if known else ""


def _privacy_finding(e: Evaluated) -> Finding:
    """The audits' verdict."""
    leak = e.results.leak
    return Finding("unknown" if leak is None else "bad" if leak else "good", e.results.verdict)


# Tables


def _measure_text(name: str) -> MeasureText:
    return MEASURES.get(name, MeasureText(name.replace("_", " ").capitalize(), ""))


def _measure_table(sources: Mapping[str, Row]) -> Table:
    """All measures, a column for each source."""
    cell, rows = Cells(), []
    for name in next(iter(sources.values())).measures:
        text = _measure_text(name)
        rows.append(TableRow(text.title, text.meaning, [cell(row.measures[name], text) for row in sources.values()]))
    return Table("Measure", list(sources), rows, cell.notes)


def _headline_table(sets: Mapping[str, Sequence[Evaluated]]) -> Table:
    """The headline numbers of every data set and variant."""
    cell, texts = Cells(), {name: _measure_text(name) for name in HEADLINE}
    rows = [
        TableRow(
            f"{_title(dataset)}, {e.variant}",
            "",
            [cell(e.results.headline[name], text) for name, text in texts.items()],
        )
        for dataset, found in sets.items()
        for e in found
    ]
    return Table("Data set, variant", [text.title for text in texts.values()], rows, cell.notes)


def _class_tables(found: Sequence[Evaluated]) -> list[tuple[str, Table]]:
    """Accuracies and diversity of each class, of every variant's ensemble and of real test images."""
    rows = {e.variant: e.row("ensemble") for e in found} | {REFERENCES["real_test"][0]: found[0].row("real_test")}
    tables = []
    for name in ("inversion_accuracy", "evaluator_accuracy", "vendi"):
        columns = {title: row.by_class[name] for title, row in rows.items() if name in row.by_class}
        cell, text = Cells(), _measure_text(name)
        lines = [
            TableRow(label, "", [cell(column[k], text) for column in columns.values()])
            for k, label in enumerate(found[0].results.classes)
        ]
        tables.append((text.title, Table("Class", list(columns), lines, cell.notes)))
    return tables


def _robustness_table(found: Sequence[Evaluated]) -> Table:
    """The robustness curves in numbers."""
    cell, text = Cells(), _measure_text("robust_accuracy")
    columns = {title: row.robustness for title, _, row in _compared(found) if row.robustness}
    rows = [
        TableRow(f"{points[0].epsilon:g}", "", [cell(point.accuracy, text) for point in points])
        for points in zip(*columns.values(), strict=True)
    ]
    return Table("ε", list(columns), rows, cell.notes)


def _audit_table(audit: Audit) -> Table:
    """Distances to the nearest training and test images, and near copies, by kind of distance."""
    cell, distance, share = Cells(), MeasureText("", ""), MeasureText("", "", percent=True)
    rows = []
    for kind in filter(audit.comparisons.__contains__, DISTANCES):
        found = audit.comparisons[kind]
        if isinstance(found, NotMeasured):
            cells = [cell(found, distance)] * 7
        else:
            distances = [cell(m, distance) for m in (found.train, found.test, found.train_minus_test)]
            copies = [cell(m, share) for m in (found.copies_train, found.copies_test)]
            cells = [*distances, Cell(number(found.p_value)), *copies, Cell(number(found.copies_p_value))]
        rows.append(TableRow(kind, DISTANCES[kind], cells))
    columns = ["to training", "to test", "difference", "p", "copies of training", "copies of test", "p"]
    return Table("Distance", columns, rows, cell.notes)


def _confusion(found: Sequence[Evaluated]) -> list[Matrix]:
    """Under both networks: every variant's ensemble, and real test images."""
    rows = [(e.variant, e.row("ensemble")) for e in found] + [(REFERENCES["real_test"][0], found[0].row("real_test"))]
    return [
        _matrix(f"{title}, read by the {network}", row.confusion[network], found[0].results.classes)
        for title, row in rows
        for network in ("classifier", "evaluator")
        if network in row.confusion
    ]


def _matrix(title: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Matrix:
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    if len(classes) <= MAX_CLASSES:
        return Matrix(title, [list(zip(*both, strict=True)) for both in zip(shares, counts, strict=True)])
    from PIL import Image

    image = Image.new("L", (len(classes), len(classes)))
    image.putdata([round(255 * (1 - share)) for row in shares for share in row])
    mistakes = [(count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    worst = sorted(mistakes, reverse=True)[:MAX_CONFUSIONS]
    words = "; ".join(f"{classes[i]} read as {classes[j]}: {count}" for count, i, j in worst)
    return Matrix(title, [], _picture(image, MAX_CLASSES / 2, f"Confusion matrix: {title}"), words)


# Charts


def _training_charts(dataset: str, plots: Path) -> "list[Markup]":
    """Accuracy and loss of the two classifiers' training."""
    records = {model: read_csv(plots / "train" / f"{dataset}-{model}.csv") for model in ("classifier", "evaluator")}
    return [
        line_chart(
            f"Training of the classifiers: {column}",
            [Series(m, m, [r["epoch"] for r in rs], [r[column] for r in rs]) for m, rs in records.items()],
            Axis("epoch"),
            Axis(column, percent=column == "accuracy"),
        )
        for column in ("accuracy", "loss")
    ]


def _inversion_curves(found: Sequence[Evaluated]) -> list[Choice]:
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
                        e.variant,
                        [record["samples"] for record in records],
                        [record[column] for record in records],
                        legend=e.variant,
                    )
                )
        title = "KL divergence" if column == "kl" else column.replace("_", " ")
        y = Axis(title, (0, 1) if column == "accuracy" else None, percent=column == "accuracy")
        choices.append(Choice(title, [line_chart(f"Inversion: {title}", lines, Axis("samples drawn"), y)]))
    return choices


def _robustness_chart(found: Sequence[Evaluated]) -> "Markup":
    """Accuracy under attack by its bound: every variant, and what to compare it with."""
    lines = [
        _measured_line(title, style, [(p.epsilon, p.accuracy) for p in row.robustness])
        for title, style, row in _compared(found)
    ]
    return line_chart(
        "Accuracy under attack", lines, Axis("bound ε of the attack"), Axis("accuracy", (0, 1), percent=True)
    )


def _measured_line(name: str, style: str, points: Iterable[tuple[float, Measure]]) -> Series:
    """A line through the points that were measured, with their intervals."""
    known = [(x, y) for x, y in points if isinstance(y, Estimate)]
    return Series(name, style, [x for x, _ in known], [y.value for _, y in known], [(y.low, y.high) for _, y in known])


def _intensity_chart(found: Sequence[Evaluated]) -> "Markup":
    """The probability of the wanted class that the classifier gives, by the one that was asked for."""
    lines = [Series("exactly as asked", "exact", [0, 1], [0, 1])]
    for e in found:
        bins = e.row("ensemble").calibration
        points = [(b.wanted.value, b.obtained) for b in bins if isinstance(b.wanted, Estimate)]
        lines.append(_measured_line(e.variant, e.variant, points))
    asked = Axis("probability asked for", (0, 1), percent=True)
    obtained = Axis("probability obtained", (0, 1), percent=True)
    return line_chart("Intensity", lines, asked, obtained)


def _condition_charts(found: Sequence[Evaluated]) -> list[Choice]:
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
                lines.append(_measured_line(e.variant, e.variant, points))
            x = Axis(f"{title} of the condition", (-0.4, len(texts) - 0.6), list(texts.items()))
            chart = line_chart(f"Accuracy under the {network}", lines, x, Axis("accuracy", (0, 1), percent=True))
            choices.append(Choice(f"{network}, by {title}", [chart]))
    return choices


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _interval_charts(found: Sequence[Evaluated]) -> tuple[list[Choice], list[Choice]]:
    """A chart for each measure, of every generator, the ensembles and the references; in two parts by ``DIVERSITY``."""
    rows = [(f"{e.variant}, {row.name}", e.variant, row) for e in found for row in [*e.generators, e.row("ensemble")]]
    rows += [(title, style, row) for title, style, row in _compared(found) if row.kind == "reference"]
    names = found[0].row("ensemble").measures
    return _in_two({name: [(title, style, row.measures[name]) for title, style, row in rows] for name in names})


def _comparison_charts(sets: Mapping[str, Sequence[Evaluated]]) -> tuple[list[Choice], list[Choice]]:
    """The same for the headline numbers of every data set and variant."""
    rows = [(f"{_title(dataset)}, {e.variant}", e) for dataset, found in sets.items() for e in found]
    return _in_two({name: [(title, e.variant, e.results.headline[name]) for title, e in rows] for name in HEADLINE})


def _in_two(measures: Mapping[str, Iterable[tuple[str, str, Measure]]]) -> tuple[list[Choice], list[Choice]]:
    """Charts of how images are read, and of how diverse and how real they are."""
    charts = {name: _interval_choice(name, rows) for name, rows in measures.items()}
    read = [chart for name, chart in charts.items() if not name.startswith(DIVERSITY)]
    real = [chart for name, chart in charts.items() if name.startswith(DIVERSITY)]
    return read, real


def _interval_choice(name: str, rows: Iterable[tuple[str, str, Measure]]) -> Choice:
    """One measure of rows with their titles and styles."""
    text = _measure_text(name)
    intervals = [
        Interval(title, style, m.value, m.low, m.high, text.show(m.value))
        if isinstance(m, Estimate)
        else Interval(title, style, None, 0, 0, m.not_measured)
        for title, style, m in rows
    ]
    return Choice(text.title, [interval_chart(text.title, intervals, Axis(text.title, percent=text.percent))])


def _compared(found: Sequence[Evaluated]) -> list[tuple[str, str, Row]]:
    """Title, style and row of every variant's ensemble and of the references."""
    variants = [(e.variant, e.variant, e.row("ensemble")) for e in found]
    return variants + [(title, style, found[0].row(name)) for name, (title, style) in REFERENCES.items()]


# Pictures


def _figure(e: Evaluated) -> Grid:
    """The paper's Figure 2: a row for each class, a column for each generator; beside it a real image of each class."""
    columns = [row.name.removeprefix("generator ") for row in e.generators]
    title = f"{e.variant}: a row for each class, a column for each generator"
    picture = _picture(_open(e.folder / "figure2.png"), len(columns), title)
    real = None
    if e.row("real_test").samples:
        image = _open(e.folder / "real_test.png")
        image = image.crop((0, 0, (image.width + 1) // COLUMNS - 1, image.height))
        real = _picture(image, 1, "a real test image of each class")
    return Grid(title, picture, columns, e.results.classes[:MAX_CLASSES], real)


def _class_grid(e: Evaluated, name: str, title: str) -> Grid:
    """Several images of each class from one source."""
    image = _open(e.folder / f"{name.replace(' ', '-')}.png")
    picture = _picture(image, COLUMNS, f"{title}: a row of {COLUMNS} images for each class")
    return Grid(title, picture, [], e.results.classes[:MAX_CLASSES])


def _neighbours(e: Evaluated, audit: Audit) -> list[Neighbours]:
    """The ensemble's images nearest to training images, cut from the evaluation's picture of them."""
    if not audit.pairs:
        return []
    image = _open(e.folder / "ensemble-neighbours.png")
    kinds = list(dict.fromkeys(pair.distance for pair in audit.pairs))
    labels = sorted({pair.label for pair in audit.pairs})[:MAX_CLASSES]
    width, height = (image.width + 1) // len(kinds), (image.height + 1) // len(labels)
    pairs = {(pair.distance, pair.label): pair for pair in audit.pairs}
    found: dict[str, list[tuple[str, Picture, str, str]]] = {kind: [] for kind in kinds}
    for column, kind in enumerate(kinds):
        for i, label in enumerate(labels):
            corner = column * width, i * height
            strip = image.crop((*corner, corner[0] + width - 1, corner[1] + height - 1))
            name, pair = e.results.classes[label], pairs[kind, label]
            alt = f"Class {name}: a generated image, its nearest training image, its nearest test image"
            picture = _picture(strip, 3, alt)
            found[kind].append((name, picture, number(pair.train_distance), number(pair.test_distance)))
    return [Neighbours(kind, rows) for kind, rows in found.items()]


def _open(path: Path) -> "Image":
    from PIL import Image

    try:
        image = Image.open(path)
        image.load()
    except OSError as error:
        raise InputError(f"{path} is not a readable picture ({error}): run the evaluate stage again.") from None
    return image


def _picture(image: "Image", columns: float, alt: str) -> Picture:
    """A picture of so many columns for the page: exact where it is small, else compressed."""
    width = round(columns * CELL * image.width / (image.width + 1), 2)  # all but a separating pixel
    image = image.copy()
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    data = io.BytesIO()
    image.save(data, "WEBP", lossless=True)
    if data.tell() > MAX_LOSSLESS:
        data = io.BytesIO()
        image.save(data, "WEBP", quality=75)
    return Picture(f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}", width, alt)


if __name__ == "__main__":
    main()
