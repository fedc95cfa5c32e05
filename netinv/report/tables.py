"""The report's tables: measures with their intervals, audits, confusion matrices, ablations."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from netinv.report.inputs import CONTROLS, REFERENCES, Ablation, Evaluated, compared, sources_of, title_of
from netinv.report.pictures import Picture, picture_of
from netinv.report.words import MeasureText, measure_text
from netinv.results import GRID_CLASSES, HEADLINE, Audit, Measure, NotMeasured, Row, number

MAX_CONFUSIONS = 10
"""Most frequent confusions named."""
DISTANCES = {
    "pixel": "Euclidean, between pixels",
    "ssim": "1 - SSIM, structural similarity",
    "feature": "Euclidean, between evaluator features of unit length",
}
"""Kinds of distance to real images."""


ANSWERED = ("inversion_accuracy", "evaluator_accuracy", "robust_accuracy")
"""Of real images these are those of test images: networks answer otherwise to what they were trained on. The other
measures compare with test images, or with a student that is tested on them: there training images are the control."""


PLAIN, SHARE = MeasureText("", ""), MeasureText("", "", percent=True)
"""Numbers and shares that need no words."""


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


class Matrix(NamedTuple):
    """A confusion matrix: a table, or where there are too many classes a picture and words."""

    title: str
    rows: list[list[tuple[float, int]]]
    """Share of the wanted class, and count."""
    picture: "Picture | None" = None
    confusions: str = ""
    """The most frequent confusions."""


def measure_table(sources: Mapping[str, Mapping[str, Measure]]) -> Table:
    """All measures, a column for each source."""
    cell, rows = Cells(), []
    for name in next(iter(sources.values())):
        text = measure_text(name)
        rows.append(TableRow(text.title, text.meaning, [cell(found[name], text) for found in sources.values()]))
    return Table("Measure", list(sources), rows, cell.notes)


def headline_table(sets: Mapping[str, Sequence[Evaluated]]) -> Table:
    """The headline numbers of every data set and variant, and those of its real images and of noise."""
    cell, texts = Cells(), {name: measure_text(name) for name in HEADLINE}
    rows = []
    for dataset, found in sets.items():
        rows += [
            TableRow(f"{title_of(dataset)}, {title}", "", [cell(measures[name], text) for name, text in texts.items()])
            for title, measures in headline_columns(found).items()
        ]
    return Table("Data set, variant", [text.title for text in texts.values()], rows, cell.notes)


def headline_columns(found: Sequence[Evaluated], short: bool = False) -> dict[str, dict[str, Measure]]:
    """The headline numbers of variants of one classifier, by the title of a column, and of the controls beside them."""
    columns = {e.variant: e.results.headline for e in found}
    for row, control in CONTROLS.items():
        for title, e in sources_of(found, row, control.short if short else control.title):
            columns[title] = _control(e, row, control.student)
    return columns


def _control(e: Evaluated, row: str, student: str) -> dict[str, Measure]:
    """What the headline is of a reference; its distilled student stands among the headline numbers."""
    measures = e.row(row).measures
    if row == "real_train":
        measures = measures | {name: e.row("real_test").measures[name] for name in ANSWERED}
    told = {"membership_auc": NotMeasured(not_measured="this is asked of the classifier alone")}
    return measures | told | {"distilled_accuracy": e.results.headline[student]}


def class_tables(found: Sequence[Evaluated]) -> list[tuple[str, Table]]:
    """Accuracies and diversity of each class, of every variant's ensemble and of real test images."""
    rows = {e.variant: e.row("ensemble") for e in found} | {REFERENCES["real_test"][0]: found[0].row("real_test")}
    tables = []
    for name in ("inversion_accuracy", "evaluator_accuracy", "vendi"):
        columns = {title: row.by_class[name] for title, row in rows.items() if name in row.by_class}
        cell, text = Cells(), measure_text(name)
        lines = [
            TableRow(label, "", [cell(column[k], text) for column in columns.values()])
            for k, label in enumerate(found[0].results.classes)
        ]
        tables.append((text.title, Table("Class", list(columns), lines, cell.notes)))
    return tables


def robustness_table(found: Sequence[Evaluated]) -> Table:
    """The robustness curves in numbers."""
    cell, text = Cells(), measure_text("robust_accuracy")
    columns = {title: row.robustness for title, _, row in compared(found) if row.robustness}
    rows = [
        TableRow(f"{points[0].epsilon:g}", "", [cell(point.accuracy, text) for point in points])
        for points in zip(*columns.values(), strict=True)
    ]
    return Table("ε", list(columns), rows, cell.notes)


