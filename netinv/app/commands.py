"""The subcommands of ``netinv`` for a classifier of one's own: check, invert, evaluate, report, export."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from netinv.app.messages import (
    format_check,
    pixel_vendi,
    print_evaluation,
    print_inversion,
    print_next,
    warn_of_order,
    warn_of_random_weights,
    warnings_in_lines,
)
from netinv.app.options import as_json, read_data, read_subject, source_options, subject_options
from netinv.app.parsing import PATH, parse_classes, parse_pairs, parse_source
from netinv.core import VARIANTS, InputError


@click.command()
@source_options
@click.option("--data", type=PATH, help="Labelled images: a data set, or a folder of images.")
@as_json
def check(data: Path | None, as_json: bool, **options: Any) -> None:
    """Try MODEL out before the work, and tell the usual mistakes. Exit status 1 where inversion would be in vain."""
    from netinv.classifiers import check_classifier, load_network

    source, device = parse_source(options)
    network = load_network(source, device)
    warn_of_random_weights(source)
    dataset = None if data is None else read_data(data, network.image_shape)
    if data is not None and dataset is not None:
        warn_of_order(source.model, data, dataset.classes)
    labelled = None if dataset is None else dataset.test
    report = check_classifier(network.module, network.image_shape, network.num_classes, network.adapter, labelled)
    print(report.model_dump_json(indent=2) if as_json else format_check(source.model, report))
    if report.ok and not as_json:
        print_next("No error was found. Next: netinv invert, with the options of the model and --out")
    sys.exit(0 if report.ok else 1)


@click.command()
@source_options
@click.option(
    "--variant",
    type=click.Choice(VARIANTS),
    default="standard",
    show_default=True,
    help="What is asked for: images that this network reads as asked, or that others read, too.",
)
@click.option("--steps", type=click.IntRange(1), help="Steps of the training.  [default: the variant's]")
@click.option("--set", "settings", multiple=True, help="[generator.]NAME=VALUE; repeat it. A wrong NAME lists all.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Fixes weights and draws.")
@click.option(
    "--attempts",
    default=2,
    show_default=True,
    type=click.IntRange(1),
    help="How often it is tried at most, while a class cannot be drawn.",
)
@click.option(
    "--max-hours",
    default=12.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="What one try may take; more is refused, by an estimate from one step.",
)
@click.option("--classes", help="Names of the classes in label order, such as red,blue.  [default: their numbers]")
@click.option(
    "--out",
    required=True,
    type=PATH,
    help="Folder for the trained generator; an earlier inversion there is replaced.",
)
@as_json
def invert(
    variant: str,
    steps: int | None,
    settings: tuple[str, ...],
    seed: int,
    attempts: int,
    max_hours: float,
    classes: str | None,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a generator that draws images of any class of MODEL, and show them in OUT/grid.png.

    Ends with status 3 if some class could not be drawn.
    """
    from netinv.app.api import invert as invert_classifier
    from netinv.app.api import settings_of
    from netinv.app.inversions import DoubtfulClassifier, MissingClasses
    from netinv.app.records import FILES, placed, save_somewhere
    from netinv.classifiers import load_classifier_from
    from netinv.core import check_folder
    from netinv.generators import GeneratorConfig
    from netinv.inversion import InversionConfig, variant_config

    check_folder(out, replaces=FILES)
    names = None if classes is None else parse_classes(classes)
    values = parse_pairs(settings, "--set")
    if steps is not None and "steps" in values:
        raise InputError("Both --steps and --set steps were given: give one of them.")
    architecture = {name.removeprefix("generator."): value for name, value in values.items() if "." in name}
    changes = {name: value for name, value in values.items() if "." not in name} | ({"steps": steps} if steps else {})
    InversionConfig.parse(variant_config(variant).model_dump(mode="json") | changes, where="--set")
    generator = GeneratorConfig.parse(architecture, where="--set generator")
    source, device = parse_source(options)
    warn_of_random_weights(source)
    classifier = load_classifier_from(source, device)
    config, left_out = settings_of(variant, classifier, changes, "--set")
    if left_out:
        print(f"note: {left_out}", file=sys.stderr)
    with warnings_in_lines(MissingClasses, DoubtfulClassifier):
        inversion = invert_classifier(
            classifier,
            image_shape=classifier.image_shape,
            config=config,
            generator=generator,
            classes=names,
            seed=seed,
            attempts=attempts,
            max_hours=max_hours,
        )
    inversion = replace(inversion, source=placed(source))
    save_somewhere(inversion.save, out)
    print_inversion(inversion, out, as_json)


