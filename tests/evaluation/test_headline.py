"""The headline takes each number from its row."""

from typing import Any

from made_up import no

from netinv.evaluation.headline import headline
from netinv.evaluation.rows import MEASURES, empty_row
from netinv.results import Estimate, Measure, Row


def made_up_row(name: str, kind: Any, offset: int, missing: tuple[str, ...] = ()) -> Row:
    def measure(i: int, name: str) -> Measure:
        return no(f"{name} of {offset}") if name in missing else Estimate(value=offset + i, low=0, high=1, n=10)

    measures = {m: measure(i, m) for i, m in enumerate(MEASURES)}
    dropout = {m: measure(100 + i, m) for i, m in enumerate(MEASURES)}
    return empty_row(name, kind, 10, "made up").model_copy(update={"measures": measures, "dropout": dropout})


ROWS = [
    made_up_row("generator 0", "generator", 2000),
    made_up_row("generator 1", "generator", 1000),
    made_up_row("ensemble", "ensemble", 3000),
    made_up_row("real_train", "reference", 4000),
    made_up_row("real_test", "reference", 5000),
    made_up_row("noise", "reference", 6000),
]


def test_the_headline_takes_each_number_from_its_row() -> None:
    found = headline(ROWS)
    place = {name: i for i, name in enumerate(MEASURES)}
    from_rows = {
        "inversion_accuracy_min": 1000 + place["inversion_accuracy"],
        "evaluator_accuracy_min": 1000 + place["evaluator_accuracy"],
        "classifier_test_accuracy": 5000 + place["inversion_accuracy"],
        "evaluator_test_accuracy": 5000 + place["evaluator_accuracy"],
        "inversion_accuracy_dropout": 3100 + place["inversion_accuracy"],
        "evaluator_accuracy_dropout": 3100 + place["evaluator_accuracy"],
        "vendi_centred_ratio_dropout": 3100 + place["vendi_centred_ratio"],
        "frechet_floor": 4000 + place["frechet"],
        "student_noise_accuracy": 6000 + place["student_accuracy"],
        "student_real_accuracy": 4000 + place["student_accuracy"],
    }
    together = (
        "inversion_accuracy",
        "evaluator_accuracy",
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
    )
    from_rows |= {name: 3000 + place[name] for name in together}
    assert {name: m.value for name, m in found.items() if isinstance(m, Estimate)} == from_rows


def test_the_worst_generator_is_among_those_with_a_number() -> None:
    rows = [made_up_row("generator 0", "generator", 2000, ("evaluator_accuracy",)), *ROWS[1:]]
    found = headline(rows)
    assert found["evaluator_accuracy_min"] == ROWS[1].measures["evaluator_accuracy"]
    both = [rows[0], made_up_row("generator 1", "generator", 1000, ("evaluator_accuracy",)), *ROWS[2:]]
    none = headline(both)
    assert none["evaluator_accuracy_min"] == no("evaluator_accuracy of 2000")
