"""What all of the page takes for granted, seen to before it is made: files come from other versions and hands."""

from collections.abc import Iterator, Sequence

from pydantic import ConfigDict, Field

from netinv.core import AttackSteps, Config, Count, InputError, PixelBound
from netinv.report.inputs import CURVES, REFERENCES, TRAINING, Evaluated, Inverted
from netinv.results import HEADLINE

CONTROLS = (
    "inversion_accuracy_min",
    "classifier_test_accuracy",
    "evaluator_test_accuracy",
    *(f"{student}_{images}_accuracy" for student in ("student", "distilled") for images in ("noise", "real")),
    "distilled_one_picture_accuracy",
)
"""Headline numbers that others are compared with."""


class _Settings(Config):
    """Settings of an evaluation that the page names."""

    model_config = ConfigDict(extra="ignore")

    epsilons: tuple[PixelBound, ...] = Field(min_length=1)
    robust_epsilon: PixelBound
    attack_steps: AttackSteps
    robust_samples: Count


def check_inputs(inverted: Sequence[Inverted]) -> None:
    """Make sure that the page can be made of all of this.

    Raises:
        InputError: Names the file or the variant, the key, and what is wrong with it.
    """
    for one in inverted:
        check_results(one.variants)
        for e in one.variants:
            _check_columns(f"The curves of {one.name}, {e.variant}", e.curves, {*CURVES, *one.variants[0].curves[0]})
        for model, records in one.training.items():
            _check_columns(f"The training curve of {one.name}, {model}", records, {*TRAINING})


def check_results(found: Sequence[Evaluated]) -> None:
    """Make sure that the results of variants of one classifier have all that is told of them.

    Raises:
        InputError: Names the file, the key, and what is wrong with it.
    """
    for e in found:
        where = str(e.folder / "results.json")
        _Settings.parse(e.results.settings, where=f"{where}: settings")
        if wrong := next(_unlike(e, found[0]), None):
            raise InputError(f"{where}: {wrong}: evaluate again.")


def _unlike(e: Evaluated, first: Evaluated) -> Iterator[str]:
    """What a variant lacks, or has other than the first of the same classifier."""
    rows = {row.name: row for row in e.results.rows}
    for name in ("ensemble", *REFERENCES):
        if name not in rows or rows[name].kind != ("reference" if name in REFERENCES else "ensemble"):
            yield f"rows has no {name}"
    if not e.generators:
        yield "rows has no generator"
    for name in (*HEADLINE, *CONTROLS):
        if name not in e.results.headline:
            yield f"headline has no {name}"
    if rows and "robust_accuracy" not in e.results.rows[0].measures:
        yield "measures has no robust_accuracy"
    for row in e.results.rows:
        bounds = [point.epsilon for point in row.robustness]
        if bounds and bounds != list(e.results.settings["epsilons"]):
            yield f"robustness of the row {row.name!r} is not at settings.epsilons"
    for name in ("classes", "image_shape"):
        if getattr(e.results, name) != getattr(first.results, name):
            yield f"{name} are not those of {first.folder / 'results.json'}"
    for name in ("epsilons", "attack_steps"):
        if e.results.settings[name] != first.results.settings.get(name):
            yield f"settings.{name} is not that of {first.folder / 'results.json'}"
    if {*e.results.rows[0].measures} != {*first.results.rows[0].measures}:
        yield f"measures are not those of {first.folder / 'results.json'}"


def _check_columns(title: str, records: Sequence[dict[str, float]], columns: set[str]) -> None:
    lacking = sorted(name for name in columns for record in records if name not in record)
    if lacking or not records:
        raise InputError(f"{title} have no column {lacking[0] if lacking else 'at all'}: make them again.")
