"""What a classifier has learned: sparse dictionaries of its activations, trained on generated images."""

from netinv.interpretation.autoencoder import SparseAutoencoder
from netinv.interpretation.config import InterpretationConfig
from netinv.interpretation.images import Drawn
from netinv.interpretation.interpret import Trainer, Wanted, in_turn, interpret
from netinv.interpretation.record import FILES, Interpretation
from netinv.interpretation.sites import Site
from netinv.interpretation.training import DictionaryConfig, train_dictionary

__all__ = [
    "FILES",
    "DictionaryConfig",
    "Drawn",
    "Interpretation",
    "InterpretationConfig",
    "Site",
    "SparseAutoencoder",
    "Trainer",
    "Wanted",
    "in_turn",
    "interpret",
    "train_dictionary",
]
