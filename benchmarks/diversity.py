"""Ways to more than one picture of a class, each against the preset, which is not bent: ``benchmarks/diversity.md``.

``python benchmarks/diversity.py mnist --project DIR`` takes the classifier and the training images from a folder in
which the pipeline has trained, and trains one generator for each way and seed. What is measured is a *selector*'s
word, a network of another kind that is trained here on training images, and real images are training images: evaluator
and test images take no part. Rows are added to the JSON lines of ``--out``, so that several processes can share the
work, and the table of all of them is written beside it. A row holds its settings: what is there of the same settings
and seed is not made again, and rows of other settings, such as of another day's preset, are another line of the table.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from unittest import mock

import torch
from diversity_ways import OTHERS, WAYS, Batch, Way
from measuring import add_row, read_rows
from torch import Tensor

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    build_classifier,
    freeze,
    load_classifier,
    save_classifier,
    train_classifier,
)
from netinv.core import write_text
from netinv.data import LabelledImages, channel_statistics, load_split
from netinv.evaluation import EvaluationConfig, measure_images
from netinv.generators import ConditionedGenerator, GeneratorConfig, draw_images
from netinv.inversion import InversionConfig, invert
from netinv.results import Estimate
from pipeline.params import load_params


def selector_of(folder: Path, train: LabelledImages, epochs: int) -> Classifier:
    """The network that ways are chosen by, trained where the folder does not have it yet."""
    if not (folder / "selector").exists():
        torch.manual_seed(7)
        channels, height, width = train.images.shape[1:]
        config = ConvClassifierConfig(channels=(16, 32, 64))
        network = build_classifier(
            config, int(train.labels.max()) + 1, (channels, height, width), *channel_statistics(train.images)
        )
        settings = ClassifierTrainingConfig(epochs=epochs, batch_size=128)
        for record in train_classifier(network, train, settings, 7):
            print(f"selector: epoch {record['epoch']:.0f}, accuracy {record['accuracy']:.4f}", flush=True)
        save_classifier(folder / "selector", network)
    return load_classifier(folder / "selector")


def configured(way: Way, preset: Any) -> tuple[InversionConfig, GeneratorConfig]:
    """The settings of a way."""
    config = InversionConfig.model_validate({**preset.robust.model_dump(), **way.settings})
    return config, preset.common.generator.model_copy(update={**PLAIN, **way.generator})


def trained(
    way: Way, config: InversionConfig, architecture: GeneratorConfig, classifier: Classifier, seed: int
) -> tuple[ConditionedGenerator, float]:
    """A generator, and the processor seconds that it took."""
    torch.manual_seed(seed)
    generator = ConditionedGenerator(architecture, classifier.num_classes, classifier.image_shape)
    if way.prepare:
        way.prepare(generator)
    term = way.term(classifier) if way.term else None
    loop = sys.modules[invert.__module__]  # what it calls a way may change, and no front door has that
    plain = loop.inversion_loss

    def weighed(batch: Batch, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = plain(batch, *arguments)
        return (loss + term(batch) if term else loss), terms

    step = loop.step_batch

    def seen(generate: Any, network: Classifier, config: InversionConfig, draws: Any, *arguments: Any) -> Batch:
        view = way.view(network, draws.latent) if way.view else network
        return step(generate, view, config, draws, *arguments)

    begun = time.process_time()
    with mock.patch.multiple(loop, inversion_loss=weighed, step_batch=seen):
        for _ in invert(generator, classifier, config, seed):
            pass
    return generator, time.process_time() - begun


PLAIN = {"bending": 0.0, "softening": 0.0, "toning": 0.0, "negatives": False}
"""What ways may add is taken off the preset first."""
MEASURES = {
    "inversion_accuracy": "own",
    "evaluator_accuracy": "selector",
    "vendi_centred_ratio": "centred",
    "vendi_pixels_ratio": "pixels",
    "density": "density",
    "coverage": "coverage",
    "student_accuracy": "student",
}


def measured(
    images: Tensor, label: Tensor, classifier: Classifier, selector: Classifier, real: LabelledImages
) -> dict[str, float]:
    """The measures by the selector, with a student that sees images shifted and distorted."""
    student = ClassifierTrainingConfig(epochs=20, batch_size=128, shift=2, distortion=0.3)
    config = EvaluationConfig(
        num_samples=2000, epsilons=(0.0,), robust_epsilon=0.0, resamples=100, distillation=None, student=student
    )
    row = measure_images({"way": (images, label)}, classifier, selector, real, config)["way"]
    values = {name: value.value for name in MEASURES if isinstance(value := row.measures[name], Estimate)}
    with torch.no_grad():
        read = torch.cat([selector(part).argmax(dim=1) for part in torch.split(images, 500)])
    return values | {"worst": min(float((read[label == k] == k).float().mean()) for k in range(classifier.num_classes))}


KEY = ("data", "way", "settings", "seed")
"""What makes two rows the same."""


def key(row: dict[str, Any]) -> list[Any]:
    """Of a row; rows of earlier days hold no settings."""
    return [row.get(name) for name in KEY]


def groups(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows that differ in their seeds alone, in the order of their first."""
    kinds = [key(row)[:-1] for row in rows]
    firsts = [i for i, kind in enumerate(kinds) if kinds.index(kind) == i]
    return [[row for row, kind in zip(rows, kinds, strict=True) if kind == kinds[i]] for i in firsts]


