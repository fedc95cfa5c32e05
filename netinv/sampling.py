"""Images from exported generators, with numpy and onnxruntime alone: neither torch nor the pipeline is needed.

generator = OnnxGenerator("generator-0.onnx")
samples = generator.sample(64, labels=3, seed=0)
OnnxClassifier("classifier.onnx").accuracy(samples.images, samples.labels)
"""

import json
import math
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from netinv.errors import InputError

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Pixels = NDArray[np.uint8]

BATCH_SIZE = 64
"""Images drawn at a time: fast, and small in memory."""


def draw(
    num: int,
    *,
    latent_dim: int,
    num_classes: int,
    seed: int,
    sharpness: tuple[float, float] = (1.0, 1.0),
    labels: Sequence[int] | None = None,
) -> tuple[Floats, Floats]:
    """Draw what a generator takes: z ~ N(0, I_Z) and p = softmax(s * e) with e ~ N(0, I_K).

    The first n samples are the same whatever ``num`` is, and each keeps its latent and its e under every
    ``sharpness`` and every label.

    Args:
        num: N.
        latent_dim: Z.
        num_classes: K.
        seed: Non-negative; fixes every draw.
        sharpness: Range (low, high) of s. Each sample has its own s, uniform in its logarithm.
        labels: Wanted label of each sample, N in all, or ``None`` to leave them to chance.

    Returns:
        latent (N, Z) and condition (N, K), both float32; the rows of the condition sum to 1.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> latent, condition = draw(2, latent_dim=4, num_classes=3, seed=0, labels=[2, 0])
        >>> latent.shape, condition.argmax(axis=1).tolist()
        ((2, 4), [2, 0])
    """
    batches = draw_batches(
        num,
        latent_dim=latent_dim,
        num_classes=num_classes,
        seed=seed,
        sharpness=sharpness,
        labels=labels,
        batch_size=max(num, 1),
    )
    return next(batches)


def draw_batches(
    num: int,
    *,
    latent_dim: int,
    num_classes: int,
    seed: int,
    sharpness: tuple[float, float] = (1.0, 1.0),
    labels: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[Floats, Floats]]:
    """The samples of :func:`draw`, a batch at a time, so that memory does not grow with ``num``."""
    low, high = sharpness
    if num < 0 or batch_size < 1:
        raise ValueError(f"Expected num >= 0 and batch_size >= 1, got {num} and {batch_size}")
    if not 0 < low <= high:
        raise ValueError(f"Expected sharpness as a range 0 < low <= high, got {sharpness}")
    if labels is not None and (len(labels) != num or not all(0 <= label < num_classes for label in labels)):
        raise ValueError(f"Expected {num} labels from 0 to {num_classes - 1}, got {len(labels)}: {labels}")
    # Two streams, each read row by row: what a sample gets depends on its place alone.
    normal_rng, uniform_rng = np.random.default_rng(seed).spawn(2)
    for start in range(0, max(num, 1), batch_size):  # nothing is one empty batch
        size = min(batch_size, num - start)
        normal = normal_rng.standard_normal((size, latent_dim + num_classes), dtype=np.float32)  # (N, Z + K)
        scale = low * (high / low) ** uniform_rng.random((size, 1))  # (N, 1), float64
        latent, condition = normal[:, :latent_dim].copy(), softmax(scale * normal[:, latent_dim:])
        if labels is not None:
            _swap_top(condition, np.asarray(labels[start : start + size], np.int64))
        yield latent, condition


def _swap_top(condition: Floats, labels: Integers) -> None:
    """Make ``labels`` the arg-max, in place, by swapping each row's largest entry with the label's.

    The entries are exchangeable, so the result is distributed exactly as the draws that have this label.
    """
    rows, top = np.arange(len(condition)), condition.argmax(axis=1)
    condition[rows, top], condition[rows, labels] = condition[rows, labels], condition[rows, top]


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Soft-max over the last axis, float32."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares


