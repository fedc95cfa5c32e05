"""Inversion in one call, for notebooks, scripts and the command: a network in, a trained generator out."""

import csv
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from netinv.classifiers import (
    DEFAULT,
    AdapterConfig,
    InvertibleClassifier,
    adapt,
    behaviour,
    check_statistics,
    has_pixel_statistics,
)
from netinv.core import Config, InputError, Variant, new_folder, save_csv
from netinv.evaluation import vendi_score
from netinv.generators import ConditionedGenerator, GeneratorConfig, draw_images, load_generator, save_generator
from netinv.inversion import InversionConfig, variant_config, variant_of
from netinv.inversion import invert as inversion_steps
from netinv.sampling import grid

JUDGED = 1000
"""Fresh images on which a finished generator's accuracy is measured."""
BATCH = 100
"""Images classified at a time."""
GRID_COLUMNS, GRID_ROWS, GRID_SIDE = 8, 10, 48
"""Images of each class and classes in the grid that a notebook shows, and pixels up to which tiny ones are enlarged."""
RECORD = "inversion.json"
"""File that marks the folder of an inversion, and says how it came about."""

History = list[dict[str, float]]


class _Record(Config):
    """What ``inversion.json`` holds."""

    classes: tuple[str, ...]
    accuracy: float
    config: InversionConfig


@dataclass(frozen=True)
class Inversion:
    """A trained generator, and how it came about. In a notebook it shows as a grid with a row for each class."""

    generator: ConditionedGenerator
    config: InversionConfig
    """How it was trained; the architecture is ``generator.config``."""
    history: History
    """Records of the training, each with step, samples, accuracy on the batch, loss and its terms."""
    classes: tuple[str, ...]
    """Names of the K classes, in label order."""
    accuracy: float
    """Inversion accuracy, the share of fresh images (without dropout) that the classifier reads as what was asked."""

    def sample(
        self,
        num: int = 16,
        *,
        label: int | str | None = None,
        seed: int = 0,
        sharpness: tuple[float, float] | None = None,
    ) -> Tensor:
        """Draw images, the same for the same seed, as does the exported generator.

        Args:
            num: N, how many.
            label: Wanted class, by number or name; ``None`` leaves it to chance.
            seed: Fixes every draw.
            sharpness: Range of the condition's sharpness; ``None`` is the one of the training.

        Returns:
            (N, C, H, W) in [0, 1], float32, on the CPU.
        """
        labels = None if label is None else [self._label(label)] * num
        images, _ = self._draw(num, seed, labels, sharpness)
        return images

    def _label(self, label: int | str) -> int:
        if isinstance(label, str):
            if label not in self.classes:
                raise InputError(f"There is no class {label!r}; there are: {', '.join(self.classes[:20])}.")
            return self.classes.index(label)
        if not 0 <= label < len(self.classes):
            raise InputError(f"There is no class {label}; classes go from 0 to {len(self.classes) - 1}.")
        return label

    def _draw(
        self, num: int, seed: int, labels: list[int] | None, sharpness: tuple[float, float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) and their labels (N,), on the CPU."""
        images, vector = draw_images(
            self.generator, num, seed=seed, sharpness=sharpness or self.config.sharpness, labels=labels
        )
        return images, vector.argmax(dim=1)

    def grid(self, seed: int = 0) -> Image.Image:
        """One picture with a row for each class, of the first classes if there are many."""
        classes = min(len(self.classes), GRID_ROWS)
        labels = [label for label in range(classes) for _ in range(GRID_COLUMNS)]
        images, _ = self._draw(len(labels), seed, labels)
        channels, height, width = images.shape[1:]
        scale = max(1, GRID_SIDE // max(height, width))
        images = images.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
        pixels = grid([images.numpy()], len(labels), (channels, scale * height, scale * width), GRID_COLUMNS)
        return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        picture = io.BytesIO()
        self.grid().save(picture, format="PNG")
        return picture.getvalue()

    def save(self, folder: str | Path) -> None:
        """Write weights, settings and history into a folder, whole or not at all.

        An earlier inversion in that folder is replaced.

        Raises:
            InputError: The folder holds something else, or cannot be written.
        """
        with new_folder(Path(folder), replaces=RECORD) as partial:
            save_generator(partial, self.generator)
            record = _Record(classes=self.classes, accuracy=self.accuracy, config=self.config)
            (partial / RECORD).write_text(record.model_dump_json(indent=2) + "\n")
            save_csv(partial / "history.csv", self.history)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: The folder does not hold an inversion, or holds a damaged one.
        """
        path = Path(folder) / RECORD
        try:
            record = _Record.parse(json.loads(path.read_text()), where=str(path))
            with (Path(folder) / "history.csv").open(newline="") as file:
                history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        except (OSError, json.JSONDecodeError, TypeError) as error:
            raise InputError(f"{folder} does not hold a readable inversion ({error}).") from None
        generator = load_generator(Path(folder))
        if generator.num_classes != len(record.classes):
            raise InputError(
                f"{folder} does not hold one inversion: {path.name} names {len(record.classes)} classes, but the "
                f"generator has {generator.num_classes}."
            )
        return cls(generator, record.config, history, record.classes, record.accuracy)

    def to_onnx(self, path: str | Path) -> None:
        """Write the generator as one ONNX file, checked against torch; ``netinv sample`` draws from it without torch.

        Raises:
            InputError: The file cannot be written.
        """
        from netinv.export import export_generator, versions
        from netinv.sampling import Metadata

        metadata = Metadata(
            kind="generator",
            dataset="",
            variant=variant_of(self.config),
            classes=self.classes,
            image_shape=self.generator.image_shape,
            run_id="",
            licence="",
            versions=versions(),
            latent_dim=self.generator.config.latent_dim,
            sharpness=self.config.sharpness,
        )
        export_generator(Path(path), self.generator, metadata)


@torch.inference_mode(mode=False)  # whatever the caller's: gradients are needed
def invert(
    classifier: nn.Module,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    adapter: AdapterConfig = DEFAULT,
    variant: Variant | None = None,
    config: InversionConfig | None = None,
    generator: GeneratorConfig | None = None,
    classes: tuple[str, ...] | None = None,
    seed: int = 0,
    progress: bool = True,
    on_record: Callable[[dict[str, float]], None] | None = None,
) -> Inversion:
    """Train a generator that draws images of whatever class of a classifier you ask for.

    The classifier is left as it was found: mode, gradients, hooks, device; so is torch's random state.

    Args:
        classifier: Any network that maps a batch of images to one score for each class. One adapted already is taken
            as it is; what the next three say must be so.
        image_shape: (C, H, W) of the images to be generated.
        num_classes: K; ``None`` takes the network's word for it.
        adapter: What the classifier takes and gives, where that is not images in [0, 1] and one tensor of scores.
        variant: ``standard`` (images that this classifier reads as asked) or ``robust`` (which others read, too).
        config: The loss and its optimisation, in place of a variant's; ``None`` is that of ``standard``.
        generator: The generator's architecture; ``None`` is the defaults.
        classes: Names of the classes; ``None`` numbers them.
        seed: Fixes weights and draws.
        progress: Show a bar.
        on_record: Called with each record of the history as it comes.

    Raises:
        InputError: The classifier cannot be inverted as it is; says why.
        FloatingPointError: The loss is not finite; names the step.

    Example:
        >>> inversion = invert(classifier, image_shape=(1, 28, 28), num_classes=10)  # doctest: +SKIP
        >>> inversion.sample(label=3, num=16).shape  # doctest: +SKIP
        torch.Size([16, 1, 28, 28])
    """
    generator = generator or GeneratorConfig()
    adapted = adapt(classifier, image_shape, num_classes, adapter)
    if config is None:
        config, left_out = settings_of(variant or "standard", adapted)
        if left_out:
            warnings.warn(left_out, stacklevel=2)
    elif variant is not None:
        raise InputError("Both a variant and a config were given: change variant_config(name) and give that alone.")
    if errors := [finding.message for finding in behaviour(adapted) if finding.severity == "error"]:
        raise InputError(" ".join(errors))
    check_statistics(config.pixel_statistics, config.layer_statistics, adapted)
    names = classes or tuple(str(label) for label in range(adapted.num_classes))
    if len(names) != adapted.num_classes:
        raise InputError(
            f"{len(names)} class names were given, but the classifier knows {adapted.num_classes} classes."
        )
    history: History = []
    cuda = [adapted.device] if adapted.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        tqdm(total=config.steps, desc="invert", unit="step", disable=None if progress else True) as bar,
    ):
        torch.manual_seed(seed)
        network = ConditionedGenerator(generator, adapted.num_classes, adapted.image_shape).to(adapted.device)
        for record in inversion_steps(network, adapted, config, seed):
            history.append(record)
            bar.set_postfix_str(f"accuracy {record['accuracy']:.3f}", refresh=False)
            bar.update(int(record["step"]) - bar.n)
            if on_record is not None:
                on_record(record)
    network.eval()
    untested = Inversion(network, config, history, names, accuracy=0.0)
    return Inversion(network, config, history, names, inversion_accuracy(untested, adapted))


