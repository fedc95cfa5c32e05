"""Plainly trained networks that nobody prepared for inversion, inverted by ``variant="robust"`` and no more.

``python benchmarks/zoo.py train mnist --mirror DIR --models build/zoo`` (or ``--folder DIR_OR_ARCHIVES``) trains the
networks and the judges of a data set: cross-entropy, Adam, no augmentation but shifts and flips on colour images.
``python benchmarks/zoo.py invert mnist --models build/zoo --out build/zoo.json`` inverts each, and writes the tables
of all that the file has to ``build/zoo.md``. A row takes the place of an earlier one of the same network, variant and
seed.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import netinv
from netinv.classifiers import AdaptedClassifier, AdapterConfig
from netinv.core import write_text
from netinv.data import (
    Dataset,
    FetchConfig,
    FolderConfig,
    channel_statistics,
    fetch_dataset,
    read_image_folder,
    to_float,
)
from netinv.perturbations import augment


def _conv(into: int, out: int, size: int, norm: bool, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(into, out, size, padding=padding), *([nn.BatchNorm2d(out)] if norm else []), nn.ReLU()]


def lenet(channels: int, side: int) -> nn.Module:
    """LeNet-5 with ReLU and max pooling."""
    left = (side + 4 * (side == 28) - 12) // 4  # 28 x 28 is padded to 32 x 32, as in the original
    return nn.Sequential(
        *_conv(channels, 6, 5, False, 2 * (side == 28)),
        nn.MaxPool2d(2),
        *_conv(6, 16, 5, False),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * left**2, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def convolutions(channels: int, side: int, widths: tuple[int, ...], norm: bool) -> nn.Module:
    """Convolution, ReLU, max pooling, several times; two linear layers."""
    layers: list[nn.Module] = []
    for into, out in zip((channels, *widths), widths, strict=False):
        layers += [*_conv(into, out, 3, norm, 1), nn.MaxPool2d(2)]
        side //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * side**2, 128), nn.ReLU(), nn.Linear(128, 10))


def vgg(channels: int, side: int) -> nn.Module:
    """Three stages of two convolutions with batch norm."""
    layers: list[nn.Module] = []
    for into, out in ((channels, 16), (16, 32), (32, 64)):
        layers += [*_conv(into, out, 3, True, 1), *_conv(out, out, 3, True, 1), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def perceptron(channels: int, side: int) -> nn.Module:
    """Three linear layers with batch norm."""
    sizes = (channels * side**2, 512, 256)
    hidden = [
        layer
        for into, out in pairwise(sizes)
        for layer in (nn.Linear(into, out, bias=False), nn.BatchNorm1d(out), nn.ReLU())
    ]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, 10))


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters, padded by zeros."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.more = stride, out - into
        self.body = nn.Sequential(
            nn.Conv2d(into, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, into, H, W) to (N, out, H / stride, W / stride)."""
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(self.body(x) + shortcut)


def resnet(channels: int, side: int, blocks: int = 2, widths: tuple[int, ...] = (16, 32, 64)) -> nn.Module:
    """ResNet-14 of the CIFAR family."""
    layers: list[nn.Module] = [*_conv(channels, widths[0], 3, True, 1)]
    last = widths[0]
    for width in widths:
        for i in range(blocks):
            layers.append(Block(last, width, 2 if i == 0 and width != widths[0] else 1))
            last = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 10))


MOST = 20_000
"""Images of an epoch at most."""

Row = dict[str, Any]
Build = Callable[[int, int], nn.Module]
NETWORKS: dict[str, Build] = {
    "lenet5": lenet,
    "conv2": lambda channels, side: convolutions(channels, side, (32, 64), norm=False),
    "conv3-bn": lambda channels, side: convolutions(channels, side, (16, 32, 64), norm=True),
    "vgg-bn": vgg,
    "resnet14": resnet,
    "mlp-bn": perceptron,
}
JUDGES: dict[str, Build] = {
    "judge-wide": lambda channels, side: convolutions(channels, side, (24, 48, 96), norm=True),
    "judge-resnet": lambda channels, side: resnet(channels, side, 1, (16, 32, 64)),
    "judge-lenet": lambda channels, side: convolutions(channels, side, (20, 50), norm=False),
}
SELECTORS: dict[str, Build] = {"selector": lambda channels, side: resnet(channels, side, 1, (12, 24, 48))}
"""What settings were chosen by: no judge, and in no table."""


