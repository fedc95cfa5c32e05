"""Inversion in one call, for notebooks, scripts and the command: a network in, a trained generator out."""

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from netinv.app.inversions import DoubtfulClassifier, History, Inversion, MissingClasses, inversion_accuracy
from netinv.classifiers import (
    AdaptedClassifier,
    AdapterConfig,
    InvertibleClassifier,
    adapt,
    as_found,
    behaviour,
    check_statistics,
    frozen,
    has_pixel_statistics,
    norms_see_vectors,
    untrained,
)
from netinv.core import BAR, InputError, Variant, batch_size_for, check_class_names, network_digest, positive, whole
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import (
    VECTOR_STATISTICS,
    InversionConfig,
    class_accuracies,
    duration,
    missing_message,
    step_cost,
    variant_config,
)
from netinv.inversion import invert as inversion_steps

JUDGED = 1000
"""Fresh images on which a finished generator's accuracy is measured."""
WORTH_SAYING = 60
"""Seconds from which on people are told what a training will take."""


@torch.inference_mode(mode=False)  # whatever the caller's: gradients are needed
def invert(
    classifier: nn.Module,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    adapter: AdapterConfig | None = None,
    variant: Variant | None = None,
    changes: Mapping[str, Any] | None = None,
    config: InversionConfig | None = None,
    generator: GeneratorConfig | None = None,
    classes: tuple[str, ...] | None = None,
    seed: int = 0,
    attempts: int = 2,
    max_hours: float = 12.0,
    progress: bool = True,
    on_record: Callable[[dict[str, float]], None] | None = None,
) -> Inversion:
    """Train a generator that draws images of whatever class of a classifier you ask for.

    The classifier is left as it was found: mode, gradients, hooks, device; so is torch's random state. What makes the
    result doubtful, such as pixels in another range than it was trained on, is a warning (``DoubtfulClassifier``).

    Args:
        classifier: Any network that maps a batch of images to one score for each class. One adapted already is taken
            as it is; what the next three say must be so.
        image_shape: (C, H, W) of the images to be generated.
        num_classes: K; ``None`` takes the network's word for it.
        adapter: What the classifier takes and gives, where that is not images in [0, 1] and one tensor of scores.
        variant: ``standard`` (images that this classifier reads as asked) or ``robust`` (which others read, too).
        changes: Settings of :class:`netinv.InversionConfig` that are to differ from the variant's, by name.
        config: The loss and its optimisation, taken as it is in place of a variant's; ``None`` is that of ``standard``.
        generator: The generator's architecture; ``None`` is the defaults.
        classes: Names of the classes; ``None`` numbers them.
        seed: Fixes weights and draws.
        attempts: How often it is tried at most, each time with the next seed, while a class cannot be drawn; the
            attempt that lacks the fewest counts. Which these are, ``missing`` of the result and a warning say.
        max_hours: What the steps of one attempt may take: by the estimate from one, more is refused before the work.
        progress: Show a bar, and before it what the training will take where that is more than a minute.
        on_record: Called with each record of the history as it comes.

    Raises:
        InputError: The classifier cannot be inverted as it is; says why.
        FloatingPointError: The loss is not finite; names the step.

    Example:
        >>> inversion = invert(classifier, image_shape=(1, 28, 28), num_classes=10)  # doctest: +SKIP
        >>> inversion.sample(label=3, num=16).shape  # doctest: +SKIP
        torch.Size([16, 1, 28, 28])
    """
    generator = GeneratorConfig() if generator is None else GeneratorConfig.expect(generator, "generator")
    if config is not None:
        config = InversionConfig.expect(config, "config")
    if classes is not None:
        check_class_names(classes)
    _expect_numbers(seed, attempts, max_hours)
    adapted = adapt(classifier, image_shape, num_classes, adapter)
    digest = network_digest(adapted.network)  # before it is asked anything: some networks count their calls
    if config is None:
        config, left_out = settings_of(variant or "standard", adapted, changes)
        if left_out:
            warnings.warn(left_out, stacklevel=3)  # behind the decorator's own call
    elif variant is not None or changes is not None:
        raise InputError("Both a variant or changes and a config were given: give variant=..., changes={...} alone.")
    with frozen(adapted.network):
        at_once = min(config.images_at_once or config.batch_size, config.batch_size)
        findings = [*as_found(adapted.network, adapted.config), *behaviour(adapted, at_once), *untrained(adapted)]
        # A smaller batch is the way out, but without it there is no step.
        if errors := [found.message for found in findings if found.severity == "error" or found.code == "batch_size"]:
            raise InputError(" ".join(errors))
        for finding in findings:
            if finding.severity == "warning":
                warnings.warn(finding.message, DoubtfulClassifier, stacklevel=3)
        check_statistics(config.pixel_statistics, config.layer_statistics, adapted)
        names = tuple(map(str, range(adapted.num_classes)) if classes is None else classes)
        if len(names) != adapted.num_classes:
            raise InputError(
                f"{len(names)} class names were given, but the classifier knows {adapted.num_classes} classes."
            )
        _expect_time_for(adapted, config, generator, max_hours, progress)
        tried: list[Inversion] = []
        while len(tried) < attempts and (not tried or tried[-1].missing):
            title = "invert again" if tried else "invert"
            tried.append(_trained(adapted, config, generator, names, seed + len(tried), title, progress, on_record))
    best = max(tried, key=lambda inversion: (-len(inversion.missing), inversion.accuracy))
    if best.missing:
        warnings.warn(missing_message(best.classes, best.class_accuracy), MissingClasses, stacklevel=3)
    return replace(best, classifier_sha256=digest)


