"""What an image can undergo: augmentations, and attacks within a bound."""

from netinv.perturbations.attacks import Norm, noise, pgd, robust_accuracy, survives
from netinv.perturbations.augmentations import augment, recolour

__all__ = [
    "Norm",
    "augment",
    "noise",
    "pgd",
    "recolour",
    "robust_accuracy",
    "survives",
]
