"""What the report is made from: the results of every variant, and what is known beside them."""

import csv
import io
import math
import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from netinv.core import (
    VARIANTS,
    InputError,
    check_same_classes,
    expect_once,
    explain,
    read_json,
    read_numbers,
    read_text,
)
from netinv.results import Estimate, InterpretationResults, Results, Row, load_interpretation, load_results

REFERENCES = {
    "real_train": ("real, train", "train"),
    "real_test": ("real, test", "test"),
    "one_picture": ("one real picture, bent", "picture"),
    "noise": ("noise", "noise"),
}
"""Title and class in the style sheet of the rows to compare with."""


class Control(NamedTuple):
    """A reference beside the headline."""

    title: str
    short: str
    """The title where room is scarce."""
    student: str
    """Name of its distilled student's accuracy."""


CONTROLS = {
    "real_train": Control("real images", "real", "distilled_real_accuracy"),
    "one_picture": Control("one real picture a class, bent", "one bent", "distilled_one_picture_accuracy"),
    "noise": Control("noise", "noise", "distilled_noise_accuracy"),
}
OF_A_VARIANT = "one_picture"
"""The reference that hangs on the variant: it is finished as the variant's generators finish theirs."""
TITLES = {title for title, _ in REFERENCES.values()} | {name for one in CONTROLS.values() for name in one[:2]}
"""Of columns beside those of evaluations, which have other names."""
OTHERS = 6
"""Styles that evaluations have by turns whose name is that of no variant."""


CURVES, TRAINING = ("generator", "samples"), ("epoch", "accuracy", "loss")
"""Columns of the tables of the inversion's records, which have more, and of the classifiers'."""
MEND = "make it again"
_VALUES = TypeAdapter(dict[str, str | FiniteFloat])


class Evaluated(NamedTuple):
    """What was found on one variant of inverting a classifier."""

    variant: str
    results: Results
    folder: Path
    """Of the evaluation's pictures."""
    curves: list[dict[str, float]]
    """Records of all generators' training; each names its ``generator``."""
    settings: dict[str, str]
    """How it was inverted."""
    export: dict[str, str]
    """What its export to ONNX measured."""
    place: int = 0
    """Which one it is of those beside it."""

    @property
    def style(self) -> str:
        """Class of its lines and marks on the page: a variant's own, or one of those for others."""
        return self.variant if self.variant in VARIANTS else f"other-{self.place % OTHERS}"

    def row(self, name: str) -> Row:
        """The row of one set of samples."""
        return next(row for row in self.results.rows if row.name == name)

    @property
    def generators(self) -> list[Row]:
        """The rows of single generators."""
        return [row for row in self.results.rows if row.kind == "generator"]


class Interpreted(NamedTuple):
    """What the dictionaries of a classifier's activations were found to be worth."""

    results: InterpretationResults
    folder: Path
    """Of the units' pictures."""


class Inverted(NamedTuple):
    """A classifier, and all variants of its inversion."""

    name: str
    variants: list[Evaluated]
    training: dict[str, list[dict[str, float]]]
    """Records of the training of the classifier and of the evaluator, where they were trained here."""
    export: dict[str, str]
    """What their export to ONNX measured."""
    runs: list[tuple[str, str, str]]
    """Stage, id and address of each MLflow run; no address where the store is no server."""
    interpretation: Interpreted | None = None
    """What it has learned, where that was looked at."""


def compared(found: Sequence[Evaluated]) -> list[tuple[str, str, Row]]:
    """Title, style and row of every variant's ensemble and of the references."""
    variants = [(e.variant, e.style, e.row("ensemble")) for e in found]
    references = [
        (told, style, e.row(name))
        for name, (title, style) in REFERENCES.items()
        for told, e in sources_of(found, name, title)
    ]
    return variants + references


def sources_of(found: Sequence[Evaluated], name: str, title: str) -> list[tuple[str, Evaluated]]:
    """Title and source of a reference: one for all variants, or one for each where theirs differ."""
    first = found[0].row(name)
    if name != OF_A_VARIANT or all(e.row(name) == first for e in found):
        return [(title, found[0])]
    return [(f"{title} ({e.variant})", e) for e in found]


def read_settings(path: Path) -> dict[str, str]:
    """Read settings by name, as texts.

    Raises:
        InputError: The file is missing or holds something else.
    """
    values = read_json(path, MEND)
    if not isinstance(values, dict):
        raise InputError(f"{path} does not hold settings by their names: {MEND}.")
    return {name: str(value) for name, value in values.items()}


def read_values(path: Path) -> dict[str, str | float]:
    """Read an object of texts and finite numbers.

    Raises:
        InputError: The file is missing or holds something else; names the key.
    """
    try:
        return _VALUES.validate_python(read_json(path, MEND), strict=True)
    except ValidationError as error:
        raise InputError(f"{explain(error, str(path))}: {MEND}.") from None


FILES = ("model", "weights")
"""Settings of an evaluation that name what was inverted; there are many ways to write one path."""
MODEL = ("factory", "weights_prefix", "arguments", "image_shape", "num_classes", "adapter")
"""Others that say what was inverted."""
TOLD = (*FILES, *MODEL, "data", "evaluator", "evaluator_set", "seed")
"""What tells models of one name apart in their titles."""


def alike(found: Iterable[Evaluated]) -> list[list[Evaluated]]:
    """Evaluations by what was inverted, who judged it and how.

    In each group real images and noise of one speak for all.
    """
    groups: dict[Hashable, list[Evaluated]] = {}
    for e in found:
        group = groups.setdefault(_measured_beside(e), [])
        group.append(e._replace(place=len(group)))
    return list(groups.values())