def settings_of(variant: str, classifier: InvertibleClassifier) -> tuple[InversionConfig, str]:
    """The settings of a variant for a classifier, and a sentence on what of them it does not allow; empty if nothing.

    Raises:
        InputError: There is no such variant.
    """
    config = variant_config(variant)
    if not config.pixel_statistics or has_pixel_statistics(classifier):
        return config, ""
    return config.model_copy(update={"pixel_statistics": 0.0}), (
        f"The variant {variant} compares the images' mean and deviation with those of the training images, which are "
        "not known: this is left out. Give mean and std to the adapter to have it."
    )


@torch.no_grad()
def inversion_accuracy(inversion: Inversion, classifier: InvertibleClassifier, num: int = JUDGED) -> float:
    """Share of fresh images that a classifier reads as the class they were drawn for."""
    images, labels = inversion._draw(num, seed=1, labels=None)
    pairs = zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True)
    right = [classifier(part.to(classifier.device)).argmax(dim=1).cpu() == wanted for part, wanted in pairs]
    return float(torch.cat(right).float().mean())


@torch.no_grad()
def classifier_vendi(inversion: Inversion, classifier: InvertibleClassifier, num: int = 50) -> float:
    """Diversity within the inverted classifier: Vendi score of its own features, mean over classes.

    It needs no data, but those features are what the training spreads: never the only evidence of diversity.

    Args:
        inversion: Draws the images.
        classifier: The one that was inverted.
        num: Images of each class.
    """
    scores = []
    for label in range(len(inversion.classes)):
        images = inversion.sample(num, label=label, seed=2)
        _, features = classifier(images.to(classifier.device), return_features=True)
        scores.append(vendi_score(features[(features != 0).any(dim=1)].cpu()))
    return float(torch.stack(scores).mean())
