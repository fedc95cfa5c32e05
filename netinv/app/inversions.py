"""What an inversion is once it is done: a generator, its history, and how well it draws each class."""

import io
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from netinv.app.records import FILES, RECORD, Record, read_record
from netinv.classifiers import ClassifierSource, InvertibleClassifier
from netinv.core import (
    InputError,
    check_class_names,
    check_same_classes,
    class_number,
    listed,
    new_folder,
    read_numbers,
    save_csv,
    whole,
)
from netinv.evaluation import vendi_score
from netinv.generators import (
    ConditionedGenerator,
    class_grid,
    draw_image_batches,
    draw_images,
    field_side,
    load_generator,
    save_generator,
)
from netinv.inversion import InversionConfig, missing_classes, read_as_asked, variant_of

VENDI_CLASSES = 20
"""Classes that the diversity within a classifier is measured of at most."""
GRID_COLUMNS, GRID_ROWS, GRID_SIDE = 8, 10, 48
"""Images of each class and classes in the grid that a notebook shows, and pixels up to which tiny ones are enlarged."""

History = list[dict[str, float]]


class MissingClasses(UserWarning):
    """Some class of an inversion cannot be drawn."""


class DoubtfulClassifier(UserWarning):
    """A classifier can be inverted as it is, but what comes of that may mean nothing."""