def named(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """A row's way, and where others of this way have other settings, what differs between them."""
    others = [other.get("settings") for other in rows if (other["data"], other["way"]) == (row["data"], row["way"])]
    own, known = row.get("settings"), [settings for settings in others if settings is not None]
    if own is None:
        return f"{row['way']} (settings not kept)" if known else row["way"]
    differing = [f"{name} {own[name]}" for name in own if any(other.get(name) != own[name] for other in known)]
    return f"{row['way']} ({', '.join(differing)})" if differing else row["way"]


def told(rows: list[dict[str, Any]]) -> str:
    """A Markdown table, mean and standard deviation over the seeds."""
    columns = ["inversion_accuracy", "evaluator_accuracy", "worst", *list(MEASURES)[2:], "cpu_seconds"]
    names = [
        MEASURES.get(column, {"worst": "worst class", "cpu_seconds": "CPU s"}.get(column, "")) for column in columns
    ]
    lines = [f"| data | way | seeds | {' | '.join(names)} |", "|---" * (len(names) + 3) + "|"]
    for some in groups(rows):
        data, way = some[0]["data"], named(some[0], rows)
        cells = []
        for column in columns:
            values = [row[column] for row in some]
            places = 0 if column == "cpu_seconds" else 3
            cells.append(f"{mean(values):.{places}f}" + (f" ± {stdev(values):.{places}f}" if len(values) > 1 else ""))
        lines.append(f"| {data} | {way} | {len(some)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train and measure what was asked for, and write the table of all that there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--project", type=Path, required=True, help="folder in which the pipeline has trained")
    parser.add_argument("--ways", nargs="+", choices=WAYS | OTHERS, default=[*WAYS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--epochs", type=int, default=3, help="of the selector's training")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; rows are added")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    models = options.project / "models" / options.dataset
    preset = load_params(options.project / "params.yaml").for_dataset(options.dataset).invert
    train = load_split(options.project / "data" / options.dataset, "train")
    selector = selector_of(options.out.parent / options.dataset, train, options.epochs)
    some = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))[:2000]
    real = LabelledImages(train.images[some], train.labels[some])
    freeze(selector)
    for seed in options.seeds:
        for name in options.ways:
            way, classifier = (WAYS | OTHERS)[name], load_classifier(models / "classifier")  # anew: a way may watch it
            freeze(classifier)
            config, architecture = configured(way, preset)
            settings = config.model_dump(mode="json") | architecture.model_dump(mode="json")
            row = {"data": options.dataset, "way": name, "settings": settings, "seed": seed}
            if key(row) in map(key, read_rows(options.out)):
                continue
            generator, row["cpu_seconds"] = trained(way, config, architecture, classifier, seed)
            images, vector = draw_images(generator, 2000, seed=99, sharpness=preset.robust.sharpness)
            label = vector.argmax(dim=1)
            if way.drawn:
                images = way.drawn(images, label, classifier)
            row |= measured(images, label, classifier, selector, real)
            add_row(options.out, row)
            print(told([row]).splitlines()[-1], flush=True)
    rows = read_rows(options.out)
    write_text(options.out.with_suffix(".md"), told(rows))
    print(told(rows))


if __name__ == "__main__":
    main()
