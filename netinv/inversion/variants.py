"""What the variants of the inversion are: the only place that says so."""

from netinv.core import VARIANTS, InputError, Variant
from netinv.inversion.config import InversionConfig

_PRESETS: dict[Variant, InversionConfig] = {
    # The paper's loss: the classifier shall see the wanted class.
    "standard": InversionConfig(),
    # And still see it when the image is perturbed within a bound, moved and distorted.
    "robust": InversionConfig(
        steps=600,
        sharpness=(40.0, 40.0),
        alpha=0.1,
        total_variation=0.3,
        pixel_statistics=1.0,
        shift=2,
        distortion=0.2,
        perturbation="pgd",
        epsilon=0.3,
        survival=0.9,
        attack_steps=3,
        attack_step_size=0.8,
    ),
}

VECTOR_STATISTICS = 5.0
"""``layer_statistics`` of the robust variant for a classifier whose batch norms see vectors, not maps. No convolution
tells what images look like there, and the norms do: a unit's variance is that of a whole image along its weights."""


def variant_config(name: str) -> InversionConfig:
    """The settings of a variant.

    Raises:
        InputError: There is none of this name; lists those there are.
    """
    for known, config in _PRESETS.items():
        if known == name:
            return config
    raise InputError(f"There is no variant {name!r}: the variants are {', '.join(VARIANTS)}.")


def variant_of(config: InversionConfig) -> Variant:
    """The variant that settings belong to: robust ones ask that the class survives a perturbation."""
    return "robust" if config.epsilon else "standard"
