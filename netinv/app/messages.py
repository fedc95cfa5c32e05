"""What the commands print of a check, an inversion, an evaluation."""

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netinv.app.inversions import Inversion
    from netinv.classifiers import CheckReport, ClassifierSource, InvertibleClassifier
    from netinv.data import LabelledImages
    from netinv.results import Measure, Results


def print_next(sentence: str) -> None:
    """Say on stderr what comes next, to a person: where the output goes to a terminal."""
    if sys.stdout.isatty():
        print(sentence, file=sys.stderr)


@contextmanager
def warnings_in_lines(told_elsewhere: type[Warning], told_here: type[Warning]) -> Iterator[None]:
    """Print warnings of one kind on stderr, each as a line when it comes, and none of another kind."""

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings(action="ignore", category=told_elsewhere):
        warnings.simplefilter("always", told_here)
        warnings.showwarning = show
        yield


def warn_of_random_weights(source: "ClassifierSource") -> None:
    """Say on stderr that a model of torchvision's was named without weights."""
    if source.model.startswith("torchvision:") and source.weights is None:
        print(
            f"warning: {source.model} without weights has random ones: name a file with --weights, or DEFAULT for "
            "torchvision's own.",
            file=sys.stderr,
        )


def warn_of_chance(name: str, classifier: "InvertibleClassifier", data: "LabelledImages") -> None:
    """Say on stderr that a classifier hardly knows labelled images."""
    from netinv.classifiers import near_chance

    if told := near_chance(classifier, data):
        print(f"warning: {name}: {told}", file=sys.stderr)


def warn_of_order(model: str, data: Path, classes: Sequence[str]) -> None:
    """Say on stderr that numbers for the names of classes may not be the labels that a model knows them by."""
    from netinv.core import is_misnumbered, listed

    if is_misnumbered(classes):
        print(
            f"warning: {data}: Its classes are in the order {listed(classes, 4)}; if the labels of {model} are these "
            "numbers, its accuracy here means nothing: rename the folders, such as 00, 01 and so on.",
            file=sys.stderr,
        )


def print_inversion(inversion: "Inversion", out: Path, as_json: bool) -> None:
    """What came of an inversion; ends with status 3 if a class is missing."""
    from netinv.app.inversions import GRID_ROWS
    from netinv.inversion import missing_message
    from netinv.results import each_class

    worst = min(inversion.class_accuracy)
    if as_json:
        told: dict[str, Any] = {"out": str(out), "seed": inversion.seed, "accuracy": inversion.accuracy}
        told |= {"worst_class": worst, "missing": inversion.missing}
        print(json.dumps(told | {"steps": inversion.config.steps, "last": inversion.history[-1]}))
    else:
        print(
            f"{out}: inversion accuracy {inversion.accuracy:.3f} on random conditions, {worst:.2f} of the worst class "
            f"by label, after {inversion.config.steps} steps; see {out / 'grid.png'} for "
            f"{each_class(len(inversion.classes), GRID_ROWS)}"
        )
    if inversion.missing:
        print(f"warning: {missing_message(inversion.classes, inversion.class_accuracy)}", file=sys.stderr)
        sys.exit(3)
    if not as_json:
        print_next(f"Next: netinv evaluate, with --inversion {out}; or netinv export {out} --out generator.onnx")


def format_check(model: str, report: "CheckReport") -> str:
    """A check's report for people."""
    lines = [f"classifier  {model}, {report.parameters:,} parameters"]
    if report.output_range is not None:
        low, high = report.output_range
        layer = f"the input of {report.feature_layer}" if report.feature_layer else "the logits themselves"
        lines += [
            f"images      {report.image_shape}, given to the network as {report.input_shape}",
            f"outputs     {report.num_classes} classes, {report.output}, from {low:.3g} to {high:.3g}",
            f"features    {report.feature_dim}, {layer}",
        ]
    if report.accuracy is not None:
        lines.append(f"accuracy    {report.accuracy:.3f} on {report.num_images} images")
    if report.images_per_second is not None:
        lines.append(f"speed       {report.images_per_second:.0f} images a second, forward and backward")
    lines += [f"{finding.severity}: {finding.message}" for finding in report.findings]
    return "\n".join(lines)


def pixel_vendi(results: "Results") -> "Measure":
    """Diversity in pixels of all generators together, which needs no data."""
    return next(row for row in results.rows if row.name == "ensemble").measures["vendi_pixels"]


def print_evaluation(results: "Results", vendi: list[float]) -> None:
    """The headline of an evaluation for people, and the diversity in pixels and in the classifier's own features."""
    several = sum(row.kind == "generator" for row in results.rows) > 1  # or else the worst one is the only one
    for name, value in results.headline.items():
        measure = name.removesuffix("_min")
        if measure == name:
            print(f"{name.replace('_', ' '):28} {value}")
        elif several:
            print(f"{'worst generator, ' + measure.removesuffix('_accuracy'):28} {value}")
    print(f"{'vendi, pixels':28} {pixel_vendi(results)}")
    print(f"{'vendi, classifier features':28} {', '.join(f'{value:.2f}' for value in vendi)}")
    print(results.verdict)
