"""Activations read and replaced in networks of many kinds."""

import pytest
import torch
from draws import library_torch_rng, seed_torch
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier, ConvClassifierConfig, build_classifier, freeze
from netinv.classifiers.programs import InParts
from netinv.core import InputError
from netinv.interpretation import Site

SHAPE = (1, 8, 8)


class _Tokens(nn.Module):
    """A network of tokens, as vision transformers are."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 12)
        self.block = nn.Linear(12, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images.flatten(1).view(len(images), 8, 8))
        return self.head(torch.relu(self.block(tokens)).mean(dim=1))


class _Twice(nn.Module):
    """One activation module in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Linear(64, 10), nn.Linear(10, 3), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(images.flatten(1)))))


def _own() -> nn.Module:
    seed_torch(0)
    config = ConvClassifierConfig(channels=(4, 6), feature_dim=7, dropout=0)
    return freeze(build_classifier(config, 3, SHAPE, (0.5,), (0.25,)))


def _adapted(network: nn.Module) -> AdaptedClassifier:
    return AdaptedClassifier(network, SHAPE, 3)


def _images(num: int = 5) -> Tensor:
    return torch.rand(num, *SHAPE, generator=library_torch_rng(2))


def test_penultimate_features_are_what_the_classifier_calls_its_features() -> None:
    classifier = _own()
    site = Site(classifier)
    _, features = classifier(_images(), return_features=True)
    assert (site.positions, site.dim) == (1, 7)
    assert torch.equal(site.read(_images(), positions=None)[:, 0], features)


@pytest.mark.parametrize("layer", [None, "body.0", "body.1", "body.10"])
def test_activations_that_are_put_back_change_nothing_and_zeros_do(layer: str | None) -> None:
    classifier = _own()
    site = Site(classifier, layer)
    before = classifier(_images())
    assert torch.allclose(site.logits_with(_images(), lambda rows: rows), before, atol=1e-6)
    assert not torch.allclose(site.logits_with(_images(), torch.zeros_like), before)
    assert torch.equal(classifier(_images()), before)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layer", ["0", "4"])
def test_a_layer_is_read_and_replaced_before_what_follows_changes_it_in_place(layer: str, inplace: bool) -> None:
    seed_torch(0)
    act = nn.ReLU(inplace=inplace)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), act, nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5), act)
    network.append(nn.Linear(5, 3))
    site, index = Site(_adapted(network), layer), int(layer)
    true = network[: index + 1](_images())  # nothing behind it has been there
    assert bool((true < 0).any())
    assert torch.allclose(site.read(_images(), positions=None), true.flatten(2).mT if index == 0 else true[:, None])
    mean = site.read(_images(), positions=None).mean(dim=(0, 1))
    wanted = network[index + 1 :](mean.view(1, -1, *[1] * (true.ndim - 2)).expand_as(true).clone())
    assert torch.allclose(site.logits_with(_images(), lambda rows: mean.expand_as(rows)), wanted, atol=1e-6)


def test_channels_of_pixels_are_rows() -> None:
    classifier = _own()
    site = Site(classifier, "body.0")
    assert (site.positions, site.dim) == (64, 4)
    images = _images()
    wanted = classifier.body[0]((images - classifier.mean) / classifier.std)
    assert torch.allclose(site.read(images, positions=None)[:, 9], wanted[:, :, 1, 1], atol=1e-6)


def test_tokens_are_positions_and_some_of_them_can_be_drawn() -> None:
    seed_torch(0)
    site = Site(_adapted(_Tokens()), "block")
    assert (site.positions, site.dim) == (8, 12)
    every, some = site.read(_images(), None), site.read(_images(), positions=3)
    assert some.shape == (5, 3, 12)
    assert bool((some[:, :, None] == every[:, None]).all(dim=3).any(dim=2).all())
    assert not torch.equal(some, site.read(_images(), positions=3, seed=1))


def test_a_single_image_is_a_batch() -> None:
    seed_torch(0)
    site = Site(_adapted(_Tokens()), "block")
    assert site.read(_images(1), None).shape == (1, 8, 12)
    assert torch.allclose(site.read(_images(1), None), site.read(_images(5), None)[:1], atol=1e-6)
    assert site.logits_with(_images(1), lambda rows: 0 * rows).shape == (1, 3)


