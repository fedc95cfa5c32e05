"""Foreign classifiers exported to ONNX, and what is said of those that cannot be."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from draws import seed_torch, torch_rng
from torch import nn

from netinv.classifiers import AdaptedClassifier
from netinv.core import InputError
from netinv.export import export_classifier, models
from netinv.export.models import TOLERANCE
from netinv.sampling import Metadata, OnnxClassifier


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_classifier_of_another_precision_is_exported_in_single_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    seed_torch(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).to(dtype)
    classifier = AdaptedClassifier(network, (1, 8, 8))
    about = Metadata("classifier", "", "classifier", ("a", "b", "c"), (1, 8, 8), "", "", {})
    assert export_classifier(tmp_path / "classifier.onnx", classifier, about) <= TOLERANCE
    images = torch.rand(6, 1, 8, 8, generator=torch_rng(0))
    logits = OnnxClassifier(tmp_path / "classifier.onnx")(images.numpy())
    np.testing.assert_allclose(logits, copy.deepcopy(network).float()(images).detach().numpy(), atol=1e-5)
    assert (classifier.dtype, network[0].weight.dtype) == (dtype, dtype)  # left as it was


def test_a_classifier_that_insists_on_double_precision_is_exported_so(tmp_path: Path) -> None:
    class Insisting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 3).double()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images.flatten(1).double())

    seed_torch(0)
    about = Metadata("classifier", "", "classifier", ("a", "b", "c"), (1, 8, 8), "", "", {})
    classifier = AdaptedClassifier(Insisting(), (1, 8, 8))
    assert export_classifier(tmp_path / "classifier.onnx", classifier, about) <= TOLERANCE


class Flattening(nn.Module):
    """A network whose forward is mostly how it flattens its images."""

    def __init__(self, flatten: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.flatten = flatten
        self.layer = nn.Linear(64, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(self.flatten(images))


def test_a_network_that_uses_len_is_exported_for_any_batch(tmp_path: Path) -> None:
    seed_torch(0)
    about = Metadata("classifier", "", "classifier", ("a", "b", "c"), (1, 8, 8), "", "", {})
    classifier = AdaptedClassifier(Flattening(lambda images: images.view(len(images), -1)), (1, 8, 8))
    assert export_classifier(tmp_path / "classifier.onnx", classifier, about) <= TOLERANCE


@pytest.mark.parametrize(
    ("flatten", "sentence"),
    [
        (
            lambda images: torch.stack([image.flatten() for image in images]),
            "This network cannot be exported to ONNX, since its forward fixes the number of images: ",
        ),
        (
            lambda images: images.flatten(1) * (2 if images.sum() > -1e9 else 1),
            "torch cannot export this network to ONNX (Could not guard on data-dependent expression ",
        ),
    ],
    ids=["loop over the images", "branch on their values"],
)
def test_a_network_that_cannot_be_exported_is_one_sentence_alone(
    flatten: Callable[[torch.Tensor], torch.Tensor],
    sentence: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    about = Metadata("classifier", "", "classifier", ("a", "b", "c"), (1, 8, 8), "", "", {})
    with pytest.raises(InputError, match=re.escape(sentence)):
        export_classifier(tmp_path / "c.onnx", AdaptedClassifier(Flattening(flatten), (1, 8, 8)), about)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")  # scripts are deprecated, and copies of them warn
def test_a_network_that_cannot_be_exported_is_told_by_the_first_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(classifier: nn.Module) -> NoReturn:
        try:
            raise TypeError("it takes 2 arguments")
        except TypeError as error:  # as torch tells it, after seconds
            raise torch.onnx.OnnxExporterError("\x1b[96mThis is step 1/3. Next steps:\n- Modify it") from error

    monkeypatch.setattr(models, "classifier_model", fails)
    about = Metadata("classifier", "", "classifier", ("a", "b", "c"), (1, 8, 8), "", "", {})
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    for given, advice in ((network, ""), (torch.jit.script(network), ": give it as it was before torch.jit.script")):
        with pytest.raises(InputError) as caught:
            export_classifier(tmp_path / "classifier.onnx", AdaptedClassifier(given, (1, 8, 8)), about)
        start, end = "torch cannot export this network to ONNX (TypeError: it takes 2 arguments, in ", f"){advice}."
        assert str(caught.value).startswith(start)
        assert str(caught.value).endswith(end)


def test_a_network_whose_export_onnxruntime_refuses_is_one_sentence(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        """Its export has convolutions of both precisions."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.layers(images)

    seed_torch(0)
    about = Metadata("classifier", "", "classifier", ("a", "b", "c"), (1, 8, 8), "", "", {})
    with pytest.raises(InputError, match=r"onnxruntime does not run .*ONNXRuntimeError.*: give it without that, such"):
        export_classifier(tmp_path / "classifier.onnx", AdaptedClassifier(Mixed(), (1, 8, 8)), about)
    assert not list(tmp_path.iterdir())
