"""An ensemble's images, of which measures may look at the first alone."""

import importlib.util
from pathlib import Path

import torch


def test_each_generator_has_as_many_of_the_first_images_as_another(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("ensembles_benchmark", root / "benchmarks/ensembles.py")
    assert spec is not None
    assert spec.loader is not None
    ensembles = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ensembles)
    parts = [torch.arange(10 * i, 10 * i + 4).view(4, 1) for i in range(3)]
    assert ensembles.in_turn(parts, 10).flatten().tolist() == [0, 10, 20, 1, 11, 21, 2, 12, 22, 3]
