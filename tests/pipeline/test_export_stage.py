"""What the stage export refuses before it writes a file that would name the wrong classes."""

import pytest

from netinv.core import InputError
from netinv.data import DatasetSpec
from netinv.generators import ConditionedGenerator, GeneratorConfig
from pipeline.export import _expect_of


def spec(classes: tuple[str, ...], image_shape: tuple[int, int, int]) -> DatasetSpec:
    return DatasetSpec(
        name="toys",
        classes=classes,
        image_shape=image_shape,
        num_train=1,
        num_test=1,
        source="",
        licence="",
        checksums={},
    )


def test_a_network_of_other_data_is_refused() -> None:
    generator = ConditionedGenerator(GeneratorConfig(width=4, max_width=4), 2, (1, 8, 8))
    _expect_of(spec(("a", "b"), (1, 8, 8)), generator)
    for classes, shape in ((("a", "b", "c"), (1, 8, 8)), (("a", "b"), (3, 8, 8))):
        with pytest.raises(InputError, match=r"ConditionedGenerator knows 2 classes .* but toys has"):
            _expect_of(spec(classes, shape), generator)


def test_a_data_set_names_each_class_once() -> None:
    with pytest.raises(ValueError, match="is there more than once"):
        spec(("a", "a"), (1, 8, 8))
