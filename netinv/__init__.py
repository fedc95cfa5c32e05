"""Network inversion of image classifiers with conditioned generators (Suhail and Sethi).

Legend of shapes, used throughout: ``N`` batch, ``K`` number of classes (the paper's n), ``Z`` latent dimension,
``D`` feature dimension, ``C, H, W`` image channels, height, width, ``M`` side of the hot matrix.

The packages, from the front of the house to its ground: ``app``, ``report``, ``export``, ``audit``,
``interpretation``, ``evaluation``, ``inversion``, ``generators``, ``classifiers``, ``sampling``, ``results``,
``perturbations``, ``data``, ``core``. Each imports only from those behind it, and only what their ``__init__`` names.
"""

from typing import TYPE_CHECKING, Any

import lazy_loader

from netinv.core import not_installed

if TYPE_CHECKING:
    from netinv.app import DoubtfulClassifier, Inversion, MissingClasses, evaluate, interpret, invert, refine
    from netinv.classifiers import AdapterConfig, ClassifierSource, check_classifier, load_classifier_from
    from netinv.core import InputError, __version__
    from netinv.data import LabelledImages
    from netinv.generators import GeneratorConfig
    from netinv.interpretation import InterpretationConfig
    from netinv.inversion import InversionConfig, variant_config

__all__ = [
    "AdapterConfig",
    "ClassifierSource",
    "DoubtfulClassifier",
    "GeneratorConfig",
    "InputError",
    "InterpretationConfig",
    "Inversion",
    "InversionConfig",
    "LabelledImages",
    "MissingClasses",
    "__version__",
    "check_classifier",
    "evaluate",
    "interpret",
    "invert",
    "load_classifier_from",
    "refine",
    "variant_config",
]

# A name is imported when it is first used, so that ``import netinv`` and the command need no torch.
_imported, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "app": ["DoubtfulClassifier", "Inversion", "MissingClasses", "evaluate", "interpret", "invert", "refine"],
        "classifiers": ["AdapterConfig", "ClassifierSource", "check_classifier", "load_classifier_from"],
        "core": ["InputError", "__version__"],
        "data": ["LabelledImages"],
        "generators": ["GeneratorConfig"],
        "interpretation": ["InterpretationConfig"],
        "inversion": ["InversionConfig", "variant_config"],
    },
)


def __getattr__(name: str) -> Any:
    """A public name, imported; where that needs a module of the extra ``[torch]``, the error says how to install it."""
    try:
        return _imported(name)
    except ModuleNotFoundError as error:
        if (told := not_installed(error)) is None:
            raise
        raise ModuleNotFoundError(told, name=error.name) from None
