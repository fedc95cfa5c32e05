"""What people type, as values: each form is refused in one sentence that shows how to write it."""

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netinv.core import InputError, best_device, check_class_names, expanded, parse_json

if TYPE_CHECKING:
    from netinv.classifiers import ClassifierSource
    from netinv.sampling import OnnxGenerator

EVALUATOR_OPTIONS = (
    "weights",
    "weights-prefix",
    "argument",
    "image-shape",
    "num-classes",
    "mean",
    "std",
    "input-shape",
    "channel-order",
    "output",
    "output-entry",
    "feature-layer",
)
"""What ``--evaluator-set`` sets: the options of a MODEL but for its device."""


PYTHONS = {"True": True, "False": False, "None": None}
"""Python's words for true, false and null, which the authors of factories are used to."""


class PathType(click.Path):
    """A path that people type. A shell leaves ``~`` as it is in ``--out=~/x``, and an empty text is no path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or where it is empty click's error, which names the option."""
        if not str(value):
            self.fail("it is empty: name a path.", param, ctx)
        return super().convert(expanded(str(value)), param, ctx)


class NetworkType(click.types.StringParamType):
    """A name of a network or of its weights, which may be a path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name; of a path, as :class:`PathType`."""
        return str(expanded(value)) if str(value).startswith("~") else super().convert(value, param, ctx)


PATH, NETWORK = PathType(path_type=Path), NetworkType()