@dataclass(frozen=True)
class Metadata:
    """What an exported file says of itself. Each field is one metadata entry ``netinv.<field>`` of it, as JSON."""

    kind: Literal["generator", "classifier"]
    dataset: str
    variant: str
    """Which generator (``standard`` or ``robust``), or which classifier (``classifier`` or ``evaluator``)."""
    classes: tuple[str, ...]
    """Names of the K classes, in label order."""
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    run_id: str
    """The MLflow run that trained the network; empty where there was none."""
    licence: str
    """What the source of the training images says about their use."""
    versions: dict[str, str]
    """Of the libraries that wrote the file."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    """How the weights are stored. Inputs, outputs and arithmetic are float32 in every form."""
    latent_dim: int = 0
    """Z; 0 for a classifier."""
    sharpness: tuple[float, float] = (1.0, 1.0)
    """Range of the sharpness that the generator was trained with, its default."""
    num_generators: int = 0
    """In an ensemble, which has the input ``generator`` (N,), int64; 0 where the file is one generator alone."""
    noise_dim: int = 0
    """U, length of the stochastic form's input ``noise`` (N, U), uniform in [0, 1); 0 where there is no dropout."""
    image_range: tuple[float, float] = (0.0, 1.0)
    image_layout: Literal["NCHW"] = "NCHW"

    def to_entries(self) -> dict[str, str]:
        """The entries of the file."""
        return {f"netinv.{key}": json.dumps(value) for key, value in asdict(self).items()}

    @classmethod
    def from_entries(cls, entries: Mapping[str, str], path: Path) -> "Metadata":
        """Read the entries of a file.

        Raises:
            InputError: Names the entries that are missing or damaged.
        """
        names = [field.name for field in fields(cls)]
        if missing := [f"netinv.{name}" for name in names if f"netinv.{name}" not in entries]:
            raise InputError(
                f"{path} was not written by this project's export: it lacks the metadata {_list(missing)}."
            )
        try:
            values: dict[str, Any] = {name: json.loads(entries[f"netinv.{name}"]) for name in names}
            values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            return cls(**values)
        except ValueError as error:
            raise InputError(f"{path} has damaged metadata ({error}): export it again.") from None


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
        self.metadata, self._session = _open(self.path, "generator", num_threads)
        self.num_classes = len(self.metadata.classes)

    def __call__(
        self, latent: Floats, condition: Floats, *, noise: Floats | None = None, generator: Integers | None = None
    ) -> Floats:
        """Images (N, C, H, W) in [0, 1] from explicit inputs.

        Args:
            latent: (N, Z).
            condition: Wanted class probabilities, (N, K).
            noise: Uniform in [0, 1), (N, U); the stochastic form needs it.
            generator: Which generator draws each image, (N,); an ensemble needs it.
        """
        feeds: dict[str, NDArray[Any]] = {"latent": latent, "condition": condition}
        if self.metadata.noise_dim:
            if noise is None:
                raise ValueError(f"Expected noise of shape (N, {self.metadata.noise_dim}): {self.path} is stochastic")
            feeds["noise"] = noise
        if self.metadata.num_generators:
            if generator is None:
                raise ValueError(f"Expected generator of shape (N,): {self.path} is an ensemble")
            feeds["generator"] = generator
        return _run(self._session, feeds)

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        labels: int | Sequence[int] | None = None,
        mixture: Mapping[int, float] | None = None,
        sharpness: float | tuple[float, float] | None = None,
        generator: int | None = None,
    ) -> Samples:
        """Draw images.

        Args:
            num: N. The first n images are the same whatever N is.
            seed: Fixes every draw; not negative.
            labels: Wanted label of all images, or of each; ``None`` leaves it to chance.
            mixture: Wanted probabilities by label, the same for all images, in place of drawn ones; sums to 1.
            sharpness: s of the condition softmax(s * e), or its range; ``None`` is the file's own.
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
                generator=generator,
            )
        )
        return Samples(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))

    def stream(
        self,
        num: int,
        *,
        seed: int = 0,
        labels: int | Sequence[int] | None = None,
        mixture: Mapping[int, float] | None = None,
        sharpness: float | tuple[float, float] | None = None,
        generator: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[Samples]:
        """The images of :meth:`sample`, a batch at a time, so that memory does not grow with ``num``."""
        if num < 0:
            raise InputError(f"The number of images is {num}: give 0 or more.")
        if labels is not None and mixture is not None:
            raise InputError("Both labels and a mixture were given: give one of them.")
        if isinstance(labels, int):
            labels = [labels] * num
        fixed = None if mixture is None else self._mixture(mixture)
        draws = draw_batches(
            num,
            latent_dim=self.metadata.latent_dim,
            num_classes=self.num_classes,
            seed=_checked_seed(seed),
            sharpness=self._sharpness(sharpness),
            labels=None if labels is None else self._labels(labels, num),
            batch_size=batch_size,
        )
        return self._draw_images(draws, fixed, seed, self._turns(num, generator), batch_size)

    def interpolate(
        self,
        num: int,
        *,
        seeds: tuple[int, int],
        label: int | None = None,
        mixture: Mapping[int, float] | None = None,
        sharpness: float | tuple[float, float] | None = None,
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
            generator: Which one of an ensemble draws.

        Raises:
            InputError: An argument is out of its range; says what is possible.
        """
        if num < 2:
            raise InputError(f"The number of images is {num}: an interpolation needs its two ends, so 2 or more.")
        first, last = (
            self.sample(1, seed=seed, labels=label, mixture=mixture, sharpness=sharpness, generator=generator)
            for seed in seeds
        )
        latent = _great_circle(first.latent[0], last.latent[0], np.linspace(0, 1, num))
        condition = np.repeat(first.condition, num, axis=0)
        noise = None
        if self.metadata.noise_dim:
            noise = np.repeat(_noise_rng(seeds[0]).random((1, self.metadata.noise_dim), dtype=np.float32), num, axis=0)
        images = self(latent, condition, noise=noise, generator=np.full(num, generator, np.int64))
        return Samples(images, condition.argmax(axis=1), latent, condition)

    def label(self, text: str) -> int:
        """The label that a person means by a class's name or its number; a name comes first.

        Raises:
            InputError: There is no such class; lists those there are.
        """
        if text in self.metadata.classes:
            return self.metadata.classes.index(text)
        if text.isascii() and text.isdigit() and int(text) < self.num_classes:
            return int(text)
        raise InputError(f"Label {text} does not exist: {self._known()}")

    def _known(self) -> str:
        return f"the classes are {_list([f'{i} ({name})' for i, name in enumerate(self.metadata.classes)])}."

    def _labels(self, labels: Sequence[int], num: int) -> Sequence[int]:
        if len(labels) != num:
            raise InputError(f"{len(labels)} labels were given for {num} images: give one for each, or one for all.")
        for label in {*labels}:
            if not 0 <= label < self.num_classes:
                raise InputError(f"Label {label} does not exist: {self._known()}")
        return labels

    def _mixture(self, mixture: Mapping[int, float]) -> Floats:
        """(K,)."""
        vector = np.zeros(self.num_classes, np.float32)
        for label, share in mixture.items():
            if not 0 <= label < self.num_classes:
                raise InputError(f"Label {label} does not exist: {self._known()}")
            if not 0 <= share <= 1:
                raise InputError(f"The mixture gives label {label} a share of {share}: a share lies from 0 to 1.")
            vector[label] = share
        total = math.fsum(mixture.values())
        if abs(total - 1) > 1e-6:
            raise InputError(f"The shares of the mixture sum to {total:g}: they must sum to 1.")
        return vector

    def _sharpness(self, sharpness: float | tuple[float, float] | None) -> tuple[float, float]:
        if sharpness is None:
            return self.metadata.sharpness
        low, high = sharpness if isinstance(sharpness, tuple) else (sharpness, sharpness)
        if not 0 < low <= high < math.inf:
            raise InputError(
                f"The sharpness is {sharpness}: give a number above 0, or a range of two, the lower first."
            )
        return low, high

    def _turns(self, num: int, generator: int | None) -> Integers:
        """Which generator draws each image, (N,)."""
        count = self.metadata.num_generators or 1
        if generator is None:
            return np.arange(num) % count
        if not 0 <= generator < count:
            raise InputError(f"Generator {generator} does not exist: {self.path} holds {count}, counted from 0.")
        return np.full(num, generator, np.int64)

    def _draw_images(
        self,
        draws: Iterator[tuple[Floats, Floats]],
        fixed: Floats | None,
        seed: int,
        turns: Integers,
        batch_size: int,
    ) -> Iterator[Samples]:
        noise_rng = _noise_rng(seed)
        for index, (latent, condition) in enumerate(draws):
            if fixed is not None:
                condition = np.tile(fixed, (len(latent), 1))
            noise = None
            if self.metadata.noise_dim:
                noise = noise_rng.random((len(latent), self.metadata.noise_dim), dtype=np.float32)
            turn = turns[index * batch_size : index * batch_size + len(latent)]
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
        self.metadata, self._session = _open(self.path, "classifier", num_threads)

    def __call__(self, images: Floats) -> Floats:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]."""
        return _run(self._session, {"images": images})

    def accuracy(self, images: Floats, labels: Integers) -> float:
        """Share of the images (N, C, H, W) that are read as their labels (N,)."""
        return self.num_correct(images, labels) / len(labels)

    def num_correct(self, images: Floats, labels: Integers) -> int:
        """Number of the images (N, C, H, W) that are read as their labels (N,)."""
        return int((self(images).argmax(axis=1) == labels).sum())

    def check_fits(self, generator: OnnxGenerator) -> None:
        """Make sure that the classifier takes the generator's images and knows the same classes.

        Raises:
            InputError: It does not; says what differs.
        """
        for name in ("image_shape", "classes"):
            ours, theirs = getattr(self.metadata, name), getattr(generator.metadata, name)
            if ours != theirs:
                raise InputError(f"{self.path} does not fit {generator.path}: their {name} are {ours} and {theirs}.")


def _open(
    path: Path, kind: Literal["generator", "classifier"], num_threads: int | None
) -> tuple[Metadata, onnxruntime.InferenceSession]:
    if not path.is_file():
        raise InputError(f"{path} is not a file: name an exported {kind}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads or 0
    options.log_severity_level = 4  # what goes wrong is raised as well
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is not an ONNX file that onnxruntime {onnxruntime.__version__} opens ({reason})."
        ) from None
    metadata = Metadata.from_entries(session.get_modelmeta().custom_metadata_map, path)
    if metadata.kind != kind:
        raise InputError(f"{path} is a {metadata.kind}: name an exported {kind}.")
    if (found := {i.name: tuple(i.shape[1:]) for i in session.get_inputs()}) != (expected := _input_shapes(metadata)):
        raise InputError(f"{path} does not fit its metadata: expected the inputs {expected}, got {found}.")
    return metadata, session


def _run(session: onnxruntime.InferenceSession, feeds: Mapping[str, NDArray[Any]]) -> Floats:
    """The output for any number of rows, ``BATCH_SIZE`` at a time: what fits into the caches is faster."""
    num = len(next(iter(feeds.values())))
    outputs = [
        session.run(None, {name: rows[i : i + BATCH_SIZE] for name, rows in feeds.items()})[0]
        for i in range(0, max(num, 1), BATCH_SIZE)
    ]
    return np.concatenate(outputs)


def _input_shapes(metadata: Metadata) -> dict[str, tuple[int, ...]]:
    """The shape of each input, less its first axis N."""
    if metadata.kind == "classifier":
        return {"images": metadata.image_shape}
    shapes: dict[str, tuple[int, ...]] = {"latent": (metadata.latent_dim,), "condition": (len(metadata.classes),)}
    if metadata.noise_dim:
        shapes["noise"] = (metadata.noise_dim,)
    if metadata.num_generators:
        shapes["generator"] = ()
    return shapes


def _checked_seed(seed: int) -> int:
    if seed < 0:
        raise InputError(f"The seed is {seed}: give 0 or more.")
    return seed


def _noise_rng(seed: int) -> np.random.Generator:
    """The third stream of a seed, beside the two of :func:`draw_batches`."""
    return np.random.default_rng(_checked_seed(seed)).spawn(3)[2]


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


def _list(items: Sequence[str], most: int = 20) -> str:
    """Names in a sentence, the first few of many."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def to_pixels(images: Floats) -> Pixels:
    """Images in [0, 1] to the nearest uint8."""
    pixels: Pixels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return pixels