def _measured_beside(e: Evaluated) -> Hashable:
    """The model, how it was measured, and how both networks read real images and noise, which tells what any path held.

    Only counts are compared; other numbers vary by rounding.
    """
    told = [e.settings.get(name) for name in (*MODEL, "evaluator_set")]
    told += [os.path.normpath(Path.cwd() / e.settings[name]) for name in FILES if name in e.settings]
    controls = tuple(
        (row.name, row.samples, *row.confusion.items(), _counted(row, "inversion"), _counted(row, "evaluator"))
        for row in e.results.rows
        if row.name in REFERENCES and row.name != OF_A_VARIANT
    )
    return repr((told, e.results.classes, e.results.image_shape, e.results.settings)), controls


def _counted(row: Row, judge: str) -> tuple[float, int] | None:
    """How one network reads a row, and of how many images; without the interval, which hangs on a seed."""
    read = row.measures.get(f"{judge}_accuracy")
    return (read.value, read.n) if isinstance(read, Estimate) else None


def read_evaluations(folders: Sequence[Path], interpretation: Path | None = None) -> list[Inverted]:
    """Read folders of ``netinv evaluate``. Those of one model, measured alike beside equal controls, are its variants.

    Args:
        folders: Of the evaluations.
        interpretation: Folder of ``netinv interpret`` on the one model that all of them are of.

    Raises:
        InputError: A folder is named twice, or holds something else; the interpretation is of another model, or they
            are of several.
    """
    evaluations = []
    for name, folder in zip(_short_names(folders), folders, strict=True):
        results, settings = load_results(folder / "results.json"), read_settings(folder / "settings.json")
        curves = read_numbers(folder / "curves.csv", MEND, CURVES)
        evaluations.append(Evaluated(name, results, folder, curves, settings, export={}))
    groups = alike(evaluations)
    titles = _titles([e.settings | {"seed": f"seed {e.results.settings.get('seed')}"} for e, *_ in groups])
    models = [
        Inverted(title, found, training={}, export={}, runs=[]) for title, found in zip(titles, groups, strict=True)
    ]
    if interpretation is None:
        return models
    if len(models) > 1:
        raise InputError(
            f"The evaluations, told apart by their controls too, are of {len(models)} models: name those of the one "
            "that was interpreted."
        )
    return [models[0]._replace(interpretation=_interpreted(interpretation, models[0].variants[0].results))]


def _interpreted(folder: Path, results: Results) -> Interpreted:
    found = load_interpretation(folder)
    if found.image_shape != results.image_shape:
        raise InputError(
            f"{folder} interprets another model: its images have the shape {found.image_shape}, those of the "
            f"evaluation {results.image_shape}."
        )
    check_same_classes({str(folder): found.classes, "the evaluation": results.classes})
    return Interpreted(found.model_copy(update={"classes": results.classes}), folder)


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The ends of paths, each as long as it must be to differ from all others and from the titles of controls."""
    expect_once(folders)
    paths = [folder.resolve().parts for folder in folders]
    ends = [[path[-length:] for length in range(1, len(path) + 1)] for path in paths]
    every = [*((title,) for title in TITLES), *(end for own in ends for end in {*own})]
    return ["/".join(next((end for end in own if every.count(end) == 1), own[-1])) for own in ends]


def _titles(models: Sequence[Mapping[str, str]]) -> list[str]:
    """A title for each model: its name, with what tells it from others of that name, or else a number."""
    titles = []
    for model in models:
        alike = [other for other in models if other.get("model") == model.get("model")]
        told = [model[key] for key in TOLD if key in model and any(other.get(key) != model[key] for other in alike)]
        titles.append(", ".join([model.get("model", "classifier"), *told]))
    return [
        f"{title} ({titles[:i].count(title) + 1})" if titles.count(title) > 1 else title
        for i, title in enumerate(titles)
    ]


class Ablation(NamedTuple):
    """What one ablation found on one data set."""

    title: str
    values: dict[str, dict[str, list[float]]]
    """By condition and measure: the values of all seeds that have one."""


def read_ablations(folder: Path) -> list[Ablation]:
    """Read all tables of a folder; none where there is no folder. ``docs/report.md`` describes the format.

    Raises:
        InputError: A table lacks a column, or holds something else than numbers.
    """
    found = []
    for path in sorted(folder.glob("*.csv")):
        try:
            records = list(csv.DictReader(io.StringIO(read_text(path, MEND)), strict=True))
            by_dataset: dict[str, dict[str, dict[str, list[float]]]] = {}
            for record in records:
                measures = by_dataset.setdefault(record.pop("dataset"), {}).setdefault(record.pop("condition"), {})
                int(record.pop("seed"))
                for name, text in record.items():
                    values = measures.setdefault(name, [])
                    if text.strip():
                        values.append(float(text))
                        if not math.isfinite(values[-1]):
                            raise ValueError(f"{name} is {text}")
        except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path} is not a readable ablation ({error}): give it the columns dataset, condition and seed, and a "
                "column of numbers for each measure, empty where there is none."
            ) from None
        for dataset, conditions in by_dataset.items():
            name = "" if path.stem == dataset else f": {title_of(path.stem)}"
            found.append(Ablation(f"Ablation on {title_of(dataset)}{name}", conditions))
    return found


def title_of(dataset: str) -> str:
    """A data set's name for people; that of a module or a file as it is."""
    return dataset.replace("_", " ") if re.fullmatch(r"[\w-]+", dataset) else dataset