def test_a_layer_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(
        InputError, match=r"no layer 'blocks' with activations; those that have are: embed, block, head"
    ):
        Site(_adapted(_Tokens()), "blocks")


def test_a_layer_that_is_used_twice_is_none() -> None:
    with pytest.raises(InputError, match=r"no layer 'act' .* are: first, second"):
        Site(_adapted(_Twice()), "act")


class _Flipped(nn.Module):
    """Looks at an image and at its mirror image with the same layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Flatten(), nn.Linear(64, 10), nn.Linear(10, 3)

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.first(images)
        return self.head(self.second(pixels)) + self.head(self.second(pixels.flip(1)))


@pytest.mark.parametrize("size", [None, 1, 2, 64])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_head_that_is_used_twice_for_an_image_is_refused(size: int | None, fixed: bool) -> None:
    network = _Flipped() if size is None else InParts(_Flipped(), size, fixed)
    seen = "head', which takes the penultimate features, more than once for an image"
    with pytest.raises(InputError, match=rf"{seen}|sees one row for each image: .* are: "):
        Site(_adapted(network))


@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_head_that_is_used_once_in_every_part_of_a_batch_is_not(size: int, fixed: bool) -> None:
    seed_torch(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 3))
    whole, parts = (Site(_adapted(module)) for module in (network, InParts(network, size, fixed)))
    assert torch.allclose(parts.read(_images(), None), whole.read(_images(), None), atol=1e-6)


class _Keywords(nn.Module):
    """Calls its last layer by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 10), nn.Linear(10, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(input=torch.tanh(self.first(images.flatten(1))))


def test_a_head_that_is_called_by_keyword_is_read_and_replaced() -> None:
    seed_torch(0)
    network = _Keywords()
    site = Site(_adapted(network))
    hidden = torch.tanh(network.first(_images().flatten(1)))
    assert torch.allclose(site.read(_images(), None)[:, 0], hidden, atol=1e-6)
    assert torch.allclose(site.logits_with(_images(), lambda rows: 2 * rows), network.head(2 * hidden), atol=1e-5)


@pytest.mark.parametrize("network", [nn.Sequential(nn.Flatten(), nn.Linear(64, 3))])
def test_a_network_without_a_hidden_layer_is_refused(network: nn.Module) -> None:
    with pytest.raises(InputError, match="has no hidden layer"):
        Site(_adapted(network))


class _Functional(nn.Module):
    """All before its last layer is a parameter of its own and functions."""

    def __init__(self) -> None:
        super().__init__()
        self.filter, self.head = nn.Parameter(torch.randn(5, 64)), nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(images.flatten(1) @ self.filter.T))


class _Unnamed(nn.Module):
    """No module of it is registered."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 3))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight


def test_a_body_of_functions_is_hidden_and_a_network_of_nothing_else_has_no_layers() -> None:
    seed_torch(0)
    network = _Functional()
    hidden = torch.relu(_images().flatten(1) @ network.filter.T)
    assert torch.allclose(Site(_adapted(network)).read(_images(), None)[:, 0], hidden, atol=1e-6)
    for layer in (None, "head"):
        with pytest.raises(InputError, match="are: none; put what it computes into modules that it calls once"):
            Site(_adapted(_Unnamed()), layer)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_layers_of_scripts_cannot_be_read() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 3))
    script = torch.jit.script(network.eval())
    with pytest.raises(InputError, match=r"a script of torch.jit, whose layers cannot be read: .* \(\.pt2\)"):
        Site(_adapted(script))
    for layer in (None, "1.1"):  # those around it can
        with pytest.raises(InputError, match=r"those( with activations| that have) are: 0\."):
            Site(_adapted(nn.Sequential(nn.Flatten(1), script)), layer)
    assert Site(_adapted(nn.Sequential(script, nn.ReLU(), nn.Linear(3, 3)))).dim == 3


def test_hooks_are_gone_when_a_function_fails() -> None:
    classifier = _own()
    site = Site(classifier)

    def fails(rows: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        site.logits_with(_images(), fails)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in classifier.modules())


class _Grid(nn.Module):
    """Channels last, as in a Swin transformer: a grid of 8 x 12 with 12 channels."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.patch, self.block, self.act, self.head = (
            nn.Conv2d(1, 12, 2, 2),
            nn.Linear(12, 12),
            nn.GELU(),
            nn.Linear(12, 3),
        )
        self.place = nn.Parameter(torch.randn(8, 12, 12) if fixed else torch.zeros(1, 1, 12))

    def forward(self, images: Tensor) -> Tensor:
        cells = self.patch(images).permute(0, 2, 3, 1) + self.place
        return self.head(self.act(self.block(cells)).mean(dim=(1, 2)))


