"""What a classifier has learned, told by its generated images: in one call, and as ``netinv interpret``."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netinv.app.options import as_json, read_subject, source_options, subject_options
from netinv.app.parsing import PATH, parse_pairs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netinv.app.inversions import Inversion
    from netinv.classifiers import AdapterConfig
    from netinv.data import LabelledImages
    from netinv.interpretation import Drawn, Interpretation, InterpretationConfig, SparseAutoencoder, Wanted


def interpret(
    classifier: "nn.Module",
    inversions: "Inversion | Sequence[Inversion]",
    *,
    adapter: "AdapterConfig | None" = None,
    config: "InterpretationConfig | None" = None,
    evaluator: "nn.Module | None" = None,
    train: "LabelledImages | None" = None,
    test: "LabelledImages | None" = None,
    classes: Sequence[str] | None = None,
    progress: bool = True,
) -> "Interpretation":
    """Find the directions that a classifier's activations are made of, and show what each stands for.

    Args:
        classifier: The network that was inverted.
        inversions: One of it or several, in any variants.
        adapter: What the network takes and gives, as for :func:`netinv.invert`.
        config: Which layer, how many units; ``None`` is 256 units on the penultimate features.
        evaluator: Another network for the same images, in whose features images are alike or not.
        train: Real images, to compare with. Without them what needs them says so.
        test: Real images that everything is measured on, likewise.
        classes: Names of the classes; ``None`` is as the inversions have them.
        progress: Show a bar.

    Raises:
        InputError: Inversions and names do not fit together, the classifier has no such layer, or its activations tell
            nothing; says why.

    Example:
        >>> found = interpret(classifier, inversion)  # doctest: +SKIP
        >>> found.save("interpretation")  # doctest: +SKIP
    """
    from netinv.app.inversions import as_inversions, class_names
    from netinv.classifiers import adapt
    from netinv.interpretation import InterpretationConfig
    from netinv.interpretation import interpret as interpret_classifier

    if config is not None:
        config = InterpretationConfig.expect(config, "config")
    made = as_inversions(inversions)
    classes, shape = class_names(made, classes), made[0].generator.image_shape
    return interpret_classifier(
        adapt(classifier, shape, len(classes), adapter),
        by_variant(made),
        classes,
        config,
        evaluator=None if evaluator is None else adapt(evaluator, shape, len(classes)),
        train=train,
        test=test,
        trained=_with_bar if progress else None,
    )


def by_variant(inversions: "Sequence[Inversion]") -> "dict[str, Drawn]":
    """The generators of inversions, those of one variant and sharpness together."""
    from netinv.interpretation import Drawn
    from netinv.inversion import variant_of

    found: dict[str, Drawn] = {}
    for inversion in inversions:
        name, sharpness = variant_of(inversion.config), inversion.config.sharpness
        key = next((k for k, d in found.items() if k.startswith(name) and d.sharpness == sharpness), None)
        if key is None:
            key = name if name not in found else f"{name}, sharpness {sharpness[0]:g} to {sharpness[1]:g}"
            found[key] = Drawn([], sharpness)
        found[key].generators.append(inversion.generator)
    return found


def _with_bar(rows: "Mapping[str, Tensor]", wanted: "Sequence[Wanted]") -> "Iterable[tuple[str, SparseAutoencoder]]":
    """Dictionaries in turn, with a bar on a terminal."""
    from tqdm.auto import tqdm

    from netinv.interpretation import in_turn

    return tqdm(in_turn(rows, wanted), total=len(wanted), desc="interpret", unit="dictionary", disable=None)


@click.command("interpret")
@source_options
@subject_options
@click.option("--layer", help="Module whose output is interpreted.  [default: the penultimate features]")
@click.option("--set", "settings", multiple=True, help="[dictionary.]NAME=VALUE; repeat it. A wrong NAME lists all.")
@click.option(
    "--out",
    required=True,
    type=PATH,
    help="Folder for numbers and pictures; earlier ones there are replaced.",
)
@as_json
def interpret_command(
    folders: tuple[Path, ...],
    data: Path | None,
    evaluator: str | None,
    evaluator_set: tuple[str, ...],
    layer: str | None,
    settings: tuple[str, ...],
    seed: int,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Show what the units of a sparse dictionary of MODEL's activations stand for, with no data at all.

    Writes interpretation.json, and a picture of each unit. With --data, says how much of a dictionary of real images
    the generated ones find.
    """
    from netinv.app.records import save_somewhere
    from netinv.core import check_folder
    from netinv.interpretation import FILES, InterpretationConfig

    check_folder(out, replaces=FILES)
    values: dict[str, Any] = {"layer": layer, "seed": seed, "dictionary": {}}
    for name, value in parse_pairs(settings, "--set").items():
        place = values["dictionary"] if name.startswith("dictionary.") else values
        place[name.removeprefix("dictionary.")] = value
    config = InterpretationConfig.parse(values, where="--set")
    subject = read_subject(folders, data, evaluator, evaluator_set, seed, options)
    train, test = subject.splits
    found = interpret(
        subject.classifier,
        subject.inversions,
        config=config,
        evaluator=subject.evaluator,
        train=train,
        test=test,
        classes=subject.classes,
    )
    save_somewhere(found.save, out)
    if as_json:
        headline = {name: value.model_dump(mode="json") for name, value in found.results.headline.items()}
        print(json.dumps({"out": str(out), "headline": headline}))
        return
    for name, value in found.results.headline.items():
        print(f"{name.replace('_', ' '):28} {value}")
    print(f"{len(found.results.units)} units: see {out / 'units.png'}")
