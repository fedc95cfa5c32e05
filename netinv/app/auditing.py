"""The command ``netinv audit``: a gate for builds, whose exit status is its verdict."""

import sys
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netinv.app.messages import warn_of_chance, warn_of_order
from netinv.app.options import as_json, expect_drawn_for, expect_pictures, read_data, read_inversion, source_options
from netinv.app.parsing import NETWORK, PATH, expect_evaluator, parse_evaluator, parse_source
from netinv.core import InputError, check_same_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from netinv.classifiers import AdaptedClassifier


@click.command()
@source_options
@click.option("--data", required=True, type=PATH, help="Its training and test images.")
@click.option("--policy", "policy_file", type=PATH, help="YAML file.  [default: see docs/audit.md]")
@click.option(
    "--generators",
    multiple=True,
    type=PATH,
    help="Generator to draw from: an ONNX file, or a folder of netinv invert; repeat it.",
)
@click.option(
    "--images",
    "image_sets",
    multiple=True,
    type=PATH,
    help="Generated images: a folder of them, or an .npz of netinv sample; repeat it.",
)
@click.option("--evaluator", type=NETWORK, help="Independent classifier, in any form of MODEL.")
@click.option(
    "--evaluator-set", multiple=True, help="NAME=VALUE, an option of MODEL for it, such as mean=0.5; repeat it."
)
@click.option("--out", required=True, type=PATH, help="New folder for the record.")
@as_json
def audit(
    data: Path,
    policy_file: Path | None,
    generators: tuple[Path, ...],
    image_sets: tuple[Path, ...],
    evaluator: str | None,
    evaluator_set: tuple[str, ...],
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Audit MODEL, and images drawn from it, by a policy: does it leak its training images, can it be trusted?

    Writes audit.json, junit.xml and audit.html. Exit status: 0 it passes, 3 a person must look into it, 1 it fails,
    2 it cannot be carried out.
    """
    from netinv.app.records import expect_inverted, save_somewhere
    from netinv.audit import STATUS, Policy, load_policy, save_audit
    from netinv.audit import audit as audited
    from netinv.classifiers import load_classifier_from
    from netinv.core import check_folder, new_folder

    check_folder(out)
    expect_evaluator(evaluator, evaluator_set)
    policy = Policy() if policy_file is None else load_policy(policy_file)
    source, device = parse_source(options)
    classifier = load_classifier_from(source, device)
    expect_inverted(options["model"], classifier)
    dataset = read_data(data, classifier.image_shape)
    if (num := len(dataset.classes)) != classifier.num_classes:
        raise InputError(f"{data} has {num} classes, but {source.model} knows {classifier.num_classes}: give its own.")
    warn_of_order(source.model, data, dataset.classes)
    warn_of_chance(f"{source.model} on {data}", classifier, dataset.test)
    known = {str(data): dataset.classes}
    draw = partial(_drawn, options["model"], classifier, known, num=policy.samples, seed=policy.seed)
    samples = {
        name: drawn
        for paths, read in ((generators, draw), (image_sets, partial(_read, image_shape=classifier.image_shape)))
        for name, drawn in _named(paths, read)
    }
    if len(samples) < len(generators) + len(image_sets):
        raise InputError("Two sets of samples have one name: give each file or folder a name of its own.")
    judge = None
    if evaluator is not None:
        judge = load_classifier_from(parse_evaluator(evaluator, evaluator_set, classifier.image_shape, device), device)
    record = audited(classifier, dataset.train, dataset.test, policy, samples, judge, Path(source.model).name)

    def save(place: Path) -> None:
        with new_folder(place) as folder:
            save_audit(folder, record, dataset.train, dataset.test, samples)

    told = "\n".join([*record.lines, f"{record.verdict}: {record.summary}"])
    try:
        save_somewhere(save, out)
        told += f" See {out / 'audit.html'}"
    finally:
        print(record.model_dump_json(indent=1) if as_json else told)
    sys.exit(STATUS[record.verdict])


def _named(paths: tuple[Path, ...], read: "Callable[[Path], Tensor]") -> "list[tuple[str, Tensor]]":
    """Samples, each with a name that tells where they are from; parents where the last part does not differ."""
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [path.as_posix() for path in paths]
    return [(name, read(path)) for name, path in zip(names, paths, strict=True)]


def _drawn(
    model: str, classifier: "AdaptedClassifier", known: "Mapping[str, Sequence[str]]", path: Path, num: int, seed: int
) -> "Tensor":
    """Images of a generator at its own sharpness, (N, C, H, W), if it is one of MODEL and of the data's classes."""
    import torch

    if path.suffix != ".onnx":
        inversion = read_inversion(path, model, classifier)
        check_same_classes({**known, str(path): inversion.classes})
        return inversion.sample(num, seed=seed)
    from netinv.sampling import OnnxGenerator

    generator = OnnxGenerator(path)
    expect_drawn_for(model, classifier, path, generator.metadata.image_shape, generator.metadata.classes)
    check_same_classes({**known, str(path): generator.metadata.classes})
    return torch.from_numpy(generator.sample(num, seed=seed).images)


def _read(path: Path, image_shape: tuple[int, int, int]) -> "Tensor":
    """All images that were drawn elsewhere, (N, C, H, W), not looked at; the audit does, and chooses among them."""
    import numpy as np
    import torch

    from netinv.core import expect_regular
    from netinv.data import read_images

    if path.suffix != ".npz":
        expect_pictures(path, image_shape)
        return read_images(path, image_shape)
    try:
        expect_regular(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["images"])
    except (OSError, MemoryError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is no file of netinv sample ({error}): draw it again.") from None
