"""What an image can undergo: augmentations, and attacks within a bound."""

from netinv.perturbations.attacks import Norm, noise, pgd, robust_accuracy, robust_mask, unit_ball, unit_sphere
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

__all__ = [
    "Norm",
    "affine",
    "augment",
    "check_shift",
    "color_jitter",
    "draw_maps",
    "draw_offsets",
    "noise",
    "pgd",
    "random_affine",
    "robust_accuracy",
    "robust_mask",
    "translate",
    "unit_ball",
    "unit_sphere",
]
