"""How a generator is trained against a frozen classifier."""

from typing import Literal

from pydantic import model_validator

from netinv.core import (
    AttackSteps,
    BatchSize,
    Config,
    Distortion,
    Dropout,
    LearningRate,
    Positive,
    Precision,
    Share,
    SharedBatchSize,
    SharpnessRange,
    Shift,
    Steps,
    Weight,
)
from netinv.perturbations import Norm


class InversionConfig(Config):
    """How a generator is trained against a frozen classifier. Defaults are the paper's loss without robustness."""

    steps: Steps = 400
    batch_size: SharedBatchSize = 64
    lr: LearningRate = 2e-3
    """Peak learning rate of Adam, one cycle over all steps; its first beta cycles between 0.85 and 0.95 meanwhile."""
    sharpness: SharpnessRange = (1.0, 1.0)
    """Range of the condition's sharpness s; (1, 1) is the paper's plain soft-max."""
    alpha: Weight = 1.0
    """Weight of the KL divergence."""
    beta: Weight = 1.0
    """Weight of the cross-entropy."""
    gamma: Weight = 0.1
    """Weight of the mean cosine similarity over all pairs."""
    delta: Weight = 0.0
    """Weight of the feature-orthogonality term."""
    total_variation: Weight = 0.0
    """Weight of the total variation of the images."""
    pixel_statistics: Weight = 0.0
    """Weight of the distance of the images' mean and deviation from those that the classifier normalises by."""
    layer_statistics: Weight = 0.0
    """Weight of the distance of what the classifier's batch norms see from their running statistics."""
    latent_field: Weight = 0.0
    """Weight of the latent field: what differs between images by more than epsilon follows a part of the latent."""
    perturbation: Literal["none", "noise", "pgd"] = "none"
    """Ask that the label survives no perturbation, random noise, or projected gradient ascent."""
    epsilon: Weight = 0.0
    """Bound of the perturbation, in pixels of [0, 1]; at most 1 in the norm linf."""
    epsilon_ramp: Share = 0.5
    """Share of the steps over which epsilon grows from 0 to its bound."""
    survival: Dropout = 0.0
    """Above 0, each class has an epsilon of its own, which grows while such a share of its samples survives and shrinks
    while fewer do: a class is not given up because the classifier cannot hold it within all of epsilon."""
    norm: Norm = "linf"
    shift: Shift = 0
    """Ask that the label survives a random shift by up to so many pixels, too."""
    distortion: Distortion = 0.0
    """And random stretching and turning of so much; see :func:`netinv.perturbations.affine`."""
    attack_steps: AttackSteps = 1
    """Gradient steps of ``pgd``."""
    attack_step_size: Positive = 1.0
    """Length of such a step as a share of epsilon."""
    images_at_once: BatchSize | None = None
    """Images that the classifier works on at once, where its memory does not hold all of a batch: what it keeps for the
    gradients is then computed a second time, part by part. ``None`` is all. Changes nothing but memory and time."""
    precision: Precision = "auto"
    """What the layers of the generator and of the project's own classifiers compute in."""
    log_every: Steps = 25
    """Steps between two records."""

    @model_validator(mode="after")
    def _consistent(self) -> "InversionConfig":
        if (self.perturbation != "none") != (self.epsilon > 0):
            raise ValueError("a perturbation needs an epsilon above 0, and epsilon a perturbation other than none")
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError("an epsilon above 1 in the norm linf is more than all pixels of [0, 1] can change")
        if self.survival and not self.epsilon:
            raise ValueError("survival is that of a perturbation, and needs one")
        if not self.alpha and not self.beta:
            raise ValueError("alpha or beta must be above 0, or nothing asks for the wanted class")
        return self
