"""Every setting of a generator reaches what it is for."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from draws import torch_rng
from torch import nn

from netinv.generators import ConditionedGenerator, GeneratorConfig


def built(**changes: Any) -> ConditionedGenerator:
    """A generator of three classes and 3 x 3, 4 x 4, 8 x 8 and 16 x 16 pixels."""
    return ConditionedGenerator(GeneratorConfig.parse(changes), 3, (2, 16, 16))


def convolutions(generator: ConditionedGenerator) -> list[tuple[int, int]]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return [(layer.in_channels, layer.out_channels) for layer in generator.modules() if isinstance(layer, kinds)]


@pytest.mark.parametrize(
    ("conditioning", "kind", "matrix"),
    [("vector_matrix", nn.Linear, 1), ("vector", nn.Linear, 0), ("embedding", nn.Embedding, 0)],
)
def test_conditioning_is_how_the_label_gets_in(conditioning: str, kind: type[nn.Module], matrix: int) -> None:
    generator = built(conditioning=conditioning, width=4, max_width=8)
    assert isinstance(generator.condition, kind)
    assert convolutions(generator)[0] == (8 + matrix, 8)


@pytest.mark.parametrize("dim", [5, 9])
def test_latent_dim_is_the_length_of_the_latent(dim: int) -> None:
    generator = built(latent_dim=dim, hidden_dim=6)
    assert generator.project[0].in_features == dim + 6
    assert generator(torch.zeros(2, dim), torch.eye(3)[:2]).shape == (2, 2, 16, 16)


@pytest.mark.parametrize("dim", [5, 9])
def test_hidden_dim_is_the_length_of_the_mapped_condition(dim: int) -> None:
    assert built(hidden_dim=dim).condition(torch.eye(3)).shape == (3, dim)


@pytest.mark.parametrize("width", [4, 6])
def test_width_doubles_at_each_halving(width: int) -> None:
    generator = built(width=width, max_width=1000)
    expected = [(8 * width + 1, 4 * width), (4 * width, 2 * width), (2 * width, width), (width, 2)]
    assert convolutions(generator) == expected


@pytest.mark.parametrize("bound", [8, 20])
def test_max_width_bounds_the_doubling(bound: int) -> None:
    widths = [min(4 * 2**i, bound) for i in (3, 2, 1, 0)]
    expected = [(widths[0] + 1, widths[1]), (widths[1], widths[2]), (widths[2], widths[3]), (widths[3], 2)]
    assert convolutions(built(width=4, max_width=bound)) == expected


def test_upsampling_is_how_an_image_doubles() -> None:
    for how, convolution in (("resize", nn.Conv2d), ("transposed", nn.ConvTranspose2d)):
        generator = built(upsampling=how, width=4)
        kinds = [type(layer[0] if isinstance(layer, nn.Sequential) else layer) for layer in generator.up[::4]]
        assert kinds == [nn.Conv2d, convolution, convolution]  # 3 to 4, which is no doubling, and 4 to 8 to 16
        assert sum(isinstance(layer, nn.Upsample) for layer in generator.modules()) == (3 if how == "resize" else 1)
        assert generator(torch.zeros(2, 64), torch.eye(3)[:2]).shape == (2, 2, 16, 16)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_is_that_of_each_up_convolution(dropout: float) -> None:
    generator = built(dropout=dropout, width=4)
    assert [layer.p for layer in generator.modules() if isinstance(layer, nn.Dropout2d)] == [dropout] * 3
    assert generator.noise_dim == (16 + 8 + 4 if dropout else 0)


@pytest.mark.parametrize("softening", [0.25, 1.0, 2.5])
def test_softening_is_the_number_of_blurs(softening: float) -> None:
    """Against convolutions with 1, 2, 1 across and down, whose sums are 16."""
    generator = built(softening=softening, width=4).eval()
    latent, condition = torch.randn(5, 64, generator=torch_rng(0)), torch.eye(3)[[0, 1, 2, 0, 1]]
    found = generator(latent, condition)
    generator.soften = None
    plain = generator(latent, condition)
    line = torch.tensor([1.0, 2.0, 1.0])
    kernel = (line[:, None] * line / 16).expand(2, 1, 3, 3)
    expected = plain
    for share in (1.0,) * int(softening) + (softening % 1,):
        blurred = F.conv2d(F.pad(expected, (1, 1, 1, 1), mode="replicate"), kernel, groups=2)
        expected = (1 - share) * expected + share * blurred
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("toning", "negatives"), [(0.7, False), (0.4, True), (0.0, True)])
def test_images_have_the_tone_that_their_latents_say(toning: float, negatives: bool) -> None:
    """Against its definition, by the latents 40 to 42 of 64; no image leaves [0, 1]."""
    generator = built(toning=toning, negatives=negatives, width=4).eval()
    latent, condition = torch.randn(60, 64, generator=torch_rng(0)), torch.eye(3)[torch.arange(60) % 3]
    found = generator(latent, condition)
    tone, generator.tone = generator.tone, None
    plain = generator(latent, condition)
    first, second, third = latent[:, 40:43, None, None, None].unbind(dim=1)
    contrast = 1 - toning * torch.special.ndtr(first)
    bright = (1 - contrast) * (torch.special.ndtr(second) - 0.5)
    sign = torch.where(third < 0, -1.0, 1.0) if negatives else 1.0
    torch.testing.assert_close(found, 0.5 + sign * contrast * (plain - 0.5) + bright)
    assert tone is not None
    for extreme in (torch.zeros(60, 1, 2, 2), torch.ones(60, 1, 2, 2)):
        assert (tone(extreme, 5 * latent) - 0.5).abs().max() <= 0.5 + 1e-6
        assert torch.equal(tone(extreme.bfloat16(), latent), tone(extreme, latent))


def test_toning_needs_three_latents() -> None:
    for settings in ({"toning": 0.5}, {"negatives": True}):
        with pytest.raises(ValueError, match="toning and negatives need a latent_dim of 3"):
            GeneratorConfig(latent_dim=2, **settings)
    images = ConditionedGenerator(GeneratorConfig(latent_dim=3, toning=1.0, width=4), 3, (1, 9, 5)).eval()
    assert images(torch.randn(2, 3, generator=torch_rng(0)), torch.eye(3)[:2]).shape == (2, 1, 9, 5)


@pytest.mark.parametrize("bending", [0.02, 0.1])
def test_bending_is_how_far_the_first_latents_bend_an_image(bending: float) -> None:
    """Against interpolated displacements, and on an image whose pixels say where they came from."""
    generator = built(bending=bending, width=4).eval()
    latent, condition = torch.randn(5, 64, generator=torch_rng(0)), torch.eye(3)[[0, 1, 2, 0, 1]]
    bend, generator.bend = generator.bend, None
    straight = generator(latent, condition)
    generator.bend = bend
    moves = F.interpolate(bending * latent[:, :32].view(-1, 2, 4, 4), size=(16, 16), mode="bicubic", align_corners=True)
    grid = F.affine_grid(torch.eye(2, 3).expand(5, 2, 3), [5, 2, 16, 16], align_corners=False)
    grid = grid + 2 * moves.permute(0, 2, 3, 1)
    expected = F.grid_sample(straight, grid, padding_mode="border", align_corners=False)
    assert torch.allclose(generator(latent, condition), expected, atol=1e-5)
    assert bend is not None
    columns = torch.arange(16.0).expand(1, 1, 16, 16)
    across = torch.zeros(1, 64)
    across[:, :16] = 1.0  # every point one standard deviation to the right
    middle = bend(columns, across)[0, 0, :, 6:10]
    assert torch.allclose(middle, columns[0, 0, :, 6:10] + 16 * bending, atol=1e-4)


def test_bending_needs_two_latents() -> None:
    with pytest.raises(ValueError, match="bending needs a latent_dim of 2"):
        GeneratorConfig(latent_dim=1, bending=0.1)
    narrow = ConditionedGenerator(GeneratorConfig(latent_dim=3, bending=0.1, width=4), 3, (1, 9, 5))
    assert narrow(torch.randn(2, 3, generator=torch_rng(0)), torch.eye(3)[:2]).shape == (2, 1, 9, 5)
