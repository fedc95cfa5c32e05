"""What is held in memory: never all activations of all images, and one kind of images at a time."""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from draws import torch_rng
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from netinv.classifiers import AdaptedClassifier, AdapterConfig
from netinv.data import LabelledImages
from netinv.interpretation import DictionaryConfig, Drawn, InterpretationConfig, Site, interpret, sites
from netinv.interpretation.images import draw_pool
from netinv.interpretation.measures import Seen, ablate
from netinv.results import Bootstrap

if TYPE_CHECKING:
    from conftest import Exported

SHAPE = (1, 12, 12)
INTERPRET: Any = sys.modules[interpret.__module__]


class _Held:
    """Counts those of the tensors it was shown whose memory is still in use."""

    def __init__(self) -> None:
        self.seen: list[StorageWeakRef] = []
        self.most = 0

    def show(self, tensor: Tensor) -> None:
        self.seen.append(StorageWeakRef(tensor.untyped_storage()))
        self.most = max(self.most, sum(not reference.expired() for reference in self.seen))


def _site() -> Site:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(400, 3))
    return Site(AdaptedClassifier(network, SHAPE, 3), "0")


def _seen(num: int) -> Seen:
    rng = torch_rng(1)
    return Seen(torch.rand(num, *SHAPE, generator=rng), torch.arange(num) % 3, torch.rand(num, 5, generator=rng))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> _Held:
    """Shown the activations of every batch."""
    held, plain = _Held(), Site.activations

    def activations(site: Site, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, rows = plain(site, images)
        held.show(rows)
        return logits, rows

    monkeypatch.setattr(Site, "activations", activations)
    return held


def test_means_and_deviations_hold_one_batch_and_the_one_before_it(held: _Held) -> None:
    site, seen = _site(), _seen(6 * sites.BATCH)
    rows = site.read(seen.images, None).double()
    held.seen.clear()
    held.most = 0
    without = ablate(site, seen)
    assert len(held.seen) == 12
    assert held.most <= 2
    mean = rows.mean(dim=(0, 1))
    assert torch.allclose(without.mean.double(), mean, atol=1e-5)
    assert np.allclose(without.deviation, (rows - mean).square().sum(dim=(1, 2)).numpy(), rtol=1e-4)


def test_so_do_the_largest_of_the_activations_themselves(held: _Held) -> None:
    site, seen = _site(), _seen(6 * sites.BATCH)
    most = site.read(seen.images, None).amax(dim=1)
    held.seen.clear()
    held.most = 0
    bootstrap = Bootstrap(0, 100)
    found = INTERPRET._neurons(site, seen, bootstrap)
    assert held.most <= 2
    assert found == INTERPRET.alike(most - most.amin(dim=0), seen.features, bootstrap)


def test_of_images_with_many_activations_fewer_go_through_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _seen(30)
    whole = _site()
    assert whole.batch == sites.BATCH
    monkeypatch.setattr(sites, "TOGETHER", 7 * whole.positions + 1)
    parts = Site(whole.classifier, "0")
    assert parts.batch == 7
    assert torch.allclose(parts.read(seen.images, None), whole.read(seen.images, None), atol=1e-5)
    monkeypatch.setattr(sites, "TOGETHER", 1)
    assert Site(whole.classifier, "0").batch == 1


@pytest.mark.parametrize(("shape", "given"), [((1, 256, 256), None), (SHAPE, (1, 256, 256))])
def test_of_large_images_fewer_go_through_at_a_time(shape: Any, given: Any) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
    classifier = AdaptedClassifier(network, shape, 2, AdapterConfig(input_shape=given))
    assert Site(classifier, "2").batch == 16


def _variants(exported: "Exported") -> dict[str, Drawn]:
    return {name: Drawn([g], (3.0, 3.0)) for name, g in zip(("standard", "robust"), exported.generators, strict=True)}


def test_images_of_one_kind_are_held_while_its_activations_are_read(
    exported: "Exported", monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _Held()

    def watched(function: Any) -> Any:
        def draw(*arguments: Any) -> Any:
            drawn = function(*arguments)
            held.show(getattr(getattr(drawn, "seen", drawn), "images", drawn))
            return drawn

        return draw

    for name in ("draw_pool", "real_images", "noise_images"):
        monkeypatch.setattr(INTERPRET, name, watched(getattr(INTERPRET, name)))
    real = LabelledImages(
        torch.randint(0, 256, (100, *SHAPE), generator=torch_rng(2), dtype=torch.uint8), torch.arange(100) % 3
    )
    config = InterpretationConfig(images=100, dictionary=DictionaryConfig(units=16, active=3))
    rows = INTERPRET._rows(Site(exported.classifier), _variants(exported), real, config)
    assert set(rows) == {"generated", "standard", "robust", "real", "noise"}
    assert len(held.seen) == 5
    assert held.most == 1


def test_a_pool_holds_every_image_once(exported: "Exported") -> None:
    held = _Held()
    handles = [g.register_forward_hook(lambda module, inputs, output: held.show(output)) for g in exported.generators]
    pool = draw_pool(_variants(exported), 501, seed=0)
    for handle in handles:
        handle.remove()
    assert len(held.seen) == 6
    assert held.most <= 2  # of three batches of each generator
    for source, generator in enumerate(exported.generators):
        own = pool.source == source
        with torch.no_grad():
            wanted = generator(pool.latent[own][:, : generator.config.latent_dim], pool.vector[own])
        assert torch.allclose(pool.seen.images[own], wanted, atol=1e-5)
