"""Images from exported generators, with numpy and onnxruntime alone: neither torch nor the pipeline is needed.

generator = OnnxGenerator("generator-0.onnx")
samples = generator.sample(64, labels=3, seed=0)
OnnxClassifier("classifier.onnx").accuracy(samples.images, samples.labels)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netinv.core import InputError, check_same_classes, class_number, whole
from netinv.sampling.draws import BATCH_SIZE, Floats, Integers, draw_batches, sharpness_range
from netinv.sampling.sessions import open_session, run_session

Field = Mapping[tuple[int, int], float]
Label = int | str  # of a class, by its number or its name
Mixture = Mapping[int, float] | Mapping[str, float]

MAX_HELD = 1_000
"""Of a cell of the field, up or down. Drawn ones are hardly beyond 4."""


class Samples(NamedTuple):
    """Images and what they were drawn from."""

    images: Floats
    """(N, C, H, W), in [0, 1]."""
    labels: Integers
    """Wanted label, the arg-max of the condition, (N,)."""
    latent: Floats
    """(N, Z)."""
    condition: Floats
    """(N, K)."""


class OnnxGenerator:
    """A generator, or an ensemble of them, from one exported file.

    The same file, seed and arguments give the same pixels on one machine; across machines and onnxruntime versions
    they agree within 1e-5.

    Args:
        path: The ONNX file.
        num_threads: Threads for each operator; ``None`` is one for each core.

    Raises:
        InputError: The file cannot be opened, or is not a generator of this project; says what it lacks.
    """

    def __init__(self, path: str | Path, num_threads: int | None = None) -> None:
        self.path = Path(path)
        self.metadata, self._session = open_session(self.path, "generator", num_threads)
        self.num_classes = len(self.metadata.classes)

    def __call__(
        self, latent: Floats, condition: Floats, *, noise: Floats | None = None, generator: Integers | None = None
    ) -> Floats:
        """Images (N, C, H, W) in [0, 1] from explicit inputs.

        Args:
            latent: (N, Z).
            condition: Wanted class probabilities, (N, K).
            noise: Uniform in [0, 1), (N, U); the stochastic form needs it, and no other takes it.
            generator: Which generator draws each image, (N,); an ensemble needs it, and nothing else takes it.

        Raises:
            InputError: The inputs are not those of this file, or not of the same N; says which those are.
        """
        feeds = {"latent": latent, "condition": condition, "noise": noise, "generator": generator}
        return run_session(self._session, self.metadata, {key: rows for key, rows in feeds.items() if rows is not None})

    def sample(
        self,
        num: int = 16,
        *,
        seed: int = 0,
        labels: Label | Sequence[Label] | None = None,
        mixture: Mixture | None = None,
        sharpness: float | tuple[float, float] | None = None,
        field: Field | None = None,
        generator: int | None = None,
    ) -> Samples:
        """Draw images.

        Args:
            num: N. The first n images are the same whatever N is.
            seed: Fixes every draw; not negative.
            labels: Wanted label of all images, or of each, by number or name; ``None`` leaves it to chance.
            mixture: Wanted probabilities by label, the same for all images, in place of drawn ones; sums to 1.
            sharpness: s of the condition softmax(s * e), or its range, above 0 to 1,000; ``None`` is the file's own.
                A mixture has none.
            field: Cells of the latent field that are the same in all images, as {(row, column): value}, counted from
                0 at the top left: above 0 an image is brighter there than others, below 0 darker. Drawn ones are
                standard normal; values go from -1,000 to 1,000.
            generator: Which one of an ensemble draws; ``None`` lets them take turns.

        Raises:
            InputError: An argument is out of its range; says what is possible.
        """
        batches = list(
            self.stream(
                num,
                seed=seed,
                labels=labels,
                mixture=mixture,
                sharpness=sharpness,
                field=field,
                generator=generator,
            )
        )
        return Samples(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))

    def stream(
        self,
        num: int,
        *,
        seed: int = 0,
        labels: Label | Sequence[Label] | None = None,
        mixture: Mixture | None = None,
        sharpness: float | tuple[float, float] | None = None,
        field: Field | None = None,
        generator: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[Samples]:
        """The images of :meth:`sample`, a batch at a time, so that memory does not grow with ``num``."""
        num, seed = whole(num, "The number of images", least=0), whole(seed, "The seed", least=0)
        if labels is not None and mixture is not None:
            raise InputError("Both labels and a mixture were given: give one of them.")
        if sharpness is not None and mixture is not None:
            raise InputError("Both a sharpness and a mixture, which has none, were given: give one of them.")
        fixed = None if mixture is None else self._mixture(mixture)
        held = self._field(field or {})
        draws = draw_batches(
            num,
            **self.metadata.draws | ({} if sharpness is None else {"sharpness": sharpness_range(sharpness)}),
            seed=seed,
            labels=None if labels is None else self._labels(labels, num),
            batch_size=batch_size,
        )
        return self._draw_images(draws, fixed, held, seed, self._turns(num, generator), batch_size)

    def interpolate(
        self,
        num: int,
        *,
        seeds: tuple[int, int],
        label: Label | None = None,
        mixture: Mixture | None = None,
        sharpness: float | tuple[float, float] | None = None,
        field: Field | None = None,
        generator: int = 0,
    ) -> Samples:
        """Draw the way from one seed's first image to the other's.

        The latent moves along the great circle between the two, so that it stays as likely as they are; the
        condition and, in the stochastic form, the dropout stay those of the first seed.

        Args:
            num: N, both ends included; at least 2.
            seeds: The two ends.
            label: As in :meth:`sample`, as what follows.
            mixture: Wanted probabilities by label.
            sharpness: s of the condition, or its range.
            field: Cells of the latent field that stay where they are all the way.
            generator: Which one of an ensemble draws.

        Raises:
            InputError: An argument is out of its range; says what is possible.
        """
        if whole(num, "The number of images") < 2:
            raise InputError(f"The number of images is {num}: an interpolation needs its two ends, so 2 or more.")
        turns = self._turns(num, whole(generator, "The generator"))  # they do not take turns
        how: dict[str, Any] = {"labels": label, "mixture": mixture, "sharpness": sharpness, "generator": generator}
        first, last = (self.sample(1, seed=seed, field=field, **how) for seed in seeds)
        latent = _great_circle(first.latent[0], last.latent[0], np.linspace(0, 1, num))
        for place, value in self._field(field or {}).items():
            latent[:, place] = value
        condition = np.repeat(first.condition, num, axis=0)
        noise = None
        if self.metadata.noise_dim:
            noise = np.repeat(_noise_rng(seeds[0]).random((1, self.metadata.noise_dim), dtype=np.float32), num, axis=0)
        images = self(latent, condition, noise=noise, generator=turns)
        return Samples(images, condition.argmax(axis=1), latent, condition)

    def label(self, given: Label) -> int:
        """The label that a person means by a class's name or its number; a name comes first.

        Raises:
            InputError: There is no such class; lists those there are.
        """
        return class_number(given, self.metadata.classes)

    def _labels(self, labels: Label | Sequence[Label], num: int) -> list[int]:
        array = np.asarray(labels)
        if array.shape not in ((), (num,)):
            raise InputError(f"{array.size} labels were given for {num} images: give one for each, or one for all.")
        return [self.label(label) for label in np.broadcast_to(array, num).tolist()]

    def _mixture(self, mixture: Mixture) -> Floats:
        """(K,)."""
        vector = np.zeros(self.num_classes, np.float32)
        for label, share in mixture.items():
            if not 0 <= share <= 1:
                raise InputError(f"The mixture gives label {label} a share of {share}: a share lies from 0 to 1.")
            vector[self.label(label)] += share
        total = math.fsum(mixture.values())
        if abs(total - 1) > 1e-6:
            raise InputError(f"The shares of the mixture sum to {total:g}: they must sum to 1.")
        return vector

    def _field(self, field: Field) -> dict[int, float]:
        """Values by their places in a latent."""
        side = self.metadata.field_side
        if field and not side:
            raise InputError(f"{self.path} has no latent field: it is one of an inversion with a latent_field above 0.")
        for (row, column), value in field.items():
            if not (0 <= whole(row, "A row of the field") < side and 0 <= whole(column, "A column of it") < side):
                raise InputError(
                    f"The cell {row},{column} does not exist: the field has {side} rows and columns, counted from 0."
                )
            if not -MAX_HELD <= value <= MAX_HELD:
                raise InputError(
                    f"The cell {row},{column} of the field is to be {value}: give {-MAX_HELD:,} to {MAX_HELD:,}."
                )
        start = self.metadata.latent_dim - side**2
        return {start + row * side + column: value for (row, column), value in field.items()}

    def _turns(self, num: int, generator: int | None) -> Integers | None:
        """Which generator draws each image, (N,); ``None`` where the file holds one alone, and takes no number."""
        count = self.metadata.num_generators or 1
        if generator is not None and not 0 <= whole(generator, "The generator") < count:
            raise InputError(f"Generator {generator} does not exist: {self.path} holds {count}, counted from 0.")
        if not self.metadata.num_generators:
            return None
        return np.arange(num) % count if generator is None else np.full(num, generator, np.int64)

    def _draw_images(
        self,
        draws: Iterator[tuple[Floats, Floats]],
        fixed: Floats | None,
        held: Mapping[int, float],
        seed: int,
        turns: Integers | None,
        batch_size: int,
    ) -> Iterator[Samples]:
        noise_rng = _noise_rng(seed)
        for index, (latent, condition) in enumerate(draws):
            if fixed is not None:
                condition = np.tile(fixed, (len(latent), 1))
            for place, value in held.items():
                latent[:, place] = value
            noise = None
            if self.metadata.noise_dim:
                noise = noise_rng.random((len(latent), self.metadata.noise_dim), dtype=np.float32)
            turn = None if turns is None else turns[index * batch_size : index * batch_size + len(latent)]
            images = self(latent, condition, noise=noise, generator=turn)
            yield Samples(images, condition.argmax(axis=1), latent, condition)


class OnnxClassifier:
    """A classifier from an exported file.

    Args:
        path: The ONNX file.
        num_threads: Threads for each operator; ``None`` is one for each core.

    Raises:
        InputError: The file cannot be opened, or is not a classifier of this project; says what it lacks.
    """

    def __init__(self, path: str | Path, num_threads: int | None = None) -> None:
        self.path = Path(path)
        self.metadata, self._session = open_session(self.path, "classifier", num_threads)

    def __call__(self, images: Floats) -> Floats:
        """Logits (N, K) of images (N, C, H, W) in [0, 1].

        Raises:
            InputError: They are of another shape, are no floats, or lie beyond [0, 1].
        """
        return run_session(self._session, self.metadata, {"images": images})

    def accuracy(self, images: Floats, labels: Integers) -> float:
        """Share of the images (N, C, H, W) in [0, 1], N at least 1, that are read as their labels (N,).

        Raises:
            InputError: There are no images, or no label for each, or they are no images as it takes.
        """
        if not len(images):
            raise InputError("There are no images to tell an accuracy of: give some.")
        return self.num_correct(images, labels) / len(images)

    def num_correct(self, images: Floats, labels: Integers) -> int:
        """Number of the images (N, C, H, W) in [0, 1] that are read as their labels (N,).

        Raises:
            InputError: There is no label for each, or they are no images as it takes.
        """
        labels = np.asarray(labels)
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"{len(images)} images need a whole number each, not {labels.dtype} {labels.shape}.")
        return int((self(images).argmax(axis=1) == labels).sum())

    def check_fits(self, generator: OnnxGenerator) -> None:
        """Make sure that the classifier takes the generator's images and knows the same classes.

        Raises:
            InputError: It does not; says what differs.
        """
        ours, theirs = self.metadata.image_shape, generator.metadata.image_shape
        if ours != theirs:
            raise InputError(f"{self.path} does not fit {generator.path}: their image_shape are {ours} and {theirs}.")
        check_same_classes({str(file.path): file.metadata.classes for file in (self, generator)})


def _noise_rng(seed: int) -> np.random.Generator:
    """The third stream of a seed, beside the two of :func:`draw_batches`."""
    return np.random.default_rng(seed).spawn(3)[2]


def _great_circle(first: Floats, last: Floats, share: NDArray[np.float64]) -> Floats:
    """Spherical interpolation (Shoemake, 1985) of direction, linear of length, at shares (N,) of the way: (N, Z)."""
    lengths = np.linalg.norm([first, last], axis=1)
    angle = math.acos(np.clip((first @ last) / lengths.prod(), -1, 1))
    if math.sin(angle) < 1e-6:  # the same direction, or opposite ones: any way is as short
        weights = np.stack([1 - share, share])
    else:
        weights = np.stack([np.sin((1 - share) * angle), np.sin(share * angle)]) / math.sin(angle)
    direction = weights.T @ (np.stack([first, last]) / lengths[:, None])
    latent: Floats = (direction * ((1 - share) * lengths[0] + share * lengths[1])[:, None]).astype(np.float32)
    return latent
