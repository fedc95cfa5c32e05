"""Results that nobody measured, and all that the stages before the report leave behind on them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from draws import numpy_rng
from PIL import Image

from netinv.core import save_csv, write_text
from netinv.evaluation import EvaluationConfig
from netinv.evaluation.rows import MEASURES
from netinv.results import (
    GRID_CLASSES,
    GRID_COLUMNS,
    HEADLINE,
    AccuracyBin,
    Audit,
    CalibrationBin,
    Comparison,
    Estimate,
    Measure,
    NotMeasured,
    Pair,
    Results,
    RobustPoint,
    Row,
)

HOSTILE = "<script>alert(1)</script>"
WHY = f'"{HOSTILE}" & too few images'
KNOWN = {"real_train": 0.97, "real_test": 0.97, "noise": 0.05, "one_picture": 0.25}
"""What is measured of the references."""
VERDICT = "No sign of memorised training images, says the audit."


class Folders(NamedTuple):
    """What the stage reads."""

    evaluation: Path
    interpretation: Path
    metrics: Path
    plots: Path
    runs: Path
    ablation: Path


def number(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01, n=100)


def row(name: str, kind: Any, classes: tuple[str, ...], accuracy: float) -> Row:
    """A row in which everything was measured but the Frechet distance."""
    num = len(classes)
    measures: dict[str, Measure] = {measure: number(accuracy) for measure in MEASURES}
    measures["frechet"] = NotMeasured(not_measured=WHY)
    counts = tuple(tuple(90 if i == j else 10 for j in range(num)) for i in range(num))
    comparison = Comparison(
        train=number(3.0),
        test=number(3.1),
        train_minus_test=number(-0.1),
        p_value=0.4,
        copies_train=number(0.02),
        copies_test=number(0.02),
        copies_p_value=0.9,
        copy_distance=0.5,
        by_class=(number(0.0),) * num,
    )
    pairs = tuple(
        Pair(distance=kind_, label=k, sample=0, train=1, test=2, train_distance=3.21, test_distance=4.32)
        for kind_ in ("pixel", "feature")
        for k in range(num)
    )
    audit = Audit(
        verdict=VERDICT,
        memorised=False,
        pool=60,
        comparisons={"pixel": comparison, "ssim": NotMeasured(not_measured="too small"), "feature": comparison},
        pairs=pairs,
    )
    return Row(
        name=name,
        kind=kind,
        samples=100,
        measures=measures,
        dropout=measures | {"kl": number(7.77)},
        by_class={
            measure: (number(accuracy),) * num for measure in ("inversion_accuracy", "evaluator_accuracy", "vendi")
        },
        confusion={"classifier": counts, "evaluator": counts},
        by_gap=(AccuracyBin(low=0.0, high=0.05, inversion_accuracy=number(0.7), evaluator_accuracy=number(0.6)),),
        by_sharpness=(AccuracyBin(low=3.0, high=3.0, inversion_accuracy=number(0.7), evaluator_accuracy=number(0.6)),),
        calibration=(CalibrationBin(low=0.5, high=0.6, wanted=number(0.55), obtained=number(0.65)),),
        robustness=(RobustPoint(epsilon=0.0, accuracy=number(0.9)), RobustPoint(epsilon=0.1, accuracy=number(0.4))),
        audit=audit.model_copy(update={"memorised": name == "real_train"}),
    )


def results(classes: tuple[str, ...], accuracy: float) -> Results:
    kinds = {"generator 0": "generator", "generator 1": "generator", "ensemble": "ensemble"}
    kinds |= dict.fromkeys(KNOWN, "reference")
    headline: dict[str, Measure] = {name: number(accuracy) for name in HEADLINE}
    controls = ("inversion_accuracy_min", "classifier_test_accuracy", "evaluator_test_accuracy")
    controls += ("distilled_one_picture_accuracy",)
    headline |= {
        name: number(0.97)
        for name in (
            *controls,
            *(f"{student}_{row}_accuracy" for student in ("student", "distilled") for row in ("noise", "real")),
        )
    }
    return Results(
        classes=classes,
        image_shape=(1, 8, 8),
        settings=EvaluationConfig(epsilons=(0.0, 0.1)).model_dump(mode="json"),
        sharpness=(1.0, 1.0),
        vendi_n=30,
        headline=headline,
        verdict=VERDICT,
        leak=False,
        rows=tuple(row(name, kind, classes, KNOWN.get(name, accuracy)) for name, kind in kinds.items()),
    )


def write_picture(path: Path, columns: int, rows: int) -> None:
    pixels = numpy_rng(0).integers(0, 256, (rows * 9 - 1, columns * 9 - 1), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_variant(folders: Folders, dataset: str, variant: str, found: Results) -> None:
    """Everything that the stages before leave behind on one variant."""
    folder = folders.evaluation / dataset / variant
    rows = min(len(found.classes), GRID_CLASSES)
    write_text(folder / "results.json", found.model_dump_json())
    write_picture(folder / "figure2.png", 2, rows)
    write_picture(folder / "ensemble-neighbours.png", 6, rows)
    for source in found.rows:
        write_picture(folder / f"{source.name.replace(' ', '-')}.png", GRID_COLUMNS, rows)
    curve = [
        {"generator": i, "step": step, "samples": step * 64, "accuracy": step / 50, "loss": 1 / step, "kl": 0.1}
        for i in range(2)
        for step in (25, 50)
    ]
    save_csv(folders.plots / "invert" / f"{dataset}-{variant}.csv", curve)
    write_text(folders.metrics / "export" / f"{dataset}-{variant}.json", json.dumps({"max_difference": 4.5e-7}))
    write_text(folders.runs / "invert" / f"{dataset}-{variant}.json", json.dumps({"run_id": f"run-of-{variant}"}))
