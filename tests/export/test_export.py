"""Exported files against torch, and what the export refuses."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from draws import numpy_rng, seed_torch
from torch import nn

from netinv.core import InputError
from netinv.export import (
    ExportConfig,
    export_generator,
    export_generators,
    generator_models,
    rewritten,
    write_model,
)
from netinv.export.forms import compress, stochastic_model
from netinv.export.graphs import OPSET
from netinv.export.models import TOLERANCE, WEIGHT_FORMATS, check_agreement
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, invert
from netinv.sampling import OnnxClassifier, OnnxGenerator, draw
from tests.conftest import Exported

PLAIN = ("generator-0", "generator-1")


def in_torch(generator: nn.Module, latent: np.ndarray, condition: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return generator(torch.from_numpy(latent), torch.from_numpy(condition)).numpy()


def with_statistics(generator: ConditionedGenerator) -> ConditionedGenerator:
    """Batch norm as after training: with fresh statistics it would do nothing, and hide a wrong one."""
    for layer in generator.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    return generator.eval()


def assert_smaller_forms_round_what_is_learned_alone(model: onnx.ModelProto) -> None:
    whole = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    places = ("places", "spread", "rows", "columns")
    learned = {name for name, w in whole.items() if len(w.dims) > 1 and not name.endswith((*places, "image_bias"))}
    for form in WEIGHT_FORMATS:
        small = {tensor.name: tensor for tensor in compress(model, form).graph.initializer}
        assert {name.removesuffix(f"_{form}") for name in small if name.endswith(form)} == learned
        assert all(small[name] == whole[name] for name in whole.keys() - learned)


def test_every_form_is_one_valid_file(exported: Exported) -> None:
    forms = ["", "-stochastic", "-float16", "-int8"]
    names = {f"{name}{form}.onnx" for name in PLAIN for form in forms}
    names |= {"ensemble.onnx", "classifier.onnx", "evaluator.onnx"}
    assert {path.name for path in exported.folder.iterdir()} == names
    for name in names:
        model = onnx.load(exported.folder / name, load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
        assert model.opset_import[0].version == OPSET
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param, "the batch is not dynamic"


@pytest.mark.parametrize("num", [1, 7, 64, 1000])
@pytest.mark.parametrize("sharpness", [0.1, 1.0, 100.0])
def test_generators_agree_with_torch(exported: Exported, num: int, sharpness: float) -> None:
    for seed, (name, generator) in enumerate(zip(PLAIN, exported.generators, strict=True)):
        latent, condition = draw(num, latent_dim=8, num_classes=3, seed=seed, sharpness=(sharpness, sharpness))
        images = OnnxGenerator(exported.folder / f"{name}.onnx")(latent, condition)
        assert images.shape == (num, 1, 12, 12)
        assert np.abs(images - in_torch(generator, latent, condition)).max() <= TOLERANCE


@pytest.mark.parametrize("num", [1, 7, 64, 1000])
def test_classifiers_agree_with_torch(exported: Exported, num: int) -> None:
    images = numpy_rng(num).random((num, 1, 12, 12), dtype=np.float32)
    for name in ("classifier", "evaluator"):
        with torch.no_grad():
            expected = getattr(exported, name)(torch.from_numpy(images)).numpy()
        logits = OnnxClassifier(exported.folder / f"{name}.onnx")(images)
        assert np.abs(logits - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


@pytest.mark.parametrize(
    ("conditioning", "upsampling", "bending", "num_classes", "image_shape"),
    [
        ("vector_matrix", "resize", 0.1, 30, (1, 13, 17)),
        ("embedding", "transposed", 0.1, 4, (3, 12, 16)),
        ("vector", "resize", 0.0, 4, (3, 11, 16)),
        pytest.param("vector_matrix", "transposed", 0.0, 30, (1, 13, 17), marks=pytest.mark.slow),
    ],
)
def test_other_architectures_agree_with_torch(
    conditioning: str, upsampling: str, bending: float, num_classes: int, image_shape: tuple[int, int, int]
) -> None:
    """More classes than pixels in a row, odd sides, colour, no matrix; and the second generator's own weights."""
    settings = {"conditioning": conditioning, "upsampling": upsampling, "latent_dim": 4, "width": 4, "dropout": 0.0}
    settings |= {"bending": bending, "softening": 25 * bending, "toning": 4 * bending, "negatives": bending > 0}
    config = GeneratorConfig.parse(settings)
    generators = [with_statistics(ConditionedGenerator(config, num_classes, image_shape)) for _ in range(2)]
    latent, condition = draw(1000, latent_dim=4, num_classes=num_classes, seed=0, sharpness=(0.1, 100.0))
    models = generator_models(generators)
    for i, (generator, model) in enumerate(zip(generators, models, strict=True)):
        expected = in_torch(generator, latent, condition)
        feeds = {"latent": latent, "condition": condition}
        assert check_agreement(f"generator {i}", model, feeds, expected) <= TOLERANCE
        assert check_agreement(f"generator {i}", rewritten(model), feeds, expected) <= TOLERANCE
    assert_smaller_forms_round_what_is_learned_alone(rewritten(models[0]))
    with pytest.raises(FloatingPointError, match="generator 1 as ONNX differs from torch"):
        check_agreement("generator 1", models[0], feeds, expected)
    with pytest.raises(InputError, match="no dropout"):
        stochastic_model(models[0], generators[0])


