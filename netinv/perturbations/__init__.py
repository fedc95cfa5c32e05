"""What an image can undergo: augmentations, attacks within a bound, the way to another class."""

from netinv.perturbations.attacks import (
    Norm,
    noise,
    pgd,
    reads_as,
    robust_accuracy,
    robust_mask,
    unit_ball,
    unit_sphere,
)
from netinv.perturbations.augmentations import (
    affine,
    augment,
    check_shift,
    color_jitter,
    draw_maps,
    draw_offsets,
    random_affine,
    translate,
)
from netinv.perturbations.nearest import Nearest, nearest_of_class

__all__ = [
    "Nearest",
    "Norm",
    "affine",
    "augment",
    "check_shift",
    "color_jitter",
    "draw_maps",
    "draw_offsets",
    "nearest_of_class",
    "noise",
    "pgd",
    "random_affine",
    "reads_as",
    "robust_accuracy",
    "robust_mask",
    "translate",
    "unit_ball",
    "unit_sphere",
]