def audits_table(rows: Mapping[str, Row]) -> Table:
    """What the audit found in each source: distances to training images less those to test images, and near copies."""
    cell, lines = Cells(), []
    for title, row in rows.items():
        unknown = "cannot be told" if row.audit.comparisons else "not audited"
        verdict = {True: "copies found", False: "none found", None: unknown}[row.audit.memorised]
        differences = [cell(_compared(row.audit, kind, "train_minus_test"), PLAIN) for kind in DISTANCES]
        copies = [cell(_compared(row.audit, "pixel", name), SHARE) for name in ("copies_train", "copies_test")]
        lines.append(TableRow(title, "", [Cell(verdict), *differences, *copies]))
    columns = ["verdict", *(f"difference, {kind}" for kind in DISTANCES), "copies of training", "copies of test"]
    return Table("Images", columns, lines, cell.notes)


def _compared(audit: Audit, kind: str, name: str) -> Measure:
    """A measure of one kind of distance, or why there is none."""
    found = audit.comparisons.get(kind, NotMeasured(not_measured=audit.verdict.removesuffix(".")))
    measure: Measure = found if isinstance(found, NotMeasured) else getattr(found, name)
    return measure


def audit_class_table(audit: Audit, classes: Sequence[str]) -> Table:
    """Distances to training images less those to test images, for each class."""
    cell, found = Cells(), audit.comparisons
    rows = [
        TableRow(
            label,
            "",
            [cell(c if isinstance(c, NotMeasured) else c.by_class[k], PLAIN) for c in found.values()],
        )
        for k, label in enumerate(classes)
    ]
    return Table("Class", list(found), rows if found else [], cell.notes)


def audit_table(audit: Audit) -> Table:
    """Distances to the nearest training and test images, and near copies, by kind of distance."""
    cell = Cells()
    rows = []
    for kind in filter(audit.comparisons.__contains__, DISTANCES):
        found = audit.comparisons[kind]
        if isinstance(found, NotMeasured):
            cells = [cell(found, PLAIN)] * 7
        else:
            distances = [cell(m, PLAIN) for m in (found.train, found.test, found.train_minus_test)]
            copies = [cell(m, SHARE) for m in (found.copies_train, found.copies_test)]
            cells = [*distances, Cell(number(found.p_value)), *copies, Cell(number(found.copies_p_value))]
        rows.append(TableRow(kind, DISTANCES[kind], cells))
    columns = ["to training", "to test", "difference", "p", "copies of training", "copies of test", "p"]
    return Table("Distance", columns, rows, cell.notes)


def ablation_table(ablation: Ablation) -> Table:
    """Mean over seeds and standard deviation, a row for each condition."""
    names = list(dict.fromkeys(name for measures in ablation.values.values() for name in measures))
    cell, rows = Cells(), []
    for condition, measures in ablation.values.items():
        cells = []
        for name in names:
            values, text = measures.get(name, []), measure_text(name)
            if not values:
                cells.append(cell(NotMeasured(not_measured="no seed has a number"), text))
                continue
            spread = f"± {text.show(stdev(values))}, {len(values)} seeds" if len(values) > 1 else "one seed"
            cells.append(Cell(text.show(fmean(values)), spread))
        rows.append(TableRow(condition, "", cells))
    return Table("Condition", [measure_text(name).title for name in names], rows, cell.notes)


def confusion(found: Sequence[Evaluated]) -> list[Matrix]:
    """Under both networks: every variant's ensemble, and real test images."""
    rows = [(e.variant, e.row("ensemble")) for e in found] + [(REFERENCES["real_test"][0], found[0].row("real_test"))]
    return [
        _matrix(f"{title}, read by the {network}", row.confusion[network], found[0].results.classes)
        for title, row in rows
        for network in ("classifier", "evaluator")
        if network in row.confusion
    ]


def _matrix(title: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Matrix:
    shares = [[count / whole for count in row] for row in counts for whole in [max(1, sum(row))]]
    if len(classes) <= GRID_CLASSES:
        return Matrix(title, [list(zip(*both, strict=True)) for both in zip(shares, counts, strict=True)])
    from PIL import Image

    image = Image.new("L", (len(classes), len(classes)))
    image.putdata([round(255 * (1 - share)) for row in shares for share in row])
    mistakes = [(count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    worst = sorted(mistakes, reverse=True)[:MAX_CONFUSIONS]
    words = "; ".join(f"{classes[i]} read as {classes[j]}: {count}" for count, i, j in worst)
    return Matrix(title, [], picture_of(image, GRID_CLASSES / 2, f"Confusion matrix: {title}"), words)