@click.command()
@source_options
@subject_options
@click.option("--num-samples", default=2048, show_default=True, type=click.IntRange(10), help="Images drawn of each.")
@click.option("--out", required=True, type=PATH, help="New folder for measures and pictures.")
@as_json
def evaluate(
    folders: tuple[Path, ...],
    data: Path | None,
    evaluator: str | None,
    evaluator_set: tuple[str, ...],
    num_samples: int,
    seed: int,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure generators of MODEL. What cannot be measured without --data says so; with it, an evaluator is trained."""
    from netinv.app.evaluating import evaluate as measure
    from netinv.app.inversions import classifier_vendi
    from netinv.app.records import save_somewhere
    from netinv.core import batch_size_for, check_folder, new_folder, save_csv
    from netinv.evaluation import MIN_POOL, EvaluationConfig, save_evaluation

    check_folder(out)
    config = EvaluationConfig.parse({"num_samples": num_samples, "seed": seed}, where="evaluate")
    subject = read_subject(folders, data, evaluator, evaluator_set, seed, options, alike=True)
    inversions, (train, test) = subject.inversions, subject.splits
    # Of images of this size, as many as take the memory of the default's small ones.
    pool = max(MIN_POOL, batch_size_for(config.privacy_pool, subject.classifier.image_shape))
    config = config.model_copy(update={"privacy_pool": pool})
    evaluation = measure(
        subject.classifier,
        inversions,
        config=config,
        evaluator=subject.evaluator,
        train=train,
        test=test,
        classes=subject.classes,
    )
    curves = [{"generator": i, **record} for i, inversion in enumerate(inversions) for record in inversion.history]
    settings = subject.source.model_dump(mode="json", exclude_defaults=True)
    settings |= {name: str(path) for name, path in (("data", data), ("evaluator", evaluator)) if path is not None}
    settings |= {"evaluator_set": " ".join(evaluator_set)} if evaluator_set else {}
    settings |= inversions[0].generator.config.model_dump(mode="json")
    settings |= inversions[0].config.model_dump(mode="json")
    seeds = [inversion.seed for inversion in inversions]
    settings |= {"seeds": seeds} if None not in seeds else {}

    def save(place: Path) -> None:
        with new_folder(place) as folder:
            save_evaluation(folder, evaluation, train, test)
            save_csv(folder / "curves.csv", curves)
            (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    save_somewhere(save, out)
    vendi = [classifier_vendi(inversion, subject.classifier) for inversion in inversions]
    if as_json:
        headline = {name: value.model_dump(mode="json") for name, value in evaluation.results.headline.items()}
        pixels = pixel_vendi(evaluation.results).model_dump(mode="json")
        print(json.dumps({"out": str(out), "headline": headline, "classifier_vendi": vendi, "vendi_pixels": pixels}))
        return
    print_evaluation(evaluation.results, vendi)
    print_next(f"Measures and pictures are in {out}. Next: netinv report {out} --out report.html")


@click.command()
@click.argument("folders", nargs=-1, required=True, type=PATH)
@click.option("--out", required=True, type=PATH, help="HTML file.")
@click.option("--interpretation", type=PATH, help="Folder of `netinv interpret`, for a chapter.")
@as_json
def report(folders: tuple[Path, ...], out: Path, interpretation: Path | None, as_json: bool) -> None:
    """Write one self-contained page on all FOLDERS of `netinv evaluate`, each under its name; models apart."""
    from netinv.core import check_file, write_text
    from netinv.report import read_evaluations, render

    check_file(out, ".html", ".htm")
    page = render(read_evaluations(folders, interpretation))
    write_text(out, page)
    size = out.stat().st_size
    print(json.dumps({"out": str(out), "bytes": size}) if as_json else f"{out}: {size / 1e6:.1f} MB")


@click.command()
@click.argument("folder", type=PATH)
@click.option("--out", required=True, type=PATH, help="ONNX file.")
@as_json
def export(folder: Path, out: Path, as_json: bool) -> None:
    """Write the generator in FOLDER as an ONNX file, which `netinv sample` draws from without torch."""
    from netinv.app.inversions import Inversion
    from netinv.core import check_file

    check_file(out, ".onnx")
    Inversion.load(folder).to_onnx(out)
    if as_json:
        print(json.dumps({"out": str(out), "bytes": out.stat().st_size}))
        return
    print(f"{out}: written and checked")
    print_next(f"Next: netinv sample {out} --out images.png")