def _expect_numbers(seed: int, attempts: int, max_hours: float) -> None:
    """Refuse numbers that are none, or out of their range."""
    if not 0 <= whole(seed, "The seed") < 2**31:
        raise InputError(f"The seed is {seed}: give 0 to {2**31 - 1}.")
    whole(attempts, "attempts", least=1)
    positive(max_hours, "max_hours")


def _expect_time_for(
    classifier: InvertibleClassifier,
    config: InversionConfig,
    architecture: GeneratorConfig,
    max_hours: float,
    progress: bool,
) -> None:
    """Say what a training will take, if it is worth saying, and refuse what would take longer than allowed."""
    cost = step_cost(classifier, config, architecture)
    seconds = cost.seconds * config.steps
    if seconds > max_hours * 3600:
        raise InputError(
            f"{cost.describe(config.steps)} The steps are more than the {duration(max_hours * 3600)} of max_hours: "
            f"take fewer steps, a smaller batch_size than {config.batch_size} or smaller images, or allow more."
        )
    if progress and seconds > WORTH_SAYING:
        tqdm.write(cost.describe(config.steps), file=sys.stderr)


def _trained(
    classifier: AdaptedClassifier,
    config: InversionConfig,
    architecture: GeneratorConfig,
    names: tuple[str, ...],
    seed: int,
    title: str,
    progress: bool,
    on_record: Callable[[dict[str, float]], None] | None,
) -> Inversion:
    """One attempt: a new generator, trained and measured."""
    history: History = []
    cuda = [classifier.device] if classifier.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        tqdm(total=config.steps, desc=title, bar_format=BAR, disable=None if progress else True) as bar,
    ):
        torch.manual_seed(seed)
        generator = ConditionedGenerator(architecture, classifier.num_classes, classifier.image_shape)
        generator = generator.to(classifier.device)
        for record in inversion_steps(generator, classifier, config, seed):
            history.append(record)
            what = "under attack" if config.epsilon else "accuracy"
            standing = f"{what} {record['accuracy']:.3f}, worst {record['worst_class']:.2f}"
            bar.set_postfix_str(standing, refresh=False)
            bar.update(int(record["step"]) - bar.n)
            if on_record is not None:
                on_record(record)
    generator.eval()
    untested = Inversion(generator, config, history, names, accuracy=0.0, seed=seed)
    accuracy = inversion_accuracy(untested, classifier, JUDGED)
    by_class = class_accuracies(generator, classifier, config)
    return replace(untested, accuracy=accuracy, class_accuracy=by_class)


def settings_of(
    variant: str, classifier: InvertibleClassifier, changes: Mapping[str, Any] | None = None, where: str = "changes"
) -> tuple[InversionConfig, str]:
    """The settings of a variant for a classifier, and a sentence on what of them it does not allow; empty if nothing.

    They are those of ``variant_config`` but for the batch of large images, the shift of tiny ones and, in the robust
    variant, for what batch norms that see vectors know (``VECTOR_STATISTICS``); and what is to be changed is as told.

    Args:
        variant: Its name.
        classifier: It.
        changes: Settings by name, which are taken as they are.
        where: What these are called in the error.

    Raises:
        InputError: There is no such variant, or no such setting, or a setting has no such value.
    """
    changes = {} if changes is None else changes
    if not isinstance(changes, Mapping):
        raise InputError(f'{where} is a {type(changes).__name__}: give settings by name, such as {{"epsilon": 0.05}}.')
    config, left_out = variant_config(variant), ""
    fitting: dict[str, Any] = {
        "batch_size": batch_size_for(config.batch_size, classifier.image_shape),
        "shift": min(config.shift, min(classifier.image_shape[1:]) - 1),
    }
    if variant == "robust" and norms_see_vectors(classifier):
        fitting["layer_statistics"] = VECTOR_STATISTICS
    if config.pixel_statistics and not has_pixel_statistics(classifier):
        fitting["pixel_statistics"] = 0.0
        left_out = (
            f"The variant {variant} compares the images' mean and deviation with those of the training images, which "
            "are not known (a mean of 0 or 0.5 is a scale): this is left out."
        )
    config = InversionConfig.parse(config.model_dump(mode="json") | fitting | dict(changes), where)
    return config, "" if "pixel_statistics" in changes else left_out