@dataclass(frozen=True, repr=False)
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
    class_accuracy: tuple[float, ...] = ()
    """The same of each of the K classes, on the more images the less clear it is, and so a little too high near 0.9;
    empty where it was not measured."""
    source: ClassifierSource | None = None
    """Where its classifier came from; ``None`` where that was an object of the caller's."""
    seed: int | None = None
    """The seed of the attempt that counts; ``None`` where it is not known."""
    classifier_sha256: str | None = None
    """Digest of its classifier's weights; ``None`` where it is not known."""

    def __repr__(self) -> str:
        """In a line: the records of its training alone would fill pages."""
        missing = f", missing {listed(self.missing)}" if self.missing else ""
        return (
            f"Inversion({variant_of(self.config)}, {len(self.classes)} classes, accuracy {self.accuracy:.4f}{missing})"
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the classes that it cannot draw: fewer than 9 in 10 of their images are read as asked."""
        return missing_classes(self.classes, self.class_accuracy) if self.class_accuracy else ()

    def sample(
        self,
        num: int = 16,
        *,
        label: int | str | None = None,
        seed: int = 0,
        sharpness: float | tuple[float, float] | None = None,
    ) -> Tensor:
        """Draw images, the same for the same seed, as does the exported generator.

        Args:
            num: N, how many.
            label: Wanted class, by number or name; ``None`` leaves it to chance.
            seed: Fixes every draw.
            sharpness: The condition's, or its range, above 0 to 1,000; ``None`` is the one of the training.

        Returns:
            (N, C, H, W) in [0, 1], float32, on the CPU.

        Raises:
            InputError: An argument is out of its range; says what is possible.
        """
        num, seed = whole(num, "The number of images", least=0), whole(seed, "The seed", least=0)
        labels = None if label is None else [class_number(label, self.classes)] * num
        own = self.config.sharpness if sharpness is None else sharpness
        images, _ = draw_images(self.generator, num, seed=seed, sharpness=own, labels=labels)
        return images

    def grid(self, seed: int = 0) -> Image.Image:
        """One picture with a row for each class, of the first classes if there are many."""
        seed, scale = whole(seed, "The seed", least=0), max(1, GRID_SIDE // max(self.generator.image_shape[1:]))
        pixels = class_grid(
            self.generator, GRID_ROWS, GRID_COLUMNS, seed=seed, sharpness=self.config.sharpness, scale=scale
        )
        return Image.fromarray(pixels)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        picture = io.BytesIO()
        self.grid().save(picture, format="PNG")
        return picture.getvalue()

    def save(self, folder: str | Path) -> None:
        """Write weights, settings, history and a grid of images into a folder, whole or not at all.

        An earlier inversion in that folder is replaced.

        Raises:
            InputError: The folder holds something else, were it beside an inversion, or cannot be written.
        """
        with new_folder(Path(folder), replaces=FILES) as partial:
            save_generator(partial, self.generator)
            record = Record(
                classes=self.classes,
                accuracy=self.accuracy,
                class_accuracy=self.class_accuracy,
                config=self.config,
                seed=self.seed,
                classifier=self.source,
                classifier_sha256=self.classifier_sha256,
            )
            (partial / RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
            save_csv(partial / "history.csv", self.history)
            self.grid().save(partial / "grid.png")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: The folder does not hold an inversion, or holds a damaged one.
        """
        path = Path(folder) / RECORD
        record = read_record(Path(folder))
        history = read_numbers(Path(folder) / "history.csv", "invert again")
        generator = load_generator(Path(folder))
        if generator.num_classes != len(record.classes):
            raise InputError(
                f"{folder} does not hold one inversion: {path.name} names {len(record.classes)} classes, but the "
                f"generator has {generator.num_classes}."
            )
        if record.class_accuracy and len(record.class_accuracy) != len(record.classes):
            raise InputError(f"{path} names {len(record.classes)} classes and {len(record.class_accuracy)} accuracies.")
        return cls(
            generator=generator,
            config=record.config,
            history=history,
            classes=record.classes,
            accuracy=record.accuracy,
            class_accuracy=record.class_accuracy,
            source=record.classifier,
            seed=record.seed,
            classifier_sha256=record.classifier_sha256,
        )

    def to_onnx(self, path: str | Path) -> None:
        """Write the generator as one ONNX file, checked against torch; ``netinv sample`` draws from it without torch.

        Raises:
            InputError: The file cannot be written, or does not end in ``.onnx``.
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
            latent_dim=(latent_dim := self.generator.config.latent_dim),
            field_side=field_side(latent_dim, *self.generator.image_shape[1:]) if self.config.latent_field else 0,
            sharpness=self.config.sharpness,
        )
        export_generator(Path(path), self.generator, metadata)


def as_inversions(given: Any) -> list[Inversion]:
    """One inversion, or several, as a list of one at least.

    Raises:
        InputError: There is none, or something else among them.
    """
    inversions = list(given) if isinstance(given, (list, tuple)) else [given]
    if not inversions:
        raise InputError("There is no inversion to draw images from: give one at least.")
    for inversion in inversions:
        if not isinstance(inversion, Inversion):
            raise InputError(
                f"The inversion is a {type(inversion).__name__}: give what netinv.invert returns, or "
                "netinv.Inversion.load reads, or a list of such."
            )
    return inversions


def class_names(inversions: Sequence[Inversion], given: Sequence[str] | None) -> Sequence[str]:
    """Names of the K classes, in label order: those that are given, or else the first inversion's.

    Raises:
        InputError: Two of all these differ, or what is given is no names; says what is wrong.
    """
    classes = inversions[0].classes if given is None else given
    check_class_names(classes)
    made = {f"inversion {i}": inversion.classes for i, inversion in enumerate(inversions)}
    check_same_classes(made | {"the argument classes": classes})
    return classes


def expect_alike(inversions: Mapping[str, Inversion]) -> None:
    """Refuse to measure as one what was made in different ways.

    Args:
        inversions: By what each is called in the error.

    Raises:
        InputError: Two differ in variant, sharpness or architecture; names them.
    """
    kinds = {
        name: (variant_of(made.config), made.config.sharpness, made.generator.config)
        for name, made in inversions.items()
    }
    first = next(iter(kinds))
    for name, kind in kinds.items():
        for what, ours, theirs in zip(("variant", "sharpness", "generator"), kinds[first], kind, strict=True):
            if ours != theirs:
                raise InputError(
                    f"{first} and {name} differ in their {what}: evaluate each by itself, and `netinv report` puts "
                    "them side by side."
                )


def inversion_accuracy(inversion: Inversion, classifier: InvertibleClassifier, num: int) -> float:
    """Share of so many fresh images that a classifier reads as the class they were drawn for."""
    return read_as_asked(inversion.generator, classifier, inversion.config, num, seed=1).sum().item() / num


@torch.no_grad()
def classifier_vendi(inversion: Inversion, classifier: InvertibleClassifier) -> float:
    """Diversity within the inverted classifier: Vendi score of its own features of 50 images, mean over classes.

    It needs no data, but those features are what the training spreads: never the only evidence of diversity. Of more
    than 20 classes, it looks at every second one, or third, and so on.

    Args:
        inversion: Draws the images.
        classifier: The one that was inverted.
    """
    classes, found = range(len(inversion.classes)), []
    classes = classes[:: -(-len(classes) // VENDI_CLASSES)]
    labels = [*classes] * 50  # in turn, since the features of some networks depend on the rest of the batch
    sharpness = inversion.config.sharpness
    drawn = draw_image_batches(
        inversion.generator, len(labels), seed=2, sharpness=sharpness, labels=labels, batch_size=50
    )
    with closing(drawn) as batches:
        for images, _ in batches:
            _, features = classifier(images.to(classifier.device), return_features=True)
            found.append(features.cpu())
    by_class = torch.cat(found).view(50, len(classes), -1).unbind(dim=1)
    return float(torch.stack([vendi_score(rows[(rows != 0).any(dim=1)]) for rows in by_class]).mean())
