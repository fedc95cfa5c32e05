"""What the privacy audit's comparisons are told to mean: leak, none, or too few images to tell."""

from typing import Any

import pytest
import torch
from made_up import K, pools

from netinv.evaluation.judging import SIGNIFICANCE, Different, judged
from netinv.evaluation.privacy import (
    memorisation_test,
)
from netinv.results import Comparison, Estimate, NotMeasured


def made_up(p_value: float = 0.5, copies_p_value: float = 0.5) -> Comparison:
    def share(value: float) -> Estimate:
        return Estimate(value=value, low=0, high=1, n=50)

    return Comparison(
        train=share(0.1),
        test=share(0.2),
        train_minus_test=share(0.3),
        p_value=p_value,
        copies_train=share(0.25),
        copies_test=share(0.125),
        copies_p_value=copies_p_value,
        copy_distance=0.5,
        by_class=(),
    )


CLOSER = "lie closer to training images than to test images (by {} distance)"


COPIES = "near copies of training images outnumber those of test images ({}: 25.0% against 12.5%)"


LEAK = f"Training images leak: the generated images {CLOSER}, by more than chance allows."


COPIED = f"Training images leak: {COPIES}, by more than chance allows."


BOTH = f"Training images leak: the generated images {CLOSER} and {COPIES}, by more than chance allows."


OWN = (
    "No training image was found copied: by pixels and structure the generated images lie no closer to training than "
    "to test images. The evaluator's features {}, which its own training can explain."
)


NONE = (
    "No sign of memorised training images: the generated images lie no closer to training images than to test images, "
    "by any distance measured."
)


ABSENT = NotMeasured(not_measured="nothing")


@pytest.mark.parametrize(
    ("comparisons", "memorised", "verdict"),
    [
        ({"pixel": made_up(), "ssim": made_up(), "feature": made_up()}, False, NONE),
        ({"pixel": made_up(SIGNIFICANCE / 6), "ssim": made_up(), "feature": made_up()}, True, LEAK.format("pixel")),
        ({"pixel": made_up(SIGNIFICANCE / 5.9), "ssim": made_up(), "feature": made_up()}, False, NONE),
        ({"pixel": made_up(), "ssim": made_up(0.5, SIGNIFICANCE / 6)}, True, COPIED.format("ssim")),
        ({"pixel": made_up(), "ssim": made_up(0.5, SIGNIFICANCE / 5.9)}, False, NONE),
        ({"pixel": made_up(0.0), "ssim": made_up(0.5, 0.0), "feature": ABSENT}, True, BOTH.format("pixel", "ssim")),
        ({"pixel": made_up(0.0), "ssim": made_up(0.0)}, True, LEAK.format("pixel and ssim")),
        ({"pixel": made_up(SIGNIFICANCE / 3), "ssim": ABSENT, "feature": ABSENT}, True, LEAK.format("pixel")),
        ({"pixel": made_up(SIGNIFICANCE / 2.9), "ssim": ABSENT, "feature": ABSENT}, False, NONE),
        (
            {"pixel": made_up(), "ssim": made_up(), "feature": made_up(0.0)},
            False,
            OWN.format("put them closer to training images"),
        ),
        (
            {"pixel": made_up(), "ssim": made_up(), "feature": made_up(0.5, 0.0)},
            False,
            OWN.format("find near copies of training images"),
        ),
    ],
)
def test_pixels_and_structure_accuse_and_features_do_not(
    comparisons: dict[str, Any], memorised: bool, verdict: str
) -> None:
    different = dict.fromkeys(comparisons, Different(100, 0))
    assert judged(comparisons, different) == (memorised, verdict)


def test_a_set_among_several_has_its_share_of_the_false_alarms() -> None:
    many = Different(100, 0)
    for p_value, sets, memorised in ((0.01 / 12, 2, True), (0.01 / 6, 2, False), (0.01 / 60, 10, True)):
        for significance in (0.01, 0.04):
            given = {"pixel": made_up(p_value * significance / 0.01), "ssim": made_up()}
            assert judged(given, {"pixel": many, "ssim": many}, sets, significance)[0] is memorised
    of = pools()
    images = of.images[:40]
    found = memorisation_test(of, images, None, torch.arange(40) % K, K, seed=4, sets=4)
    (pixel,) = (c for kind, c in found.comparisons.items() if kind == "pixel" and isinstance(c, Comparison))
    assert found.memorised
    assert pixel.p_value == pytest.approx(1 / 7201)  # three times as many permutations as the bound asks for


FEW = "Too few different images to tell whether training images leak:"


MANY = "near copies of training images outnumber those of test images (pixel: 60.0% against 10.0%)"


SEEN = f"{FEW} {MANY}, and the different training images among them number {{}}."


NEAR = f"{FEW} the different real images that are nearest to generated ones number {{}}."


@pytest.mark.parametrize(
    ("low", "nearest", "copied", "memorised", "verdict"),
    [
        (0.26, 3, 2, True, f"Training images leak: {MANY}, by more than chance allows."),  # 3 in 10,000
        (0.26, 3, 1, None, SEEN.format(1)),  # 3 in 100
        (0.26, 20, 2, None, SEEN.format(2)),  # 2 in 100
        (0.26, 20, 4, True, f"Training images leak: {MANY}, by more than chance allows."),
        (0.24, 20, 4, False, NONE),  # the surplus is known to lie above 0.04 alone
        (0.24, 9, 0, False, NONE),
        (0.24, 8, 0, None, NEAR.format(8)),  # 2^-8 lies above the bound of 0.01 / 3
    ],
)
def test_copies_of_few_images_are_told_by_their_number_or_not_at_all(
    low: float, nearest: int, copied: int, memorised: bool | None, verdict: str
) -> None:
    """Of a hundred images that nobody copied one is a near copy."""
    shares = {"copies_train": Estimate(value=0.6, low=low, high=0.8, n=50)}
    shares |= {"copies_test": Estimate(value=0.1, low=0.0, high=0.2, n=50)}
    found = {"pixel": made_up().model_copy(update=shares), "ssim": ABSENT}
    assert judged(found, {"pixel": Different(nearest, copied)}) == (memorised, verdict)
    for max_copies, leak in ((low - 0.21, True), (low - 0.19, False)):  # the surplus is known to lie above low - 0.2
        assert judged(found, {"pixel": Different(20, 4)}, max_copies=max_copies)[0] is leak
