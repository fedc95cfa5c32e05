"""What an inversion will take is known before it begins."""

import re
import time

import pytest
import torch
from draws import seed_torch
from torch import nn

import netinv
from netinv.classifiers import adapt
from netinv.core import InputError, batch_size_for
from netinv.generators import GeneratorConfig
from netinv.inversion import InversionConfig, step_cost, variant_config
from netinv.inversion.cost import StepCost, duration

SHAPE = (1, 8, 8)
SMALL = GeneratorConfig(latent_dim=4, hidden_dim=4, width=4, max_width=4)


class Slow(nn.Module):
    """Takes its time, and counts the batches that it is given."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.sizes = seconds, []
        self.layer = nn.Linear(64, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        self.sizes.append(len(images))
        return self.layer(images.flatten(1))


@pytest.fixture
def network() -> Slow:
    seed_torch(0)
    return Slow(0.2).eval()


def test_a_step_is_timed_by_doing_it(network: Slow) -> None:
    classifier = adapt(network, SHAPE)
    network.sizes.clear()
    state = torch.random.get_rng_state()
    cost = step_cost(classifier, InversionConfig(batch_size=12, steps=400), SMALL)
    assert 0.2 <= cost.seconds < 5
    assert network.sizes == [12, 12]  # the first step pays for what the second finds done
    assert 2**24 < cost.memory < 2**40
    assert torch.equal(torch.random.get_rng_state(), state)
    network.sizes.clear()
    step_cost(classifier, InversionConfig(batch_size=12), SMALL, most=0.1)
    assert network.sizes == [12]


@pytest.mark.filterwarnings("ignore:Was it trained")
def test_what_takes_longer_than_allowed_is_refused_before_the_work(network: Slow) -> None:
    config = InversionConfig(steps=50_000, batch_size=8)
    with pytest.raises(InputError, match=r"50000 steps .* hours, with .* GiB .* more than the 36 seconds of max_hours"):
        netinv.invert(network, image_shape=SHAPE, config=config, generator=SMALL, max_hours=0.01, progress=False)


@pytest.mark.filterwarnings("ignore:Was it trained")
def test_it_is_said_what_the_training_will_take(
    network: Slow, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netinv.app.api.WORTH_SAYING", 0.3)
    brief = {"config": InversionConfig(steps=2, batch_size=100), "generator": SMALL, "attempts": 1}
    with pytest.warns(UserWarning, match="Of the classes"):
        netinv.invert(network, image_shape=SHAPE, **brief)
    assert re.search(r"the 2 steps \d+ seconds, with", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("side", "expected"), [(28, 64), (32, 64), (64, 64), (96, 28), (112, 20), (224, 16), (512, 16)]
)
def test_large_images_come_in_smaller_batches(side: int, expected: int) -> None:
    assert batch_size_for(64, (3, side, side)) == expected
    assert batch_size_for(8, (3, side, side)) == 8


def test_neither_side_of_an_image_is_forgotten() -> None:
    assert batch_size_for(64, (1, 128, 64)) == batch_size_for(64, (1, 64, 128)) == 32


def test_memory_is_told_in_gibibytes_and_long_work_in_days() -> None:
    assert StepCost(0.5, 3 * 2**29).describe(10) == (
        "A step takes about 0.5 s, the 10 steps 5 seconds, with 1.5 GiB of memory. The measurement at the end and "
        "further attempts come on top."
    )
    assert duration(2 * 86_400) == "2.0 days"
    assert duration(2 * 86_400 - 1) == "48.0 hours"
    assert duration(7_200) == "2.0 hours"
    assert duration(7_199) == "120 minutes"
    assert duration(120) == "2 minutes"
    assert duration(119) == "119 seconds"


def test_a_variant_by_name_heeds_the_size_of_the_images() -> None:
    from netinv.app.api import settings_of

    large = adapt(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3)).eval(), (1, 96, 96))
    config, _ = settings_of("standard", large)
    assert config == variant_config("standard").model_copy(update={"batch_size": 28})


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(7, "7 seconds"), (119, "119 seconds"), (7199, "120 minutes"), (7200, "2.0 hours"), (4e5, "4.6 days")],
)
def test_durations_are_in_the_unit_that_people_use(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
