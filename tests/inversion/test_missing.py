"""What is told of classes that a generator cannot draw, and to which variant settings belong."""

import pytest

from netinv.inversion import InversionConfig, variant_config, variant_of
from netinv.inversion.missing import missing_classes, told_missing


def test_a_class_is_drawn_from_nine_in_ten_on() -> None:
    names, accuracies = ("a", "b", "c", "d"), (0.9, 0.8999, 0.0, 1.0)
    assert missing_classes(names, accuracies) == ("b", "c")
    assert told_missing(names, accuracies) == (
        "Of the classes b (0.90), c (0.00) fewer than 90% of the images are read as asked: try more steps or another "
        "seed, and do not take what is drawn of them for what the classifier believes."
    )
    for call in (missing_classes, told_missing):
        with pytest.raises(ValueError, match="zip"):
            call(names, accuracies[:3])


@pytest.mark.parametrize(
    ("num", "told"), [(10, "j (0.25) fewer"), (11, "j (0.25) and 1 more fewer"), (40, "and 30 more")]
)
def test_ten_of_them_are_named(num: int, told: str) -> None:
    names = [chr(ord("a") + i) for i in range(num)]
    sentence = told_missing(names, [0.25] * num)
    assert told in sentence
    assert sentence.count("(0.25)") == 10


def test_robust_is_what_survives_a_perturbation() -> None:
    assert variant_of(InversionConfig()) == "standard"
    assert variant_of(InversionConfig(perturbation="noise", epsilon=0.1)) == "robust"
    for name in ("standard", "robust"):
        assert variant_of(variant_config(name)) == name
