"""Training images recognised in samples: found where they are, at the rate of false alarms that is stated."""

import numpy as np
import pytest
import torch
from draws import numpy_rng, torch_rng
from scipy import stats
from skimage.metrics import structural_similarity

from netinv.audit.reconstruction import nearest_samples, p_values, recognised


def test_the_sample_that_shows_an_image_best_is_found() -> None:
    rng = torch_rng(0)
    samples = torch.rand(30, 1, 9, 9, generator=rng)
    images = torch.cat([samples[[7, 3]], torch.rand(4, 1, 9, 9, generator=rng)])
    found = nearest_samples(images, samples)
    assert found.sample[:2].tolist() == [7, 3]
    assert found.distance[:2] == pytest.approx(0, abs=1e-9)
    for image, distance, sample in zip(images, found.distance, found.sample, strict=True):
        like = structural_similarity(image[0].double().numpy(), samples[sample][0].double().numpy(), data_range=1)
        assert distance == pytest.approx(1 - like)
    small = nearest_samples(torch.zeros(2, 1, 5, 5), torch.ones(3, 1, 5, 5))
    assert small.distance.tolist() == [5.0, 5.0]


def test_p_values_and_the_list_are_those_of_their_definitions() -> None:
    rng = numpy_rng(1)
    train, test = rng.random(40), rng.random(60)
    p = p_values(train, test)
    assert p.tolist() == pytest.approx([(1 + sum(t <= x for t in test)) / 61 for x in train])
    p = np.concatenate([p, np.full(8, 1e-3)])
    expected = np.flatnonzero(stats.false_discovery_control(p, method="bh") <= 0.1)
    assert sorted(recognised(p, 0.1).tolist()) == expected.tolist()
    assert not len(recognised(np.full(20, 0.5), 0.1))


def test_false_alarms_keep_to_their_rate() -> None:
    rng = numpy_rng(2)
    chance = [len(recognised(p_values(rng.random(200), rng.random(200)), 0.1)) > 0 for _ in range(300)]
    assert sum(chance) <= 45  # 30 at most are expected
    shares = []
    for _ in range(200):
        train = np.concatenate([rng.random(30) * 1e-3, rng.random(170)])
        named = recognised(p_values(train, rng.random(200)), 0.1)
        shares.append((named >= 30).mean() if len(named) else 0.0)
    assert np.mean(shares) <= 0.12