class _Signal(nn.Module):
    """An image as a line, under a convolution of one dimension."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.length = 64 if fixed else -1
        self.line, self.act, self.head = nn.Conv1d(1, 6, 3, padding=1), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.act(self.line(images.reshape(len(images), 1, self.length))).mean(dim=2))


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("layer", ["block", "act"])
def test_channels_may_be_the_last_of_four_axes(layer: str, fixed: bool) -> None:
    seed_torch(0)
    network, images = _Grid(fixed), torch.rand(5, 1, 16, 24, generator=library_torch_rng(2))
    site = Site(AdaptedClassifier(network, (1, 16, 24), 3), layer)
    assert (site.positions, site.dim) == (96, 12)
    cells = network.block(network.patch(images).permute(0, 2, 3, 1) + network.place)
    wanted = cells if layer == "block" else network.act(cells)
    assert torch.allclose(site.read(images, None), wanted.flatten(1, 2), atol=1e-5)
    assert torch.allclose(site.logits_with(images, lambda rows: rows), network(images), atol=1e-5)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("layer", ["line", "act"])
def test_channels_may_be_the_second_of_three_axes(layer: str, fixed: bool) -> None:
    seed_torch(0)
    network, images = _Signal(fixed), _images()
    site = Site(_adapted(network), layer)
    assert (site.positions, site.dim) == (64, 6)
    line = network.line(images.reshape(5, 1, 64))
    wanted = line if layer == "line" else network.act(line)
    assert torch.allclose(site.read(images, None), wanted.transpose(1, 2), atol=1e-5)
    assert torch.allclose(site.logits_with(images, lambda rows: rows), network(images), atol=1e-5)


class _Square(nn.Module):
    """As many channels as rows and columns, for images of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lines, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 8), nn.Linear(512, 3)
        self.place = nn.Parameter(torch.randn(8, 8))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.lines(self.conv(images + self.place)).flatten(1))


def test_where_all_axes_are_alike_the_kind_of_layer_tells() -> None:
    seed_torch(0)
    network, images = _Square(), _images()
    maps = network.conv(images + network.place)
    assert torch.allclose(Site(_adapted(network), "conv").read(images, None), maps.flatten(2).mT, atol=1e-5)
    assert torch.allclose(
        Site(_adapted(network), "lines").read(images, None), network.lines(maps).flatten(1, 2), atol=1e-5
    )


class _Branches(nn.Module):
    """Two convolutions whose channels stand behind each other, for images of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.few, self.more, self.relu = (
            nn.Conv2d(SHAPE[0], 4, 3, padding=1),
            nn.Conv2d(SHAPE[0], 9, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(13, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == SHAPE
        return self.head(self.relu(torch.cat([self.few(images), self.more(images)], 1)).mean((2, 3)))


def test_maps_of_which_nothing_else_is_known_are_read_as_torch_has_them() -> None:
    network, images = _Branches(), _images()
    site = Site(_adapted(network), "relu")
    assert torch.allclose(
        site.read(images, None),
        torch.cat([network.few(images), network.more(images)], 1).relu().flatten(2).mT,
        atol=1e-5,
    )


def test_where_nothing_tells_which_axis_the_channels_are_the_layer_is_refused() -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.Unflatten(1, (8, 8)), nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 3)
    )
    with pytest.raises(InputError, match=r"Which axis of what '1' gives, \(8, 8\) for an image, .* cannot be told"):
        Site(_adapted(network), "1")
