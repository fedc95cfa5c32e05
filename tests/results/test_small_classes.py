"""Sentences on results in which classes have too few images for a number."""

from typing import Any

import pytest

from netinv.core import Config
from netinv.results import Audit, Estimate, Measure, NotMeasured, Results, Row, findings

FEW = NotMeasured(not_measured="2 samples, at least 10 are needed")
ACCURACIES = ("inversion_accuracy", "evaluator_accuracy")


def known(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value, n=100)


def made(cls: type[Config], **values: Any) -> Any:
    """A record of which nothing is read but these values."""
    return cls.model_construct(**values)


def results(share: float, by_class: list[Measure]) -> tuple[Results, Row]:
    """Generated images that get one share of everything, beside controls that are as they should be."""
    num = len(by_class)

    def row(name: str, kind: str, value: float, each: list[Measure]) -> Row:
        measures = dict.fromkeys(
            (*ACCURACIES, "robust_accuracy", "density", "coverage", "student_accuracy"), known(value)
        )
        audit = made(Audit, verdict="No sign of memorised training images.", memorised=False)
        made_row: Row = made(
            Row,
            name=name,
            kind=kind,
            measures={**measures, "vendi_centred": known(1 + 3 * value)},
            by_class={**dict.fromkeys(ACCURACIES, tuple(each)), "vendi": tuple(each)},
            audit=audit,
        )
        return made_row

    every: list[Measure] = [known(1.0)] * num
    drawn = row("generator 0", "generator", share, by_class)
    references = [row(name, "reference", 1.0, every) for name in ("real_train", "real_test")]
    references += [row(name, "reference", 0.0, every) for name in ("noise", "one_picture")]
    students = {f"student_{control}_accuracy": known(value) for control, value in (("noise", 0.0), ("real", 1.0))}
    found: Results = made(
        Results,
        classes=tuple(f"c{k}" for k in range(num)),
        rows=(drawn, *references),
        headline=students,
        settings={"robust_epsilon": 0.1},
    )
    return found, drawn


@pytest.mark.parametrize(
    ("by_class", "grade", "clause"),
    [
        ([known(1.0)] * 4, "good", ""),
        (
            [FEW] * 4,
            "unknown",
            "; no class has the 10 images that a share needs: draw more samples, 80 or so (num_samples).",
        ),
        ([known(1.0), FEW, known(1.0), FEW], "fair", "; 2 of 4 classes have too few images to be judged: draw more"),
        ([known(0.95), FEW, known(1.0)], "fair", "; worst is class c0, 95.0% (real images: 100%); 1 of 3 classes"),
        (
            [known(x) for x in (0.02, 0.95, 0.01, 0.2, 0.0)],
            "bad",
            "; 4 classes are as good as missing (c0, c2, c3 and 1 more), the worst is class c4, 0% (real",
        ),
        ([known(0.01), FEW, known(1.0)], "bad", "; class c0 is as good as missing, 1.0% (real images: 100%); 1 of 3"),
    ],
)
def test_what_is_not_known_of_every_class_is_not_good(by_class: list[Measure], grade: str, clause: str) -> None:
    read, recognised = findings(*results(0.995, by_class))[:2]
    for finding in (read, recognised):
        assert finding.grade == grade, finding
        assert clause in finding.text
        assert ("; " in finding.text) == bool(clause)


UNREAD = "; 1 of 4 classes cannot be judged, as real images of them are read by chance at best (c3)."


@pytest.mark.parametrize(
    ("own", "real", "grade", "clause"),
    [
        (0.05, 0.0, "fair", UNREAD),
        (0.05, 0.02, "fair", UNREAD),
        (0.05, 0.25, "fair", UNREAD),  # by chance
        (0.05, 0.5, "bad", "; class c3 is as good as missing, 5.0% (real images: 50.0%)."),
        (0.95, 0.0, "good", "."),
    ],
)
def test_no_class_is_missed_of_which_no_real_image_is_read(own: float, real: float, grade: str, clause: str) -> None:
    found, drawn = results(0.995, [known(1.0)] * 3 + [known(own)])
    read = next(row for row in found.rows if row.name == "real_test").by_class
    read |= dict.fromkeys(ACCURACIES, (*[known(1.0)] * 3, known(real)))
    for finding in findings(found, drawn)[:2]:
        assert finding.grade == grade
        assert finding.text.endswith(clause)
        assert (";" in finding.text) == (";" in clause)