def test_stochastic_form_is_torchs_dropout(exported: Exported) -> None:
    """Independently of the export: a hook on each dropout layer multiplies by the mask that the noise means."""
    generator = copy.deepcopy(exported.generators[0])
    latent, condition = draw(64, **exported.metadata.draws, seed=0)
    noise = numpy_rng(0).random((64, generator.noise_dim), dtype=np.float32)
    start = 0

    def drop(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        nonlocal start
        part = torch.from_numpy(noise[:, start : start + output.shape[1], None, None])
        start += output.shape[1]
        return torch.where(part < layer.p, 0, output / (1 - layer.p))

    for layer in generator.modules():
        if isinstance(layer, nn.Dropout2d):
            layer.register_forward_hook(drop)
    expected = in_torch(generator, latent, condition)
    network = OnnxGenerator(exported.folder / "generator-0-stochastic.onnx")
    images = network(latent, condition, noise=noise)
    assert start == noise.shape[1] == network.metadata.noise_dim
    assert np.abs(images - expected).max() <= TOLERANCE
    assert np.abs(images - in_torch(exported.generators[0], latent, condition)).max() > 0.01


def test_ensemble_routes_each_row_to_its_generator(exported: Exported) -> None:
    network = OnnxGenerator(exported.folder / "ensemble.onnx")
    latent, condition = draw(64, **exported.metadata.draws, seed=0)
    each = [in_torch(generator, latent, condition) for generator in exported.generators]
    for turns in (numpy_rng(0).integers(0, 2, 64), np.zeros(64, np.int64), np.ones(64, np.int64)):
        expected = np.stack([each[turn][row] for row, turn in enumerate(turns)])
        assert np.abs(network(latent, condition, generator=turns) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("upsampling", ["resize", "transposed"])
def test_ensemble_at_the_sizes_of_digits_may_leave_a_generator_out(
    exported: Exported, tmp_path: Path, upsampling: str
) -> None:
    seed_torch(0)
    config = GeneratorConfig.parse({"width": 16, "max_width": 16, "upsampling": upsampling})
    generators = [ConditionedGenerator(config, 3, (1, 16, 16)).eval() for _ in "ab"]
    about = replace(exported.metadata, image_shape=(1, 16, 16), latent_dim=generators[0].config.latent_dim)
    export_generators(tmp_path, generators, {}, about, ExportConfig(forms=("ensemble",)))
    latent, condition = draw(2, **about.draws, seed=0)
    images = OnnxGenerator(tmp_path / "ensemble.onnx")(latent, condition, generator=np.ones(2, np.int64))
    assert np.abs(images - in_torch(generators[1], latent, condition)).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("upsampling", "height"),
    [("resize", 3), ("transposed", 3), pytest.param("transposed", 6, marks=pytest.mark.slow)],
)
def test_every_form_of_a_long_thin_image_agrees_with_torch(
    exported: Exported, tmp_path: Path, upsampling: str, height: int
) -> None:
    """The long side doubles alone: up to the image itself, and at a height of 6 up to half of it."""
    config = GeneratorConfig.parse({"latent_dim": 4, "width": 4, "max_width": 8, "upsampling": upsampling})
    generator = with_statistics(ConditionedGenerator(config, 3, (1, height, 26)))
    about = replace(exported.metadata, image_shape=(1, height, 26), latent_dim=4)

    def judge(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3]

    measures = export_generators(
        tmp_path, [generator], {"judge": judge}, about, ExportConfig(max_accuracy_loss=1.0, num_samples=50)
    )
    assert measures["max_difference"] <= TOLERANCE  # of the plain and the stochastic form and the ensemble
    latent, condition = draw(64, **about.draws, seed=0)
    expected = in_torch(generator, latent, condition)
    for form, bound in (("", TOLERANCE), ("-float16", 0.01), ("-int8", 0.1)):
        images = OnnxGenerator(tmp_path / f"generator-0{form}.onnx")(latent, condition)
        assert images.shape == (64, 1, height, 26)
        assert np.abs(images - expected).max() <= bound
    assert {path.stem for path in tmp_path.iterdir()} >= {"ensemble", "generator-0-stochastic"}


def test_metadata_tell_what_the_file_is(exported: Exported) -> None:
    metadata = OnnxGenerator(exported.folder / "ensemble.onnx").metadata
    assert metadata == replace(exported.metadata, num_generators=2)
    assert {"torch", "onnx", "netinv"} <= metadata.versions.keys()
    entries = onnxruntime.InferenceSession(exported.folder / "classifier.onnx").get_modelmeta().custom_metadata_map
    assert entries["netinv.classes"] == '["zero", "one", "two"]'
    assert entries["netinv.image_range"] == "[0.0, 1.0]"
    assert entries["netinv.variant"] == '"classifier"'


def test_files_tell_nothing_of_the_machine(exported: Exported) -> None:
    for path in exported.folder.iterdir():
        data = path.read_bytes()
        # A name of some letters, since weights may hold any three bytes.
        assert not re.search(rb"[a-z_]{4,}\.py\b|stack_trace|" + re.escape(bytes(Path.cwd())), data), path.name


def test_same_network_same_bytes(exported: Exported, tmp_path: Path) -> None:
    for name, model in zip(PLAIN, generator_models(exported.generators), strict=True):
        write_model(tmp_path / name, rewritten(model), exported.metadata)
        assert (tmp_path / name).read_bytes() == (exported.folder / f"{name}.onnx").read_bytes()


def test_smaller_forms_are_smaller_and_say_what_they_lose(exported: Exported) -> None:
    latent, condition = draw(200, **exported.metadata.draws, seed=0)
    full = in_torch(exported.generators[0], latent, condition)
    size = (exported.folder / "generator-0.onnx").stat().st_size
    for form, share, bound in (("float16", 0.55, 2e-3), ("int8", 0.33, 0.1)):
        path = exported.folder / f"generator-0-{form}.onnx"
        assert path.stat().st_size < share * size
        network = OnnxGenerator(path)
        assert network.metadata.precision == form
        assert 0 < np.abs(network(latent, condition) - full).max() < bound
        for judge in ("classifier", "evaluator"):
            assert abs(exported.measures[f"{form}/{judge}_accuracy_loss"]) <= 0.05
        assert exported.measures[f"{form}/refused"] == 0


def test_form_that_loses_accuracy_is_refused(exported: Exported, tmp_path: Path) -> None:
    """A weight that meets only zeros changes no image, but takes int8's whole range away from the others."""
    # Without a hot matrix, which would tell the class past these weights.
    architecture = exported.generators[0].config.model_copy(update={"conditioning": "vector"})
    generator = ConditionedGenerator(architecture, 3, exported.metadata.image_shape)
    config = InversionConfig(steps=60, batch_size=48, lr=5e-3, sharpness=exported.metadata.sharpness)
    assert list(invert(generator, exported.classifier, config, seed=0))
    generator.eval()
    condition, project = generator.condition, generator.project[0]
    with torch.no_grad():
        condition.weight[0] = 0
        condition.bias[0] = 0
        project.weight[:, 0] = 1e4
    smaller = ExportConfig(forms=("float16", "int8"), max_accuracy_loss=0.05, num_samples=200)
    judges = {"classifier": exported.classifier}
    measures = export_generators(tmp_path, [generator], judges, exported.metadata, smaller)
    assert measures["int8/refused"] == 1
    assert measures["int8/classifier_accuracy_loss"] > 0.05
    assert measures["float16/refused"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"generator-0.onnx", "generator-0-float16.onnx"}


def test_smaller_forms_need_a_judge_and_the_others_none(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float16, int8 lose cannot be told without a judge: give classifiers"):
        export_generators(tmp_path, exported.generators[:1], {}, exported.metadata, ExportConfig())
    assert not list(tmp_path.iterdir())
    forms = ExportConfig(forms=("stochastic", "ensemble"))
    export_generators(tmp_path, exported.generators[:1], {}, exported.metadata, forms)
    assert len(list(tmp_path.iterdir())) == 3


def test_unwritable_place_leaves_nothing(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "taken.onnx").mkdir()
    model = onnx.load(exported.folder / "generator-0.onnx")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"taken\.onnx is a folder already"):
        write_model(tmp_path / "taken.onnx", model, exported.metadata)
    with pytest.raises(InputError, match=r"model\.onnx cannot be written"):
        write_model(tmp_path / "file" / "model.onnx", model, exported.metadata)
    assert {path.name for path in tmp_path.iterdir()} == {"taken.onnx", "file"}


def test_a_file_is_single_precision_whatever_torchs_default_is(exported: Exported, tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        export_generator(tmp_path / "generator.onnx", copy.deepcopy(exported.generators[0]).double(), exported.metadata)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    own, other = (OnnxGenerator(path) for path in (tmp_path / "generator.onnx", exported.folder / "generator-0.onnx"))
    assert np.abs(own.sample(9, seed=2).images - other.sample(9, seed=2).images).max() <= TOLERANCE
