"""A student taught by the classifier's own answers to given images: how much of it the images let through.

Source: Hinton and others, Distilling the knowledge in a neural network (2015). Published students without real data
(ZSKD, DAFL, KegNet) are all taught in this way.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    InvertibleClassifier,
    build_classifier,
    predict,
    train_classifier,
)
from netinv.core import (
    BatchSize,
    Config,
    Count,
    Distortion,
    LearningRate,
    PixelBound,
    Positive,
    Share,
    SharpnessRange,
    Shift,
    Steps,
)
from netinv.data import LabelledImages, channel_statistics, to_uint8
from netinv.evaluation.samples import SampleSet, constant
from netinv.perturbations import augment, color_jitter
from netinv.results import Bootstrap, Measure, NotMeasured


class DistillationConfig(Config):
    """How a student is taught. All that is done to an image is done before the classifier is asked about it."""

    images: Count = 10_000
    """Images drawn for it from all generators together."""
    sharpness: SharpnessRange = (1.0, 20.0)
    """Range of the condition's sharpness to draw them from: soft ones lie between classes, where answers tell more."""
    steps: Steps = 300
    """Few, since every evaluation teaches four students; figures to compare with published ones need some 2,000."""
    batch_size: BatchSize = 128
    lr: LearningRate = 3e-3
    """Peak learning rate of AdamW, one cycle over all steps."""
    temperature: Positive = 4.0
    """Divides the logits of both, so that the unlikely classes count as well."""
    shift: Shift = 2
    """Move each image by up to so many pixels, at random."""
    distortion: Distortion = 0.5
    """Stretch and turn each image at random; see :func:`netinv.perturbations.affine`."""
    color_jitter: Share = 0.5
    """Share of images to be given another contrast and brightness; see :func:`netinv.perturbations.color_jitter`."""
    mix: bool = True
    """Blend each image with another one of its batch, in random parts."""
    noise: PixelBound = 0.3
    """Add Gaussian noise of a random deviation up to this, in pixels of [0, 1]."""


def distil(
    student: Classifier, teacher: InvertibleClassifier, images: Tensor, config: DistillationConfig, seed: int
) -> None:
    """Train a student in place, to answer as the teacher does: mean KL(teacher || student) at the temperature.

    Args:
        student: On the teacher's device.
        teacher: Frozen.
        images: (N, C, H, W) in [0, 1]; their labels are not used.
        config: How.
        seed: Fixes every draw; torch's global random state is seeded too, since dropout draws from it.

    Raises:
        FloatingPointError: The loss is not finite; names the step.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps)
    student.train()
    for step in range(1, config.steps + 1):
        index = torch.randint(len(images), (config.batch_size,), generator=rng)
        batch = augment(images[index], config.shift, False, rng, config.distortion)
        if config.mix:
            share = torch.rand(len(batch), 1, 1, 1, generator=rng)
            batch = share * batch + (1 - share) * batch[torch.randperm(len(batch), generator=rng)]
        if config.color_jitter:
            chosen = torch.rand(len(batch), 1, 1, 1, generator=rng) < config.color_jitter
            batch = torch.where(chosen, color_jitter(batch, rng), batch)
        if config.noise:
            deviation = config.noise * torch.rand(len(batch), 1, 1, 1, generator=rng)
            batch = (batch + deviation * torch.randn(batch.shape, generator=rng)).clamp(0, 1)
        batch = batch.to(teacher.device)
        with torch.no_grad():
            wanted = F.softmax(teacher(batch) / config.temperature, dim=1)  # (N, K)
        loss = F.kl_div(F.log_softmax(student(batch) / config.temperature, dim=1), wanted, reduction="batchmean")
        optimizer.zero_grad(set_to_none=True)
        # The gradient shrinks with the square of the temperature.
        torch.autograd.backward(config.temperature**2 * loss)
        optimizer.step()
        schedule.step()
        if step == config.steps and not math.isfinite(float(loss.detach())):
            raise FloatingPointError(f"The student's loss is {float(loss.detach())} at step {step}; lower the lr.")
    student.eval()


def student_accuracy(
    samples: SampleSet,
    test: LabelledImages | None,
    architecture: ConvClassifierConfig,
    training: ClassifierTrainingConfig | None,
    bootstrap: Bootstrap,
    device: torch.device,
) -> Measure:
    """Accuracy on real test images of a fresh network that was trained on the samples' images and labels alone."""
    if training is None:
        return NotMeasured(not_measured="evaluate.student is null")
    if samples.name == "real_test":
        return NotMeasured(not_measured="the student is tested on these images")
    images = LabelledImages(to_uint8(samples.images), samples.label)

    def teach(student: Classifier) -> None:
        for _ in train_classifier(student, images, training, bootstrap.seed):
            pass

    return _taught(samples.images, samples.num_classes, test, architecture, teach, bootstrap, device)


def distilled_accuracy(
    images: Tensor,
    test: LabelledImages | None,
    architecture: ConvClassifierConfig,
    config: DistillationConfig,
    classifier: InvertibleClassifier,
    bootstrap: Bootstrap,
) -> Measure:
    """The same of a network that was taught the classifier's answers to the images (N, C, H, W); see :func:`distil`."""

    def teach(student: Classifier) -> None:
        distil(student, classifier, images, config, bootstrap.seed)

    return _taught(images, classifier.num_classes, test, architecture, teach, bootstrap, classifier.device)


def _taught(
    images: Tensor,
    num_classes: int,
    test: LabelledImages | None,
    architecture: ConvClassifierConfig,
    teach: Callable[[Classifier], None],
    bootstrap: Bootstrap,
    device: torch.device,
) -> Measure:
    """Accuracy on real test images of a fresh network after it was taught by the images."""
    if test is None:
        return NotMeasured(not_measured="no real test images were given")
    why = constant(images)
    if why is not None:
        return NotMeasured(not_measured=why)
    channels, height, width = images.shape[1:]
    mean, std = channel_statistics(images)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(bootstrap.seed)
        student = build_classifier(architecture, num_classes, (channels, height, width), mean, std).to(device)
        try:
            teach(student)
        except FloatingPointError:
            return NotMeasured(not_measured="the student's training diverged; lower its learning rate")
    logits, _ = predict(student, test.images)
    return bootstrap.mean((logits.argmax(dim=1).cpu() == test.labels).numpy())
