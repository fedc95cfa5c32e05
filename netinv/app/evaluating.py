"""What the generated images of inversions are worth, in one call."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from netinv.app.inversions import Inversion
    from netinv.classifiers import AdapterConfig
    from netinv.data import LabelledImages
    from netinv.evaluation import Evaluation, EvaluationConfig


def evaluate(
    classifier: "nn.Module",
    inversions: "Inversion | Sequence[Inversion]",
    *,
    adapter: "AdapterConfig | None" = None,
    config: "EvaluationConfig | None" = None,
    evaluator: "nn.Module | None" = None,
    train: "LabelledImages | None" = None,
    test: "LabelledImages | None" = None,
    classes: Sequence[str] | None = None,
) -> "Evaluation":
    """Measure what inversions draw, beside real images and noise; ``docs/measures.md`` says what each number means.

    Args:
        classifier: The network that was inverted.
        inversions: One of it, or several of one variant, sharpness and architecture.
        adapter: What the network takes and gives, as for :func:`netinv.invert`.
        config: What is measured and how; ``None`` is all of it.
        evaluator: An independent network on the same device, adapted already where it does not take images in [0, 1].
        train: Real training images. What cannot be measured without them, or what follows, says so.
        test: Real images that neither network was trained on.
        classes: Names of the classes; ``None`` is as the inversions have them.

    Raises:
        InputError: The inversions, networks and images do not fit together; says why.

    Example:
        >>> found = evaluate(classifier, inversion, test=LabelledImages(images, labels))  # doctest: +SKIP
        >>> found.results.headline["inversion_accuracy"]  # doctest: +SKIP
    """
    from netinv.app.inversions import as_inversions, class_names, expect_alike
    from netinv.classifiers import adapt
    from netinv.evaluation import EvaluationConfig
    from netinv.evaluation import evaluate as measure

    config = EvaluationConfig() if config is None else EvaluationConfig.expect(config, "config")
    made = as_inversions(inversions)
    expect_alike({f"inversion {i}": inversion for i, inversion in enumerate(made)})
    classes, shape = class_names(made, classes), made[0].generator.image_shape
    if config.distillation is not None:  # smaller images than most cannot be moved as far
        lessons = config.distillation.model_copy(update={"shift": min(config.distillation.shift, min(shape[1:]) - 1)})
        config = config.model_copy(update={"distillation": lessons})
    return measure(
        [inversion.generator for inversion in made],
        adapt(classifier, shape, len(classes), adapter),
        None if evaluator is None else adapt(evaluator, shape, len(classes)),
        classes,
        train,
        test,
        config,
        made[0].config.sharpness,
    )
