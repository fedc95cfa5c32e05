"""Images from a generator: drawn, and the generator left as it was."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from netinv.generators.network import ConditionedGenerator
from netinv.sampling import Pixels, draw_batches, grid

BATCH = 100
"""Images drawn at a time."""


def draw_images(
    generator: ConditionedGenerator,
    num: int,
    *,
    seed: int,
    sharpness: float | tuple[float, float],
    labels: Sequence[int] | None = None,
    dropout: bool = False,
    batch_size: int = BATCH,
) -> tuple[Tensor, Tensor]:
    """Draw images; the same seed gives the same draws in torch and in ONNX.

    The first images are the same whatever ``num`` is, with dropout and without, to rounding.

    Args:
        generator: Its mode, and torch's random state, are left as they were.
        num: N.
        seed: Of the draws, and of dropout.
        sharpness: The condition's, or its range, above 0 to 1,000.
        labels: Wanted label of each image, (N,); ``None`` leaves them to chance.
        dropout: Leave dropout on, as in training; batch norm keeps to its running statistics in either case.
        batch_size: Images drawn at a time. The masks of dropout depend on it.

    Returns:
        images (N, C, H, W) in [0, 1] and condition vectors (N, K), float32, on the CPU.
    """
    batches = draw_image_batches(
        generator, num, seed=seed, sharpness=sharpness, labels=labels, dropout=dropout, batch_size=batch_size
    )
    size = max(num, 0)  # the draws refuse less
    images = torch.empty(size, *generator.image_shape, dtype=torch.float32)
    vectors = torch.empty(size, generator.num_classes, dtype=torch.float32)
    places = zip(torch.split(images, batch_size), torch.split(vectors, batch_size), strict=True)
    for (image, vector), drawn in zip(places, batches, strict=True):
        image.copy_(drawn[0])
        vector.copy_(drawn[1])
    return images, vectors


@torch.no_grad()
def draw_image_batches(
    generator: ConditionedGenerator,
    num: int,
    *,
    seed: int,
    sharpness: float | tuple[float, float],
    labels: Sequence[int] | None = None,
    dropout: bool = False,
    batch_size: int = BATCH,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The images of :func:`draw_images`, a batch at a time, on the generator's device: memory does not grow with N.

    The generator's mode and torch's random state are given back at the end: close the iterator to stop earlier.
    """
    parameter = next(generator.parameters())
    device, dtype = parameter.device, parameter.dtype
    batches = draw_batches(
        num,
        latent_dim=generator.config.latent_dim,
        num_classes=generator.num_classes,
        seed=seed,
        sharpness=sharpness,
        labels=labels,
        batch_size=batch_size,
    )
    with _evaluated(generator, dropout), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if dropout:
            torch.manual_seed(seed)  # torch takes none from 2**64 on, and the draws do
        for z, p in ((torch.from_numpy(latent), torch.from_numpy(vector)) for latent, vector in batches):
            short = batch_size - len(z) if dropout else 0  # masks depend on the size of a batch, so that all are full
            drawn = generator(_filled(z, short).to(device, dtype), _filled(p, short).to(device, dtype))
            yield drawn[: len(z)].float(), p


def class_grid(
    generator: ConditionedGenerator,
    rows: int,
    columns: int,
    *,
    seed: int,
    sharpness: float | tuple[float, float],
    scale: int = 1,
) -> Pixels:
    """One picture with a row for each class; the generator is left as it was.

    Args:
        generator: Draws the images.
        rows: Classes at most, the first ones.
        columns: Images of each.
        seed: Of the draws.
        sharpness: The condition's, or its range.
        scale: Side of each of their pixels, in pixels of the picture.

    Returns:
        (H, W) or (H, W, 3), as :func:`netinv.sampling.grid`.
    """
    labels = [label for label in range(min(generator.num_classes, rows)) for _ in range(columns)]
    images, _ = draw_images(generator, len(labels), seed=seed, sharpness=sharpness, labels=labels)
    return grid([images.numpy()], len(labels), generator.image_shape, columns, scale)


def has_dropout(generator: ConditionedGenerator) -> bool:
    """Whether images differ with dropout left on."""
    return any(layer.p > 0 for layer in _dropout_layers(generator))


def _dropout_layers(network: nn.Module) -> list[nn.Dropout | nn.Dropout2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Dropout | nn.Dropout2d)]


def _filled(rows: Tensor, short: int) -> Tensor:
    """Rows with as many copies of the last one behind them as they are short."""
    return torch.cat([rows, rows[-1:].expand(short, -1)])


@contextmanager
def _evaluated(network: nn.Module, dropout: bool) -> Iterator[None]:
    """Evaluation mode inside the block, but for dropout if it is to stay on; after it every module's mode as it was."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    for layer in _dropout_layers(network):
        layer.train(dropout)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
