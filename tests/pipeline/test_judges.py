"""The two networks of a data set, as stages read them."""

from pathlib import Path

import pytest

from netinv.classifiers import ConvClassifierConfig, build_classifier, save_classifier
from netinv.core import InputError
from pipeline.judges import load_judges
from pipeline.params import load_params


def test_both_networks_are_read_onto_one_device(root: Path, tmp_path: Path) -> None:
    train = load_params(root / "params.yaml").for_dataset("digits").train
    for name, num_classes in (("classifier", 3), ("evaluator", 4)):
        network = build_classifier(ConvClassifierConfig(channels=(4,)), num_classes, (1, 8, 8), (0.5,), (0.5,))
        save_classifier(tmp_path / name, network)
    judges = load_judges(tmp_path, train, "meta")
    assert (judges.classifier.num_classes, judges.evaluator.num_classes) == (3, 4)
    for network in judges:
        assert network.device.type == "meta"
        assert not network.training
    (tmp_path / "evaluator/config.json").unlink()
    with pytest.raises(InputError, match="evaluator"):
        load_judges(tmp_path, train, "cpu")
