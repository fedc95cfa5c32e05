"""What an audit asks for: the limits of every check, from a small YAML file, with defaults."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from netinv.core import (
    AttackSteps,
    BatchSize,
    Config,
    Decay,
    InputError,
    LearningRate,
    PixelBound,
    Seed,
    Steps,
    read_yaml,
)
from netinv.evaluation import MAX_COPIES, MEMBERSHIP_ALARM, MIN_POOL, SIGNIFICANCE
from netinv.results import MIN_SAMPLES

MOST = 1_000_000
"""Images of any kind that a limit may speak of."""


class StrangersPolicy(Config):
    """Are test images strangers to the classifier, as every other check takes for granted?"""

    max_shared: float = Field(0.01, ge=0, le=1)
    """Largest share of the test images that may be training images too, pixel for pixel."""


class LeakPolicy(Config):
    """Do generated images lie closer to training images than to images that the classifier never saw?"""

    significance: float = Field(SIGNIFICANCE, gt=0, lt=1)
    """Chance that an audit without any leak is failed by this check, over all of its tests and sets of samples."""
    max_copies: float = Field(MAX_COPIES, gt=0, le=1)
    """Near copies of training images, beyond those of test images, as a share of the samples: a pass needs the upper
    end of the interval below it."""
    min_samples: int = Field(200, ge=MIN_SAMPLES, le=MOST)
    """Samples that a pass needs, of each set."""
    min_pool: int = Field(200, ge=MIN_POOL, le=MOST)
    """Training images, and test images, that a pass needs."""
    pool: int = Field(5000, ge=MIN_POOL, le=MOST)
    """Bound on either."""


class ReconstructionPolicy(Config):
    """Which training images can be recognised in the samples?"""

    false_alarms: float = Field(0.1, gt=0, lt=1)
    """Expected share of false ones among the training images that are named."""
    min_samples: int = Field(200, ge=MIN_SAMPLES, le=MOST)
    """Samples that a pass needs, of each set."""


class ShadowConfig(Config):
    """Shadow models of the membership test."""

    models: int = Field(8, ge=2, le=1_000, multiple_of=2)
    """How many; an image is unknown to half of them."""
    architecture: Literal["own", "stand_in"] = "own"
    """That of the audited classifier where it can be trained anew, or a small stand-in."""
    steps: Steps = 200
    """Steps of training, of each model."""
    batch_size: BatchSize = 64
    lr: LearningRate = 3e-3
    weight_decay: Decay = 1e-2


class MembershipPolicy(Config):
    """Can the classifier's answers tell its training images from others?"""

    false_positive_rate: float = Field(0.01, gt=0, lt=1)
    """Rate at which the likelihood-ratio test decides. 0.001 asks more, and needs thousands of test images."""
    max_true_positive_rate: float = Field(0.1, gt=0, le=1)
    """Largest share of the training images that may be found at that rate."""
    max_auc: float = Field(MEMBERSHIP_ALARM, gt=0.5, le=1)
    """Largest area under the ROC curve of the loss threshold, and of the likelihood ratio."""
    min_images: int = Field(200, ge=MIN_POOL, le=MOST)
    """Training images, and test images, that a pass needs."""
    images: int = Field(5000, ge=MIN_POOL, le=MOST)
    """Bound on either."""
    shadows: ShadowConfig | None = ShadowConfig()
    """``null`` leaves the likelihood ratio out; the loss threshold alone remains."""


class RobustnessPolicy(Config):
    """Does the classifier keep its answers under a change too small to be seen?"""

    epsilon: PixelBound = 2 / 255
    """L-infinity bound of the change, in pixels of [0, 1]."""
    attack_steps: AttackSteps = 10
    min_accuracy: float = Field(0.5, ge=0, le=1)
    """Smallest accuracy on test images under that attack."""
    min_images: int = Field(100, ge=MIN_SAMPLES, le=MOST)
    """Test images that a pass needs."""
    images: int = Field(500, ge=MIN_SAMPLES, le=MOST)
    """Bound on them."""


class AgreementPolicy(Config):
    """Does an independent classifier agree, where one is given?"""

    min_on_test: float | None = Field(0.9, ge=0, le=1)
    """Smallest share of test images to which both give one answer; ``null`` only reports it."""
    min_on_samples: float | None = Field(None, ge=0, le=1)
    """The same of the samples. ``null``, since what the standard variant draws is noise to every other network."""
    min_images: int = Field(100, ge=MIN_SAMPLES, le=MOST)
    """Images that a pass needs."""
    images: int = Field(2000, ge=MIN_SAMPLES, le=MOST)
    """Bound on them."""


class Policy(Config):
    """All limits of an audit; ``null`` in place of a check leaves it out."""

    seed: Seed = 0
    """Fixes the draws, the choice of images, the attacks, the shadow models and the resampling."""
    samples: int = Field(1000, ge=MIN_SAMPLES, le=MOST)
    """Images drawn of each generator, and the bound on each set of images: of a larger one as many are chosen at
    random."""
    strangers: StrangersPolicy | None = StrangersPolicy()
    leak: LeakPolicy | None = LeakPolicy()
    reconstruction: ReconstructionPolicy | None = ReconstructionPolicy()
    membership: MembershipPolicy | None = MembershipPolicy()
    robustness: RobustnessPolicy | None = RobustnessPolicy()
    agreement: AgreementPolicy | None = AgreementPolicy()


def load_policy(path: Path) -> Policy:
    """Read a policy; what the file leaves out is the default.

    Raises:
        InputError: The file cannot be read, or names a key or a value that there is not.
    """
    values = read_yaml(path, "mend it, or leave out --policy")
    if not isinstance(values, dict | None):
        raise InputError(f"{path} holds no settings: write them like `membership: {{max_auc: 0.6}}`.")
    return Policy.parse(values or {}, where=path.name)
