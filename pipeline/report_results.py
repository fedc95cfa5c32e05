"""What the report reads: the results of every variant, and what the other stages left beside them."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from netinv.errors import InputError
from netinv.results import Results, Row, load_results
from pipeline.charts import number

REFERENCES = {"real_train": ("real, train", "train"), "real_test": ("real, test", "test"), "noise": ("noise", "noise")}
"""Title and class in the style sheet of the rows to compare with."""


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


def load(dataset: str, variant: str, evaluation: Path, plots: Path) -> Evaluated:
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


def exported(path: Path) -> dict[str, str]:
    """What the export stage measured; nothing where it has not run."""
    return {name: number(value) for name, value in json.loads(path.read_text()).items()} if path.exists() else {}


def stage_runs(dataset: str, variants: Iterable[str], runs: Path, tracking_uri: str) -> list[tuple[str, str, str]]:
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


def compared(found: Sequence[Evaluated]) -> list[tuple[str, str, Row]]:
    """Title, style and row of every variant's ensemble and of the references."""
    variants = [(e.variant, e.variant, e.row("ensemble")) for e in found]
    return variants + [(title, style, found[0].row(name)) for name, (title, style) in REFERENCES.items()]


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
            with path.open(newline="") as file:
                records = list(csv.DictReader(file, strict=True))
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
        except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
            raise InputError(
                f"{path} is not a readable ablation ({error}): give it the columns dataset, condition and seed, and a "
                "column of numbers for each measure, empty where there is none."
            ) from None
        title = path.stem.replace("_", " ")
        found += [Ablation(f"{title_of(dataset)}: {title}", values) for dataset, values in by_dataset.items()]
    return found


def title_of(dataset: str) -> str:
    """A data set's name for people."""
    return dataset.replace("_", " ")
