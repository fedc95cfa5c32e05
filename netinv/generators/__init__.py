"""The conditioned generator: what it is asked for, the network, its files."""

from netinv.generators.checkpoints import load_generator, load_generators, save_generator
from netinv.generators.conditioning import condition_of, draw_condition, matrix_size
from netinv.generators.drawing import class_grid, draw_image_batches, draw_images, has_dropout
from netinv.generators.finishing import Bend
from netinv.generators.network import BatchNorm, ConditionedGenerator, GeneratorConfig, field_side, up_sizes

__all__ = [
    "BatchNorm",
    "Bend",
    "ConditionedGenerator",
    "GeneratorConfig",
    "class_grid",
    "condition_of",
    "draw_condition",
    "draw_image_batches",
    "draw_images",
    "field_side",
    "has_dropout",
    "load_generator",
    "load_generators",
    "matrix_size",
    "save_generator",
    "up_sizes",
]
