"""Single units: who fires them, what they do, where they look, what is made for them."""

import pytest
import torch
from draws import library_torch_rng, seed_torch
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier, ConvClassifierConfig, build_classifier, freeze
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.interpretation import Drawn, Site, SparseAutoencoder
from netinv.interpretation.concepts import (
    answers,
    carriers,
    heat_maps,
    make_images,
    shares,
    switch_off,
)
from netinv.interpretation.images import draw_pool
from netinv.interpretation.measures import Seen

SHAPE = (1, 8, 8)


class _Corner(nn.Module):
    """Its only hidden number is the brightness of the upper left quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.head = nn.Conv2d(1, 1, 1), nn.Linear(1, 2)
        nn.init.ones_(self.look.weight)
        nn.init.zeros_(self.look.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.look(images)[:, :, :4, :4].mean(dim=(2, 3)))


def _classifier() -> nn.Module:
    seed_torch(0)
    return freeze(build_classifier(ConvClassifierConfig(channels=(4,), feature_dim=6), 3, SHAPE, (0.5,), (0.2,)))


def _begun(site: Site, images: Tensor, units: int = 12, active: int = 3) -> SparseAutoencoder:
    rows = site.read(images, None)[:, 0]
    return SparseAutoencoder.begin(rows, units, active, library_torch_rng(0))


def test_what_a_unit_adds_to_the_logits_is_its_code_times_its_direction_times_the_last_layer() -> None:
    classifier = _classifier()
    site, images = Site(classifier), torch.rand(60, *SHAPE)
    label = classifier(images).argmax(dim=1)
    model = _begun(site, images)
    codes = model.encode(site.read(images, None)[:, 0]).detach()
    for unit in range(12):
        firing = codes[:, unit] > 0
        effect = switch_off(site, model, unit, Seen(images, label, None), codes[:, unit])
        if not firing.any():
            assert not effect.logits.any()
            continue
        mean = codes[firing, unit].mean()
        assert torch.allclose(effect.logits, mean * classifier.head.weight @ model.directions[unit], atol=1e-4)
        without = classifier(images) - codes[:, unit, None] * (classifier.head.weight @ model.directions[unit])
        lost = torch.bincount(label[without.argmax(dim=1) != label], minlength=3)
        assert effect.lost.tolist() == lost.tolist()


def test_units_are_chosen_class_by_class_each_once() -> None:
    label = torch.tensor([0, 0, 1, 1, 2, 2])
    strength = torch.zeros(6, 5)
    strength[:2, 3] = 2.0
    strength[:2, 4] = 1.0
    strength[2:4, 0] = 3.0
    strength[:, 1] = 5.0  # fires for all alike, and tells nothing
    assert carriers(strength, label, 3, num=10) == [3, 4, 0]
    assert carriers(strength, label, 3, num=2) == [3, 0]
    assert carriers(torch.zeros(6, 5), label, 3, num=2) == []


def test_shares_of_classes_are_by_strength() -> None:
    assert shares(torch.tensor([3.0, 1.0, 0.0]), torch.tensor([2, 0, 1]), 3).tolist() == [0.25, 0.0, 0.75]
    assert shares(torch.zeros(2), torch.tensor([0, 1]), 2).tolist() == [0, 0]


def test_heat_lies_where_the_network_looks() -> None:
    site = Site(AdaptedClassifier(_Corner().eval(), SHAPE, 2))
    model = SparseAutoencoder(1, 1, 1)
    model.redirect(torch.ones(1, 1))
    heat = heat_maps(site, model, torch.ones(1, *SHAPE), [0], torch.zeros(1, 1, 1))
    assert heat.shape == (1, 8, 8)
    assert heat[0, :3, :3].min() > 0.1
    assert heat[0, 6:].max() == heat[0, :, 6:].max() == 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9)])
def test_heat_has_the_size_of_the_image(shape: tuple[int, int, int]) -> None:
    seed_torch(0)
    classifier = freeze(build_classifier(ConvClassifierConfig(channels=(4,), feature_dim=6), 3, shape, (0.5,), (0.2,)))
    site, images = Site(classifier), torch.rand(20, *shape)
    model = _begun(site, images)
    heat = heat_maps(site, model, images[:3], [0, 5, 7], images.mean(dim=(0, 2, 3))[:, None, None])
    assert heat.shape == (3, *shape[1:])
    assert 0 <= heat.min() <= heat.max() <= 1


def test_the_image_made_for_a_unit_fires_it_more_purely_than_where_it_began() -> None:
    classifier = _classifier()
    seed_torch(1)
    generators = [ConditionedGenerator(GeneratorConfig(latent_dim=8, width=8), 3, SHAPE).eval() for _ in range(2)]
    pool = draw_pool({"standard": Drawn(generators, (1.0, 5.0))}, 80, seed=0)
    site = Site(classifier)
    model = _begun(site, pool.seen.images)
    strength = answers(site, model, pool.seen.images).detach()
    units = [unit for unit in range(12) if strength[:, unit].max() > 0][:4]

    def score(of: Tensor, unit: int) -> Tensor:
        return 2 * (of[:, unit] + 1e-4).log() - (of.sum(dim=1) + 1e-4).log()

    made = make_images(site, model, generators, pool, strength, units, steps=30)
    again = answers(site, model, made.images).detach()
    for n, unit in enumerate(units):
        starts = strength[:, unit].topk(4).indices
        assert score(again[n : n + 1], unit) > score(strength[starts], unit).max() - 1e-3
        assert float(made.strength[n]) == pytest.approx(float(again[n, unit]), rel=1e-3)
        assert float(made.purity[n]) == pytest.approx(float(again[n, unit] / again[n].sum()), rel=1e-3)
    still = make_images(site, model, generators, pool, strength, units, steps=1)
    before = answers(site, model, still.images).detach()
    gained = [float(score(again, unit)[n] - score(before, unit)[n]) for n, unit in enumerate(units)]
    assert max(gained) > 0  # of one that nothing fires more there is no more to gain


def test_generators_draw_in_turn_each_as_it_was_trained() -> None:
    seed_torch(0)
    first, second = (ConditionedGenerator(GeneratorConfig(latent_dim=dim, width=8), 3, SHAPE).eval() for dim in (4, 6))
    variants = {"standard": Drawn([first], (1.0, 1.0)), "robust": Drawn([second], (40.0, 40.0))}
    pool = draw_pool(variants, 7, seed=0)
    assert pool.source.tolist() == [0, 1, 0, 1, 0, 1, 0]
    for n in range(7):
        generator = (first, second)[n % 2]
        latent = pool.latent[n : n + 1, : generator.config.latent_dim]
        wanted = generator(latent, pool.vector[n : n + 1])
        assert torch.allclose(pool.seen.images[n : n + 1], wanted, atol=1e-5)
    assert bool((pool.vector[1::2].amax(dim=1) > 0.9).all())
