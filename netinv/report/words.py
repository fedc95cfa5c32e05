"""The report in words: what each measure means, and a sentence on each question that people ask."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

from netinv.report.charts import number, percentage
from netinv.report.inputs import Evaluated
from netinv.results import Estimate, Measure, NotMeasured

Grade = Literal["good", "fair", "bad", "unknown"]


class MeasureText(NamedTuple):
    """What people should know of a measure."""

    title: str
    meaning: str
    percent: bool = False

    def show(self, value: float) -> str:
        """A value in words."""
        return percentage(value) if self.percent else number(value)


READINGS = {
    "good": "they show what a class looks like",
    "fair": "many show what a class looks like",
    "bad": "most are inputs that only the inverted classifier reads so",
}
"""What evaluator accuracy says, by its grade."""
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
        "Intensity error", "Mean gap between the probability asked for and the one obtained; 0 is exact."
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
}
"""Of what is only measured of all generators together."""
HEADLINE = (
    "inversion_accuracy",
    "evaluator_accuracy",
    "robust_accuracy",
    "vendi_ratio",
    "vendi_centred_ratio",
    "student_accuracy",
    "distilled_accuracy",
)
"""The measures that the summary shows."""


class Finding(NamedTuple):
    """One sentence of the summary."""

    grade: Grade
    text: str


def measure_text(name: str) -> MeasureText:
    return (MEASURES | OF_ALL).get(name, MeasureText(name.replace("_", " ").capitalize(), ""))


def description(found: Sequence[Evaluated]) -> str:
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


def findings(e: Evaluated) -> list[Finding]:
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

    def useful(student: str, sentence: str, share: float) -> Finding:
        noise, real = headline[f"{student}_noise_accuracy"], headline[f"{student}_real_accuracy"]
        aside = _aside({"on noise": noise, "on real images": real})
        return Finding(_grade(share / _ceiling(real), 0.9, 0.6), f"{sentence.format(percentage(share))}{aside}.")

    trained = "A fresh network trained on them alone reads {} of real test images right"
    taught = "One that is taught the classifier's answers to them reads {} right"
    recognition = _said("Evaluator accuracy", headline["evaluator_accuracy"], recognised)
    return [
        _said("Inversion accuracy", headline["inversion_accuracy"], fooled),
        recognition,
        _said("Robust accuracy", headline["robust_accuracy"], survives),
        _said("Diversity", headline["vendi_centred_ratio"], diverse),
        _said("Student accuracy", headline["student_accuracy"], partial(useful, "student", trained)),
        _said("Distilled student's accuracy", headline["distilled_accuracy"], partial(useful, "distilled", taught)),
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
