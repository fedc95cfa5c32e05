"""Every setting of a classifier and of its training reaches what it is for."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    ResidualClassifierConfig,
    build_classifier,
    train_classifier,
)
from netinv.data import LabelledImages

SHAPE = (1, 8, 8)


class Probe(Classifier):
    """One linear layer that starts at 0, and remembers what it was shown, in which precision, and its updates."""

    def __init__(self) -> None:
        super().__init__(3, SHAPE, 64, (0.0,), (1.0,))
        self.body = nn.Flatten()
        nn.init.zeros_(self.head.weight), nn.init.zeros_(self.head.bias)
        self.shown: list[Tensor] = []
        self.precisions: list[torch.dtype] = []

    def forward(self, images: Tensor, return_features: bool = False) -> Any:
        logits = super().forward(images)
        if self.head.weight.requires_grad:  # an attack looks at a frozen network
            self.shown.append(images.detach().clone())
            self.precisions.append(logits.dtype)
        return logits


PLAIN = ClassifierTrainingConfig(epochs=1, batch_size=500, precision="float32")


def trained(images: Tensor, labels: Tensor | None = None, probe: Probe | None = None, **changes: Any) -> Probe:
    """A probe after its training on images in [0, 1]."""
    probe = probe or Probe()
    labels = torch.arange(len(images)) % 3 if labels is None else labels
    data = LabelledImages(images.mul(255).round().byte(), labels)
    config = PLAIN.model_copy(update=changes)
    for _ in train_classifier(probe, data, config, seed=0):
        pass
    return probe


def dots(num: int = 500) -> Tensor:
    """A white pixel, right of the middle, in a black image."""
    images = torch.zeros(num, *SHAPE)
    images[:, :, 4, 5] = 1
    return images


def places(shown: Tensor) -> set[tuple[int, int]]:
    return {divmod(int(place), 8) for place in shown.flatten(1).argmax(1)}


# ClassifierTrainingConfig


@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_are_rounds_through_all_images(epochs: int) -> None:
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, *SHAPE) / 255
    shown = trained(images, epochs=epochs, batch_size=10).shown
    assert len(shown) == epochs
    for batch in shown:
        assert sorted(batch[:, 0, 0, 0].mul(255).round().int().tolist()) == list(range(10))


@pytest.mark.parametrize("size", [4, 6])
def test_batch_size_is_that_of_the_batches(size: int) -> None:
    assert [len(batch) for batch in trained(dots(10), batch_size=size).shown] == ([4, 4, 2] if size == 4 else [6, 4])


@pytest.mark.parametrize("lr", [1e-3, 2e-2])
def test_lr_is_the_peak_of_one_cycle(monkeypatch: pytest.MonkeyPatch, lr: float) -> None:
    rates: list[float] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: rates.append(self.param_groups[0]["lr"]))
    trained(dots(20), lr=lr, batch_size=2, epochs=2)
    assert rates[0] == pytest.approx(lr / 25)
    assert rates[5] == max(rates) == pytest.approx(lr)
    assert rates[-1] == pytest.approx(lr / 25e4)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_weight_decay_shrinks_what_has_no_gradient(decay: float) -> None:
    probe = Probe()
    nn.init.ones_(probe.head.weight)
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.Optimizer, closure: None = None) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(torch.optim.AdamW, "step", noted)
        trained(torch.zeros(30, *SHAPE), probe=probe, batch_size=3, lr=0.1, weight_decay=decay)
    expected = torch.tensor([1 - rate * decay for rate in rates]).prod()  # black images give weights no gradient
    torch.testing.assert_close(probe.head.weight, expected.expand_as(probe.head.weight))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_shift_moves_the_images(shift: int) -> None:
    shown = trained(dots(), shift=shift).shown[0]
    assert places(shown) == {(4 + i, 5 + j) for i in range(-shift, shift + 1) for j in range(-shift, shift + 1)}


@pytest.mark.parametrize("flip", [False, True])
def test_flip_mirrors_half_of_the_images(flip: bool) -> None:
    shown = trained(dots(), flip=flip).shown[0]
    assert places(shown) == ({(4, 5), (4, 2)} if flip else {(4, 5)})
    assert float(shown[:, 0, 4, 2].mean()) == pytest.approx(0.5 if flip else 0, abs=0.1)


def test_distortion_stretches_the_images() -> None:
    dark = {d: 1 - float(trained(torch.ones(500, *SHAPE), distortion=d).shown[0].mean()) for d in (0.0, 0.05, 0.5)}
    assert dark[0.0] == 0
    assert 0 < dark[0.05] < 0.05
    assert dark[0.5] > 5 * dark[0.05]


@pytest.mark.parametrize("mixup", [0.0, 0.1, 50.0])
def test_mixup_blends_the_images_of_a_batch(mixup: float) -> None:
    # One share for each batch, of Beta(mixup, mixup): mostly near 0 or 1 for small values, near 1/2 for large ones.
    images = torch.eye(64).view(64, *SHAPE)
    shares = []
    for batch in trained(images, mixup=mixup, epochs=30, batch_size=64).shown:
        assert torch.allclose(batch.flatten(1).sum(1), torch.ones(64), atol=1e-5)
        shares.append(float(batch.flatten(1).amax(1).mean()))
    if mixup == 0:
        assert shares == [1.0] * 30
    elif mixup == 0.1:
        assert max(shares) > 0.99
        assert sorted(shares)[10] > 0.9
    else:
        assert max(shares) < 0.75


@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_mixup_blends_the_labels_alike(monkeypatch: pytest.MonkeyPatch, mixup: float) -> None:
    targets: list[Tensor] = []
    loss = torch.nn.functional.cross_entropy

    def noted(logits: Tensor, target: Tensor, **rest: Any) -> Tensor:
        targets.append(target)
        return loss(logits, target, **rest)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", noted)
    images = torch.eye(3).repeat_interleave(21, dim=1)[:, :63]  # of class k a third of the row is white
    images = torch.nn.functional.pad(images, (0, 1)).view(3, *SHAPE)
    (batch,) = trained(images, mixup=mixup, batch_size=3).shown
    thirds = batch.flatten(1)[:, :63].view(3, 3, 21).mean(2)
    (target,) = targets
    expected = thirds if mixup else thirds.argmax(1)
    torch.testing.assert_close(target, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("epsilon", [0.0, 0.03, 0.2])
def test_epsilon_is_how_far_a_pixel_moves(epsilon: float) -> None:
    probe = Probe()
    nn.init.normal_(probe.head.weight)
    shown = trained(torch.full((100, *SHAPE), 0.4), probe=probe, epsilon=epsilon).shown[0]
    moved = (shown - 0.4).abs()
    assert float(moved.max()) == pytest.approx(epsilon, abs=1e-6)
    if epsilon:
        assert float((moved > 0.99 * epsilon).float().mean()) > 0.4  # the step is as long as the bound
        labels = torch.arange(100) % 3
        raised = torch.nn.functional.cross_entropy(probe(shown), labels)
        assert raised > torch.nn.functional.cross_entropy(probe(torch.full((100, *SHAPE), 0.4)), labels)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_is_what_the_layers_compute_in(precision: str, dtype: torch.dtype) -> None:
    assert trained(dots(10), precision=precision).precisions == [dtype]


# ConvClassifierConfig and ResidualClassifierConfig


def conv(**changes: Any) -> nn.Module:
    return build_classifier(ConvClassifierConfig(**changes), 3, (2, 9, 12), (0.5, 0.5), (0.25, 0.25))


def layers(network: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [layer for layer in network.modules() if isinstance(layer, kind)]


def test_kind_chooses_the_architecture() -> None:
    configs = (ConvClassifierConfig(), ResidualClassifierConfig())
    assert [config.kind for config in configs] == ["conv", "residual"]
    names = [type(build_classifier(config, 3, SHAPE, (0.5,), (0.5,))).__name__ for config in configs]
    assert names == ["ConvClassifier", "ResidualClassifier"]


@pytest.mark.parametrize("channels", [(4,), (5, 6, 7)])
def test_channels_are_those_of_the_stages(channels: tuple[int, ...]) -> None:
    network = conv(channels=channels)
    assert [layer.out_channels for layer in layers(network, nn.Conv2d)] == list(channels)
    assert len(layers(network, nn.MaxPool2d)) == len(channels)


@pytest.mark.parametrize("num", [1, 3])
def test_convs_per_stage_are_as_many(num: int) -> None:
    network = conv(channels=(4, 8), convs_per_stage=num)
    assert [layer.out_channels for layer in layers(network, nn.Conv2d)] == [4] * num + [8] * num
    assert len(layers(network, nn.MaxPool2d)) == 2


@pytest.mark.parametrize("dim", [5, 9])
def test_feature_dim_is_that_of_the_features(dim: int) -> None:
    network = conv(feature_dim=dim)
    logits, features = network(torch.rand(2, 2, 9, 12), return_features=True)
    assert (logits.shape, features.shape) == ((2, 3), (2, dim))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_batch_norm_follows_each_convolution(batch_norm: bool) -> None:
    network = conv(channels=(4, 8), convs_per_stage=2, batch_norm=batch_norm)
    assert len(layers(network, nn.BatchNorm2d)) == (4 if batch_norm else 0)
    assert all((layer.bias is None) == batch_norm for layer in layers(network, nn.Conv2d))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_dropout_follows_each_stage_and_the_features(dropout: float) -> None:
    assert [layer.p for layer in layers(conv(channels=(4, 8), dropout=dropout), nn.Dropout)] == [dropout] * 3


@pytest.mark.parametrize("channels", [(4,), (4, 4, 6)])
def test_residual_channels_are_those_of_the_stages(channels: tuple[int, ...]) -> None:
    network = build_classifier(ResidualClassifierConfig(channels=channels), 3, (1, 8, 8), (0.5,), (0.5,))
    main = [layer.out_channels for layer in layers(network, nn.Conv2d) if layer.kernel_size == (3, 3)]
    assert main == [channels[0], *(c for c in channels for _ in range(2))]
    _, features = network(torch.rand(2, 1, 8, 8), return_features=True)
    assert features.shape == (2, channels[-1])
    assert sum(layer.stride == (2, 2) for layer in layers(network, nn.Conv2d)) == 2 * (len(channels) - 1) - sum(
        layer.kernel_size == (1, 1) and layer.stride == (1, 1) for layer in layers(network, nn.Conv2d)
    )