def parse_mixture(text: str, generator: "OnnxGenerator") -> dict[int, float]:
    """Shares by label, from a text such as ``3:0.6,8:0.4``.

    Raises:
        InputError: The text has another form, or names a class that there is not.
    """
    mixture: dict[int, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().rpartition(":")
        try:
            share = float(number) if name else None
        except ValueError:
            share = None
        if share is None:
            raise InputError(
                f"The mixture {text!r} has no share in {part!r}: write it like 3:0.6,8:0.4, with numbers for classes "
                "whose names have a comma."
            )
        label = generator.label(name.strip())
        if label in mixture:
            raise InputError(f"The mixture {text!r} names the class {name} twice: give each class one share.")
        mixture[label] = share
    return mixture


def parse_classes(text: str) -> tuple[str, ...]:
    """Names of classes in label order, from a text such as ``red, blue``.

    Raises:
        InputError: A name is empty or there twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    check_class_names(names, "--classes")
    return names


def parse_sharpness(text: str) -> tuple[float, float]:
    """A range of the sharpness, from a text such as ``3`` or ``1:5``.

    Raises:
        InputError: The text has another form.
    """
    low, colon, high = text.partition(":")
    try:
        return float(low), float(high if colon else low)
    except ValueError:
        raise InputError(f"The sharpness {text!r} is no number: write it like 3, or 1:5 for a range.") from None


def parse_field(texts: Iterable[str]) -> dict[tuple[int, int], float]:
    """Cells of the latent field, from texts such as ``0,3:1.5``: row, column, value.

    Raises:
        InputError: A text has another form, or names a cell again.
    """
    field: dict[tuple[int, int], float] = {}
    for text in texts:
        found = re.fullmatch(r"\s*(\d{1,3})\s*,\s*(\d{1,3})\s*:(.*)", text, re.ASCII)
        try:
            value = float(found[3]) if found else None
        except ValueError:
            value = None
        if not found or value is None:
            raise InputError(f"The field {text!r} is no cell: write row, column and value like 0,3:1.5.")
        cell = int(found[1]), int(found[2])
        if cell in field:
            raise InputError(f"The cell {cell[0]},{cell[1]} of the field is given twice: give it one value.")
        field[cell] = value
    return field


def parse_source(options: dict[str, Any]) -> "tuple[ClassifierSource, str]":
    """Settings of a classifier, and the device, from the options of :func:`source_options`.

    Raises:
        InputError: An option has another form, or settings do not go together.
    """
    import torch

    from netinv.app.records import RECORD, source_of
    from netinv.classifiers import ClassifierSource

    given = {name: value for name, value in options.items() if value not in (None, ())}
    device = given.pop("device", best_device())
    for name, kind in (("image_shape", int), ("input_shape", int), ("mean", float), ("std", float)):
        if name in given:
            given[name] = parse_numbers(given[name], kind, f"--{name.replace('_', '-')}")
    if "image_shape" in given and len(given["image_shape"]) != 3:
        raise InputError(
            f"--image-shape {options['image_shape']!r} is not channels, height, width: write it like 1,28,28."
        )
    if str(given.get("output_entry", "")).isdecimal():
        given["output_entry"] = int(given["output_entry"])
    given["arguments"] = parse_pairs(given.get("arguments", ()), "--argument")
    names = ("mean", "std", "input_shape", "channel_order", "output", "output_entry", "feature_layer")
    given["adapter"] = {name: given.pop(name) for name in names if name in given}
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {device!r} cannot be used ({str(error).splitlines()[0]}).") from None
    source = ClassifierSource.parse(given)
    folder = Path(source.model)
    return source_of(folder, source) if (folder / RECORD).is_file() else source, device


def parse_evaluator(
    model: str, pairs: tuple[str, ...], image_shape: tuple[int, int, int], device: str
) -> "ClassifierSource":
    """Settings of an evaluator, from texts such as ``mean=0.5``: the options of the same names, as for MODEL.

    It judges images of the given shape, unless it is a folder, which knows its own.

    Raises:
        InputError: A text has another form, names no such option, or names one again.
    """
    options: dict[str, Any] = {"model": model, "device": device, "arguments": ()}
    if not Path(model).is_dir():
        options["image_shape"] = ",".join(map(str, image_shape))
    for name, text in split_pairs(pairs, "--evaluator-set", repeatable=("argument",)):
        if name.replace("_", "-") not in EVALUATOR_OPTIONS:
            raise InputError(
                f"--evaluator-set {name!r} is no option of an evaluator: write it like mean=0.5, with one of "
                f"{', '.join(EVALUATOR_OPTIONS)}."
            )
        if name == "argument":
            options["arguments"] += (text,)
        else:
            options[name.replace("-", "_")] = NETWORK(text) if name == "weights" else text
    if "num_classes" in options:
        (options["num_classes"],) = parse_numbers(options["num_classes"], int, "--evaluator-set num-classes")
    try:
        return parse_source(options)[0]
    except InputError as error:
        raise InputError(f"--evaluator-set: {error}" if pairs else str(error)) from None


def expect_evaluator(evaluator: str | None, settings: tuple[str, ...]) -> None:
    """Refuse settings of an evaluator that is not named.

    Raises:
        InputError: There are some.
    """
    if settings and evaluator is None:
        raise InputError("--evaluator-set says how an evaluator is used: name it with --evaluator.")


def parse_numbers(text: str, kind: type, option: str) -> list[Any]:
    """Numbers between commas; any but whole ones may be fractions, such as ``1/255``.

    Raises:
        InputError: The text has another form.
    """
    try:
        if kind is int:
            return [int(part) for part in text.split(",")]
        pairs = (part.partition("/") for part in text.split(","))
        return [float(above) / (float(below) if slash else 1) for above, slash, below in pairs]
    except (ValueError, ZeroDivisionError):
        form = "3,32,32" if kind is int else "0.49,0.48,0.45 or 1/255"
        raise InputError(f"{option} {text!r} is no list of numbers: write it like {form}.") from None


def split_pairs(pairs: Iterable[str], option: str, repeatable: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Names and their texts, from texts such as ``steps=300``. A name means the same with ``-`` as with ``_``.

    Args:
        pairs: The texts.
        option: Where they were typed, for the message.
        repeatable: Names that may be given more than once.

    Raises:
        InputError: A text has another form, or names a value again.
    """
    seen = set()
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InputError(f"{option} {pair!r} has no name and value: write it like NAME=VALUE.")
        key = name.replace("-", "_")
        if key in seen and name not in repeatable:
            raise InputError(f"{option} gives {name} twice: give it one value.")
        seen.add(key)
        yield name, text


def parse_pairs(pairs: tuple[str, ...], option: str) -> dict[str, Any]:
    """Values by name, from texts such as ``steps=300``; a value is JSON, one of Python's words for it, or else a text.

    Raises:
        InputError: A text has another form, or names a value again.
    """
    values: dict[str, Any] = {}
    for name, text in split_pairs(pairs, option):
        try:
            values[name] = parse_json(text)
        except ValueError:
            values[name] = PYTHONS.get(text, text)
    return values
