"""What the comparisons of a privacy audit say together: whether training images leak, and in which words."""

from collections.abc import Mapping
from typing import NamedTuple

from netinv.results import Comparison, Estimate, Measure, NotMeasured

COPY_QUANTILE = 0.01
"""A near copy is closer to its real neighbour than this share of the test images is to theirs in the training pool."""
SIGNIFICANCE = 0.01
"""Chance of a false alarm, which all tests share: the bound on each p-value is this over their number."""
TESTS = 3
"""Of each distance: two that permute names, and one that counts different near copies."""
MAX_COPIES = 0.05
"""Near copies of training images beyond those of test images, as a share of the samples, that pass."""
DECISIVE = ("pixel", "ssim")
"""Distances that decide. The evaluator learnt from the training images too, so its features cannot accuse alone."""


class Different(NamedTuple):
    """How many real images, each counted once, are the nearest of some generated image."""

    nearest: int
    copied: int
    """Those of them that are training images, and of which the generated image is a near copy."""


def bound(distances: int, sets: int, significance: float = SIGNIFICANCE) -> float:
    """On each p-value, where so many distances decide of each of so many sets of samples."""
    return significance / (TESTS * distances * sets)


def judged(
    comparisons: Mapping[str, Comparison | NotMeasured],
    different: Mapping[str, Different],
    sets: int = 1,
    significance: float = SIGNIFICANCE,
    max_copies: float = MAX_COPIES,
) -> tuple[bool | None, str]:
    """Whether generated images show memorised training images, ``None`` if that cannot be told; and a sentence.

    Args:
        comparisons: Of each kind of distance.
        different: The same of each that was made.
        sets: Sets of samples that are judged together.
        significance: Chance of a false alarm, of all tests and sets.
        max_copies: Surplus of near copies, as a share of the samples, above which they are counted.
    """
    made = {kind: c for kind, c in comparisons.items() if isinstance(c, Comparison)}
    decisive = [kind for kind in DECISIVE if kind in made]
    limit = bound(len(decisive), sets, significance)
    # Features raise no alarm, so the number of sets does not concern them.
    limits = {kind: limit if kind in DECISIVE else bound(len(decisive), 1, significance) for kind in made}
    closer = [kind for kind, c in made.items() if c.p_value <= limits[kind]]
    surpluses = {kind: surplus(made[kind]) for kind in decisive}
    beyond = [kind for kind, found in surpluses.items() if isinstance(found, Estimate) and found.low > max_copies]
    counted = [kind for kind in beyond if _chance(different[kind]) <= limit]
    copies = [kind for kind, c in made.items() if c.copies_p_value <= limits[kind] or kind in counted]
    clauses = []
    if near := [kind for kind in decisive if kind in closer]:
        distance = f"by {' and '.join(near)} distance"
        clauses.append(f"the generated images lie closer to training images than to test images ({distance})")
    if found := [kind for kind in decisive if kind in copies]:
        clauses.append(_outnumber(made, found))
    if clauses:
        return True, f"Training images leak: {' and '.join(clauses)}, by more than chance allows."
    few = "Too few different images to tell whether training images leak"
    if beyond:
        num = max(different[kind].copied for kind in beyond)
        return None, f"{few}: {_outnumber(made, beyond)}, and the different training images among them number {num}."
    num = max(different[kind].nearest for kind in decisive)
    # That so many names are of one side happens by chance once in two to the power of their number.
    if 2.0**-num > limit:
        return None, f"{few}: the different real images that are nearest to generated ones number {num}."
    if "feature" in (*closer, *copies):
        what = "put them closer to training images" if "feature" in closer else "find near copies of training images"
        return False, (
            "No training image was found copied: by pixels and structure the generated images lie no closer to "
            f"training than to test images. The evaluator's features {what}, which its own training can explain."
        )
    return False, (
        "No sign of memorised training images: the generated images lie no closer to training images than to test "
        "images, by any distance measured."
    )


def surplus(found: Comparison) -> Measure:
    """Near copies of training images less those of test images, as a share of the samples.

    The interval is that of both shares together, and so wider than need be.
    """
    train, test = found.copies_train, found.copies_test
    if isinstance(train, NotMeasured):
        return train
    if isinstance(test, NotMeasured):
        return test
    return Estimate(value=train.value - test.value, low=train.low - test.high, high=train.high - test.low, n=train.n)


def _chance(different: Different) -> float:
    """That as many images that nobody copied are near copies: each is one at the rate at which test images are."""
    from scipy.special import bdtrc  # imported here: settings are read without scipy

    return float(bdtrc(different.copied - 1, different.nearest, COPY_QUANTILE)) if different.copied else 1.0


def _outnumber(made: Mapping[str, Comparison], kinds: list[str]) -> str:
    shares = ", ".join(f"{kind}: {_shares(made[kind])}" for kind in kinds)
    return f"near copies of training images outnumber those of test images ({shares})"


def _shares(found: Comparison) -> str:
    """Near copies of training images, beside those of test images."""
    train, test = (f"{m.value:.1%}" for m in (found.copies_train, found.copies_test) if isinstance(m, Estimate))
    return f"{train} against {test}"