def grid(batches: Iterable[Floats], num: int, image_shape: tuple[int, int, int], columns: int | None = None) -> Pixels:
    """One picture of many, row by row, a white pixel between neighbours.

    Args:
        batches: Images (N, C, H, W) in [0, 1], ``num`` in all.
        num: How many there are.
        image_shape: (C, H, W), of one or three channels.
        columns: Images in a row; ``None`` makes the grid about square.

    Returns:
        (rows * (H + 1) - 1, columns * (W + 1) - 1, C).
    """
    channels, height, width = image_shape
    columns = columns or math.isqrt(max(num, 1) - 1) + 1
    rows = -(-max(num, 1) // columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, np.uint8)
    index = 0
    for batch in batches:
        for image in to_pixels(batch):
            top, left = index // columns * (height + 1), index % columns * (width + 1)
            canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
            index += 1
    return canvas


def save(
    path: Path, batches: Iterable[Samples], num: int, generator: OnnxGenerator, columns: int | None = None
) -> None:
    """Write samples as they come, whole or not at all.

    Args:
        path: ``.png`` is one grid; ``.npz`` holds the arrays of :class:`Samples`, by name; a path without a suffix is
            a new folder of PNGs, named by place and label.
        batches: ``num`` samples in all.
        num: How many there are.
        generator: Where they come from.
        columns: Images in a row of the grid.

    Raises:
        InputError: The path has another suffix, is taken by a folder, or cannot be written.
    """
    if path.suffix not in {".png", ".npz", ""}:
        raise InputError(f"{path} ends in {path.suffix}: give a .png, a .npz, or a new folder's name without a suffix.")
    if path.is_dir():
        raise InputError(f"{path} is a folder already: name a file or a new folder.")
    with _replaced(path) as partial:
        if path.suffix == ".png":
            images = (batch.images for batch in batches)
            _save_png(partial, grid(images, num, generator.metadata.image_shape, columns))
        elif path.suffix == ".npz":
            _save_npz(partial, batches, num, generator)
        else:
            _save_folder(partial, batches)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name a place that can.") from None
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def _save_png(path: Path, pixels: Pixels) -> None:
    """Pixels (H, W, C) of one or three channels."""
    from PIL import Image

    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path, format="PNG")


def _save_folder(path: Path, batches: Iterable[Samples]) -> None:
    path.mkdir()
    index = 0
    for batch in batches:
        for image, label in zip(to_pixels(batch.images), batch.labels, strict=True):
            _save_png(path / f"{index:06}-{label}.png", image.transpose(1, 2, 0))
            index += 1


def _save_npz(path: Path, batches: Iterable[Samples], num: int, generator: OnnxGenerator) -> None:
    """What ``numpy.savez`` writes, without holding all images: only they are large, so they go first."""
    small = []
    header = {"descr": "<f4", "fortran_order": False, "shape": (num, *generator.metadata.image_shape)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for batch in batches:
                file.write(batch.images.astype("<f4", copy=False).tobytes())
                small.append(batch._replace(images=batch.images[:0]))
        whole = Samples(*(np.concatenate(parts) for parts in zip(*small, strict=True)))
        for name in ("labels", "latent", "condition"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, getattr(whole, name), allow_pickle=False)
