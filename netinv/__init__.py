"""Network inversion of image classifiers with conditioned generators (Suhail and Sethi).

Legend of shapes, used throughout: ``N`` batch, ``K`` number of classes (the paper's n), ``Z`` latent dimension,
``D`` feature dimension, ``C, H, W`` image channels, height, width, ``M`` side of the hot matrix.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from netinv.adapters import AdapterConfig
    from netinv.api import Inversion, invert
    from netinv.check import check_classifier
    from netinv.generator import GeneratorConfig
    from netinv.inversion import InversionConfig
    from netinv.loading import ClassifierSource, load_classifier_from

__all__ = [
    "AdapterConfig",
    "ClassifierSource",
    "GeneratorConfig",
    "Inversion",
    "InversionConfig",
    "check_classifier",
    "invert",
    "load_classifier_from",
]

_HOMES = {
    "AdapterConfig": "adapters",
    "ClassifierSource": "loading",
    "GeneratorConfig": "generator",
    "Inversion": "api",
    "InversionConfig": "inversion",
    "check_classifier": "check",
    "invert": "api",
    "load_classifier_from": "loading",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import netinv`` and the command need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
