"""The report in words: what each measure means, and what was inverted."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from netinv.report.inputs import Evaluated
from netinv.results import Estimate, number, percentage


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
    "evaluator_accuracy": MeasureText(
        "Evaluator accuracy",
        "An independent network, which no generator ever saw, reads that class too; on noise, that both agree.",
        True,
    ),
    "evaluator_accuracy_gap": MeasureText(
        "Evaluator accuracy, no near-ties", "Where the condition's two largest entries are 0.05 apart or more.", True
    ),
    "kl": MeasureText("KL divergence", "Of the classifier's output from the condition, in nats; 0 is exact."),
    "intensity_error": MeasureText(
        "Intensity error", "Mean gap between the probability asked for and the one obtained; 0% is exact.", True
    ),
    "intensity_correlation": MeasureText(
        "Intensity correlation", "Of the probability asked for with the one obtained; 1 is exact."
    ),
    "vendi": MeasureText("Vendi score", "Effective number of distinct images of a class, on evaluator features."),
    "vendi_ratio": MeasureText("Vendi score over real", "Over that of real test images; 1 is as diverse as they are."),
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
        "Student accuracy", "On real test images, of a fresh network trained on these images and labels alone.", True
    ),
}
"""Of every measure in a row of the results."""
OF_ALL = {
    "distilled_accuracy": MeasureText(
        "Distilled student",
        "On real test images, of a network taught the classifier's own answers to these images.",
        True,
    ),
    "membership_auc": MeasureText(
        "Membership AUC", "How well the classifier's loss tells its training images from test images; 0.5 is chance."
    ),
}
"""Of what is only measured of all generators together."""


CIRCUMSTANCES = {"_dropout": "dropout on", "_min": "worst generator"}
"""What the end of a measure's name says."""


def measure_text(name: str) -> MeasureText:
    """The words for a measure, also where its name ends in a circumstance; others are shown as they are."""
    for end, circumstance in CIRCUMSTANCES.items():
        if name.endswith(end):
            text = measure_text(name.removesuffix(end))
            return text._replace(title=f"{text.title}, {circumstance}")
    return (MEASURES | OF_ALL).get(name, MeasureText(name.replace("_", " ").capitalize(), ""))


def span(counts: Iterable[int]) -> str:
    """The number that all of them are, or from which to which they go."""
    known = sorted(counts) or [0]
    return f"{known[0]}" if known[0] == known[-1] else f"{known[0]} to {known[-1]}"


def description(found: Sequence[Evaluated]) -> str:
    """What was inverted."""
    results = found[0].results
    channels, height, width = results.image_shape
    images = {1: "grey images", 3: "colour images"}.get(
        channels, f"images of {channels} channels (shown as their mean)"
    )
    counts = span(len(e.generators) for e in found)
    tested = ", ".join(
        f"{network} {percentage(measure.value)}" if isinstance(measure, Estimate) else f"{network} not measured"
        for network in ("classifier", "evaluator")
        for measure in [results.headline[f"{network}_test_accuracy"]]
    )
    return (
        f"A classifier of {height} by {width} {images} in {len(results.classes)} classes, inverted by {counts} "
        f"{'generator' if counts == '1' else 'generators'} in each variant. "
        f"Accuracy on real test images: {tested}."
    )