def train(build: Build, data: Any, epochs: int, seed: int, mean_std: tuple[Tensor, ...]) -> tuple[nn.Module, float]:
    """A network trained as beginners are taught, and its test accuracy."""
    torch.manual_seed(seed)
    channels, side = data.train.images.shape[1:3]
    network = build(channels, side)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    rng = torch.Generator().manual_seed(seed)
    centre, spread = (part.view(1, -1, 1, 1) for part in mean_std)
    flip = channels == 3
    for _ in range(epochs):
        network.train()
        for rows in torch.randperm(len(data.train.labels), generator=rng)[:MOST].split(128):
            if len(rows) < 2:
                continue
            images = to_float(data.train.images[rows])
            if flip:
                images = augment(images, 4, True, rng)
            optimizer.zero_grad()
            F.cross_entropy(network((images - centre) / spread), data.train.labels[rows]).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        parts = [
            network((to_float(images) - centre) / spread).argmax(1) == labels
            for images, labels in zip(data.test.images.split(500), data.test.labels.split(500), strict=True)
        ]
    return network, float(torch.cat(parts).float().mean())


def names(seeds: int) -> Iterator[tuple[str, Build, int]]:
    """All networks of a data set with their seeds: the zoo, the judges, the selector."""
    for name, build in (SELECTORS | JUDGES).items():
        yield name, build, 100
    for name, build in NETWORKS.items():
        for seed in range(seeds):
            yield f"{name}-{seed}", build, seed


def adapted(folder: Path, name: str) -> AdaptedClassifier:
    """A trained network behind its adapter."""
    if not (folder / f"{name}.safetensors").exists():
        command = f"python benchmarks/zoo.py train {folder.name} --models {folder.parent} --networks {name}"
        raise SystemExit(f"There is no network {name} in {folder}: train it first ({command}).")
    about = json.loads((folder / "about.json").read_text())
    shape = tuple(about["image_shape"])
    network = (NETWORKS | JUDGES | SELECTORS)[name.rsplit("-", 1)[0] if name[-1].isdigit() else name](*shape[:2])
    network.load_state_dict(load_file(folder / f"{name}.safetensors"))
    config = AdapterConfig(mean=tuple(about["mean"]), std=tuple(about["std"]))
    return AdaptedClassifier(network.eval(), shape, 10, config)


@torch.no_grad()
def read(judge: AdaptedClassifier, images: Tensor, labels: Tensor) -> list[float]:
    """Share of the images of each class that a judge reads as asked."""
    right = torch.cat([judge(part).argmax(dim=1) for part in images.split(250)]) == labels
    return [float(right[labels == label].float().mean()) for label in range(10)]


def invert_all(
    folder: Path, names: list[str], variant: Literal["standard", "robust"], seed: int, grids: Path | None
) -> Iterator[Row]:
    """Each network inverted by a word, and what it and the judges read in 1,000 images, 100 of each class."""
    for name in names:
        classifier = adapted(folder, name)
        begun = time.process_time()
        with warnings.catch_warnings(action="ignore"):  # missing classes are in the table
            inversion = netinv.invert(
                classifier, image_shape=classifier.image_shape, variant=variant, seed=seed, progress=False
            )
        seconds = time.process_time() - begun
        if grids:
            grids.mkdir(parents=True, exist_ok=True)
            inversion.grid().save(grids / f"{folder.name}-{name}-{seed}.png")
        images = torch.cat([inversion.sample(100, label=label, seed=9) for label in range(10)])
        labels = torch.arange(10).repeat_interleave(100)
        judges = {judge: read(adapted(folder, judge), images, labels) for judge in JUDGES}
        own = read(classifier, images, labels)
        key = dict(zip(KEY, (folder.name, name, variant, seed), strict=True))
        yield key | {"own": own, "judges": judges, "cpu_seconds": seconds}


KEY = ("data", "network", "variant", "seed")
"""What makes two rows the same."""
COLUMNS = (*KEY, "inversion", "worst class", "judges, mean", "each judge", "CPU seconds")


def added(rows: list[Row], row: Row) -> list[Row]:
    """Rows with one more, in the place of an earlier one that is the same."""
    same = [all(row[name] == other[name] for name in KEY) for other in rows]
    return [row if i else other for i, other in zip(same, rows, strict=True)] + [row] * (not any(same))


def judged(row: Row) -> list[float]:
    """What each judge reads of a network's images."""
    return [mean(classes) for classes in row["judges"].values()]


