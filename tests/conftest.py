"""Shared set-up: one thread each, as on a busy machine, and the repository's root at hand."""

import functools
import gc
import importlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from netinv.classifiers import Classifier
    from netinv.generators import ConditionedGenerator
    from netinv.sampling import Metadata

os.environ.setdefault("OMP_NUM_THREADS", "1")

gc.disable()  # a third of collecting the tests went into looking for garbage among modules, which stay

collect_ignore_glob = ["*conftest.py"]
"""Searched for doctests, they would be imported once more, and all go by one name."""

if "MUTANT_UNDER_TEST" in os.environ:  # what takes seconds is done once, before a process parts for each mutant
    import torch

    for name in ("prdc", "skimage.metrics", "sklearn.neighbors", "torchmetrics.functional", "vendi_score"):
        with warnings.catch_warnings(action="ignore"):
            importlib.import_module(name)
    torch.testing.assert_close(torch.ones(1), torch.ones(1))
    torch.optim.AdamW([torch.ones(1)])


def pytest_report_header() -> str:
    """What the numbers of a run depend on beside the code."""
    names = ("NETINV_TEST_SEED", "OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "NETINV_TEST_BFLOAT16")
    return "numerics: " + ", ".join(f"{name}={os.environ.get(name, 'unset')}" for name in names)


def pytest_collection_finish() -> None:
    """What was collected stays; from now on only what the tests make is looked through for garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file comes first, so that other processes do the rest meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")


@pytest.fixture(autouse=True, scope="session")
def other_processor() -> Iterator[None]:
    """With ``NETINV_TEST_BFLOAT16=1`` torch tells of instructions for bfloat16, and precision ``auto`` chooses it."""
    if not os.environ.get("NETINV_TEST_BFLOAT16"):
        yield
        return
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
        yield


@pytest.fixture(autouse=True)
def global_draws() -> None:
    """Draws without a random state of their own are the same whether a test runs alone or among others."""
    if "torch" in sys.modules:
        from draws import seed_torch

        seed_torch(0)


@pytest.fixture(autouse=True)
def quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifiers are timed for a moment, finished inversions judged on a few images: a hundred tests do either."""
    if check := sys.modules.get("netinv.classifiers.check"):
        monkeypatch.setattr(check, "TIMED_SECONDS", 0.01)
    if api := sys.modules.get("netinv.app.api"):
        monkeypatch.setattr(api, "JUDGED", 100)


@pytest.fixture(autouse=True)
def one_table_of_operators() -> None:
    """Torch's exporter makes its table of operators, always the same, for each file anew, in a third of its time."""
    private = sys.modules.get("torch.onnx._internal.exporter._registration")
    make = getattr(getattr(private, "ONNXRegistry", None), "from_torchlib", None)
    if private and make and not hasattr(make, "cache_info"):
        private.ONNXRegistry.from_torchlib = staticmethod(functools.cache(make))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium, without calls of its own to anywhere."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    quiet = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*quiet, "--disable-component-update", "--disable-sync"]
        )
        yield browser
        browser.close()


@dataclass(frozen=True)
class Exported:
    """Small trained networks of three classes, and the folder of their ONNX files."""

    folder: Path
    generators: "list[ConditionedGenerator]"
    classifier: "Classifier"
    evaluator: "Classifier"
    metadata: "Metadata"
    measures: dict[str, float]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Two generators in all forms, their classifier and an evaluator."""
    from once import made_once

    from netinv.classifiers import freeze, load_classifier
    from netinv.export import versions
    from netinv.generators import load_generators
    from netinv.sampling import Metadata

    metadata = Metadata(
        kind="generator",
        dataset="shapes",
        variant="standard",
        classes=("zero", "one", "two"),
        image_shape=(1, 12, 12),
        run_id="0123",
        licence="Nobody's",
        versions=versions(),
        latent_dim=8,
        sharpness=(3.0, 3.0),
    )
    made = made_once(tmp_path_factory, "exported", lambda folder: export(folder, metadata))
    classifier, evaluator = (load_classifier(made / name) for name in ("classifier", "evaluator"))
    freeze(classifier), freeze(evaluator)
    measures = json.loads((made / "measures.json").read_text())
    return Exported(made / "onnx", load_generators(made), classifier, evaluator, metadata, measures)


def export(folder: Path, metadata: "Metadata") -> None:
    """Train the networks and write them, as checkpoints and as ONNX files."""
    from draws import seed_torch

    from netinv.classifiers import (
        ConvClassifierConfig,
        ResidualClassifierConfig,
        build_classifier,
        freeze,
        save_classifier,
    )
    from netinv.export import ExportConfig, export_classifier, export_generators
    from netinv.generators import ConditionedGenerator, GeneratorConfig, save_generator
    from netinv.inversion import InversionConfig, class_accuracies, invert

    shape = metadata.image_shape
    config = InversionConfig(steps=60, batch_size=48, lr=5e-3, sharpness=metadata.sharpness)
    for attempt in range(9):  # an untrained classifier may have a class that no generator comes to
        seed_torch(attempt)
        classifier = build_classifier(ConvClassifierConfig(channels=(8,), feature_dim=16), 3, shape, (0.5,), (0.25,))
        evaluator = build_classifier(ResidualClassifierConfig(channels=(8,)), 3, shape, (0.5,), (0.25,))
        freeze(classifier), freeze(evaluator)
        generators = []
        for seed in range(2):
            architecture = GeneratorConfig(latent_dim=8, hidden_dim=120, width=8, max_width=16)
            generators.append(ConditionedGenerator(architecture, 3, shape))
            assert list(invert(generators[-1], classifier, config, seed))
        if all(min(class_accuracies(generator, classifier, config)) > 0.8 for generator in generators):
            break
    else:
        pytest.fail("no classifier of nine whose classes two generators draw")
    for i, generator in enumerate(generators):
        save_generator(folder / str(i), generator)
    judges = {"classifier": classifier, "evaluator": evaluator}
    onnx = folder / "onnx"
    onnx.mkdir()
    measures = export_generators(onnx, generators, judges, metadata, ExportConfig(max_accuracy_loss=0.05))
    for name, network in judges.items():
        save_classifier(folder / name, network)
        about = replace(metadata, kind="classifier", variant=name, latent_dim=0)
        measures[name] = export_classifier(onnx / f"{name}.onnx", network, about)
    (folder / "measures.json").write_text(json.dumps(measures))
