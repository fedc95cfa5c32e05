"""What people compare and remember of all rows: the headline numbers, and the verdict on privacy."""

from collections.abc import Iterable, Sequence

from netinv.evaluation.measures import Measures
from netinv.evaluation.privacy import MEMBERSHIP_ALARM
from netinv.results import Estimate, Measure, Row

EXPOSED = {
    True: "The classifier itself gives away which images it was trained on",
    False: "The classifier itself hardly gives away which images it was trained on",
    None: "Whether the classifier itself gives away which images it was trained on cannot be told from so few images",
}
"""Beginnings of the sentence on membership."""


def headline(rows: Sequence[Row]) -> Measures:
    """The numbers that people compare: those of all generators together, the worst generator's, and their controls."""
    by_name = {row.name: row for row in rows}
    per_generator = [row.measures for row in rows if row.kind == "generator"]
    together = by_name["ensemble"].measures
    result: Measures = {}
    for name in ("inversion_accuracy", "evaluator_accuracy"):
        result[name] = together[name]
        result[f"{name}_min"] = _worst(m[name] for m in per_generator)
    result["classifier_test_accuracy"] = by_name["real_test"].measures["inversion_accuracy"]
    result["evaluator_test_accuracy"] = by_name["real_test"].measures["evaluator_accuracy"]
    for name in (
        "inversion_accuracy_gap",
        "kl",
        "intensity_error",
        "vendi_ratio",
        "vendi_centred_ratio",
        "vendi_pixels_ratio",
        "cosine_within",
        "density",
        "coverage",
        "frechet",
        "robust_accuracy",
        "student_accuracy",
    ):
        result[name] = together[name]
    for name in ("inversion_accuracy", "evaluator_accuracy", "vendi_centred_ratio"):
        result[f"{name}_dropout"] = by_name["ensemble"].dropout[name]
    result["frechet_floor"] = by_name["real_train"].measures["frechet"]
    result["student_noise_accuracy"] = by_name["noise"].measures["student_accuracy"]
    result["student_real_accuracy"] = by_name["real_train"].measures["student_accuracy"]
    return result


def _worst(measures: Iterable[Measure]) -> Measure:
    """The smallest of them, or the first reason if none has a number."""
    measures = list(measures)
    numbers = [m for m in measures if isinstance(m, Estimate)]
    return min(numbers, key=lambda m: m.value) if numbers else measures[0]


def verdict(rows: Sequence[Row], membership_auc: Measure) -> tuple[bool | None, str]:
    """Both audits: of a generator that leaks, or else cannot be judged, or else of all; and of the classifier.

    Either finds a leak; only both together find none.
    """
    audits = [row.audit for row in rows if row.kind != "reference"]
    untold = next((found for found in audits[::-1] if found.memorised is None), audits[-1])
    first = next((found for found in audits if found.memorised), untold)
    if not isinstance(membership_auc, Estimate):
        return first.memorised, first.verdict
    auc, low, high = membership_auc.value, membership_auc.low, membership_auc.high
    exposed = True if low > MEMBERSHIP_ALARM else False if high <= MEMBERSHIP_ALARM else None
    sentence = (
        f"{EXPOSED[exposed]}: its loss tells them from test images with an AUC of {auc:.2f} "
        f"({low:.2f} to {high:.2f}; chance is 0.50)."
    )
    both = (exposed, first.memorised)
    return True if True in both else None if None in both else False, f"{first.verdict} {sentence}"