def line(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def told(row: Row) -> str:
    """A row of the table of networks."""
    shares = " / ".join(f"{value:.3f}" for value in judged(row))
    own = f"{mean(row['own']):.3f}", f"{min(row['own']):.2f}"
    return line(*(row[name] for name in KEY), *own, f"{mean(judged(row)):.3f}", shares, f"{row['cpu_seconds']:.0f}")


def tables(rows: list[Row]) -> str:
    """All rows as Markdown, and what they come to by data set and variant, over networks and seeds."""
    lines = [line(*COLUMNS), line(*["---"] * len(COLUMNS)), *map(told, rows), ""]
    columns = (
        "data",
        "variant",
        "networks",
        "inversion, worst network",
        "worst class",
        "judges, mean",
        "judges, worst network",
    )
    lines += [line(*columns), line(*["---"] * len(columns))]
    for data, variant in dict.fromkeys((row["data"], row["variant"]) for row in rows):
        some = [row for row in rows if (row["data"], row["variant"]) == (data, variant)]
        inversion, worst = min(mean(row["own"]) for row in some), min(min(row["own"]) for row in some)
        judges = [mean(judged(row)) for row in some]
        numbers = f"{inversion:.3f}", f"{worst:.2f}", f"{mean(judges):.3f}", f"{min(judges):.3f}"
        lines.append(line(data, variant, len({row["network"] for row in some}), *numbers))
    return "\n".join(lines) + "\n"


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Where a data set and the networks trained on it are."""
    parser.add_argument("dataset")
    parser.add_argument("--mirror", help="folder in torchvision's layout")
    parser.add_argument("--folder", help="image folder or archive, in place of a mirror")
    parser.add_argument("--image-shape", default="1,32,32", help="of the folder's images")
    parser.add_argument("--models", type=Path, required=True, help="folder of the trained networks")


def read_data(options: argparse.Namespace) -> Dataset:
    """The data set that was asked for."""
    if options.folder:
        channels, height, width = map(int, options.image_shape.split(","))
        return read_image_folder(FolderConfig(path=options.folder, image_shape=(channels, height, width)))
    return fetch_dataset(options.dataset, FetchConfig(mirror=options.mirror))


def main() -> None:
    """Train the networks of a data set, or invert them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["train", "invert"])
    add_data_options(parser)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1, help="networks of each kind")
    parser.add_argument("--networks", help="names of those to be trained or inverted, such as lenet5-0,vgg-bn-0 (all)")
    parser.add_argument("--variant", choices=["standard", "robust"], default="robust")
    parser.add_argument("--seed", type=int, default=0, help="of the inversion")
    parser.add_argument("--grids", type=Path, help="folder for a picture of what each inversion draws")
    parser.add_argument("--out", type=Path, help="JSON file of the rows, the tables beside it; earlier rows stay")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.models / options.dataset
    if options.task == "train":
        train_all(options, folder)
        return
    chosen = options.networks.split(",") if options.networks else [f"{name}-0" for name in NETWORKS]
    rows = json.loads(options.out.read_text()) if options.out and options.out.exists() else []
    for row in invert_all(folder, chosen, options.variant, options.seed, options.grids):
        rows = added(rows, row)
        print(told(row), flush=True)
        if options.out:
            write_text(options.out, json.dumps(rows, indent=1) + "\n")
            write_text(options.out.with_suffix(".md"), tables(rows))


def train_all(options: argparse.Namespace, folder: Path) -> None:
    """Train the networks of a data set and write them down."""
    data = read_data(options)
    folder.mkdir(parents=True, exist_ok=True)
    statistics = channel_statistics(data.train.images)
    path = folder / "about.json"
    earlier = json.loads(path.read_text())["accuracy"] if path.exists() else {}
    about: dict[str, Any] = {"mean": statistics[0], "std": statistics[1], "accuracy": earlier}
    about["image_shape"] = list(data.train.images.shape[1:])
    chosen = options.networks.split(",") if options.networks else None
    for name, build, seed in names(options.seeds):
        if chosen is not None and name not in chosen:
            continue
        begun = time.time()
        network, accuracy = train(build, data, options.epochs, seed, tuple(map(torch.tensor, statistics)))
        save_file(network.state_dict(), folder / f"{name}.safetensors")
        about["accuracy"][name] = accuracy
        path.write_text(json.dumps(about, indent=2) + "\n")
        print(f"{options.dataset} {name} {accuracy:.4f} {time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