@pytest.mark.parametrize(
    ("real", "share", "grade", "alone"),
    [(0.95, 0.12, "bad", True), (0.7, 0.3, "bad", False), (0.4, 0.12, "bad", False), (0.25, 0.12, "unknown", False)],
)
def test_an_evaluator_is_taken_at_its_worth(real: float, share: float, grade: str, alone: bool) -> None:
    found, drawn = results(1.0, [known(1.0)] * 4)
    drawn.measures["evaluator_accuracy"] = known(share)
    next(row for row in found.rows if row.name == "real_test").measures["evaluator_accuracy"] = known(real)
    recognised = findings(found, drawn)[1]
    assert recognised.grade == grade
    assert ("most are inputs that only the inverted classifier reads so" in recognised.text) == alone


@pytest.mark.parametrize(("one", "grade"), [(0.2, "good"), (0.8, "fair"), (0.95, "bad")])
def test_a_distilled_student_counts_from_one_bent_picture(one: float, grade: str) -> None:
    found, drawn = results(0.94, [known(0.94)] * 4)
    students = {
        f"distilled_{row}_accuracy": known(x) for row, x in (("noise", 0.1), ("real", 1.0), ("one_picture", one))
    }
    drawn.measures["distilled_accuracy"] = known(0.94)
    distilled = findings(found.model_copy(update={"headline": found.headline | students}), drawn)[7]
    assert distilled.grade == grade
    assert f"(on real images: 100%, on one real picture a class, bent: {one:.1%}, on noise: 10.0%)" in distilled.text


@pytest.mark.parametrize(
    ("share", "doubt", "grade", "said"),
    [
        (0.9, 0.0, "good", "They show most of what"),
        (0.7, 0.0, "fair", "They show a part of what"),
        (0.61, 0.0, "bad", "They show little of what"),
        (0.9, 0.25, "unknown", "cannot be told from these controls"),
        (0.2, 0.25, "bad", "They show little of what"),
    ],
)
def test_coverage_counts_from_one_picture_to_real_images(share: float, doubt: float, grade: str, said: str) -> None:
    found, drawn = results(share, [known(share)] * 4)
    for row in found.rows[1:]:
        value = {"noise": 0.05, "one_picture": 0.6}.get(row.name, 1.0)
        row.measures["coverage"] = Estimate(value=value, low=value - doubt, high=value + doubt, n=100)
    coverage = findings(found, drawn)[4]
    assert coverage.grade == grade
    assert said in coverage.text


def test_what_is_bad_of_all_stays_bad_without_a_number_of_any_class() -> None:
    assert [finding.grade for finding in findings(*results(0.1, [FEW] * 4))[:2]] == ["bad", "bad"]


def test_diversity_without_that_of_real_images_says_why_there_is_none() -> None:
    found, drawn = results(0.9, [known(0.9)] * 2)
    next(row for row in found.rows if row.name == "real_test").measures["vendi_centred"] = FEW
    text = "; that of real images was not measured: 2 samples, at least 10 are needed."
    assert findings(found, drawn)[5].text.endswith(text)


def test_the_least_diverse_class_is_named_among_those_that_are_known() -> None:
    diversity = findings(*results(0.9, [known(0.5), FEW, known(0.9)]))[5]
    assert diversity.text.endswith("; least so in class c0 of the 2 that can be compared.")
    assert findings(*results(0.9, [known(0.5), known(0.9)]))[5].text.endswith("; least so in class c0.")
