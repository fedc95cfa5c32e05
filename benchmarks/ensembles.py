"""How each measure grows with the number of generators, all trained as one program.

``python benchmarks/ensembles.py digits --project DIR --out build/ensembles.json`` takes classifier, evaluator and data
from a folder after `make repro`, trains the robust variant ``--most`` times with other seeds as one program, and
measures ensembles of 1, 3, 10 and so many of them. An ensemble of any size shows equally many images, so that it is no
larger sample that makes a difference; small ones are measured several times, on other generators. It also writes a
table beside.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from netinv.classifiers import freeze, load_checkpoint
from netinv.core import write_text
from netinv.data import load_split
from netinv.evaluation import EvaluationConfig, measure_images
from netinv.generators import ConditionedGenerator, draw_images
from netinv.inversion import InversionTraining, JointTraining
from netinv.results import Estimate
from pipeline.params import load_params

MEASURES = (
    "inversion_accuracy",
    "evaluator_accuracy",
    "vendi_centred_ratio",
    "vendi_pixels_ratio",
    "density",
    "coverage",
    "student_accuracy",
)
SHOWN = ("vendi_centred_ratio", "density", "coverage", "student_accuracy")
"""Those in the picture."""
MOST_TIMES = 5
"""How often ensembles of one size are measured at most."""


def trained(options: argparse.Namespace, classifier: Any) -> tuple[list[ConditionedGenerator], float, Any]:
    """The generators, the processor seconds that all of them took, and their sharpness."""
    invert = load_params().for_dataset(options.dataset).invert
    config = invert.robust.model_copy(update={"steps": options.steps} if options.steps else {})
    trainings = []
    for seed in range(options.first_seed, options.first_seed + options.most):
        torch.manual_seed(seed)
        network = ConditionedGenerator(
            invert.common.architecture("robust"), classifier.num_classes, classifier.image_shape
        )
        trainings.append(InversionTraining(network, classifier, config, seed))
    begun = time.process_time()
    for records in JointTraining(trainings):
        print(f"step {records[0]['step']:.0f} of {config.steps}", flush=True)
    return [training.generator.eval() for training in trainings], time.process_time() - begun, config.sharpness


def subsets(most: int, size: int) -> list[range]:
    """Ensembles of a size that share no generator, a few of them."""
    return [range(start, start + size) for start in range(0, most - size + 1, size)][:MOST_TIMES]


def in_turn(parts: Sequence[Tensor], num: int) -> Tensor:
    """The first ``num`` rows, one of each part in turn: among any first ones each has as many, give or take one."""
    return torch.stack(list(parts), dim=1).flatten(0, 1)[:num]


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The measures of ensembles of every size."""
    models = options.project / "models" / options.dataset
    classifier, evaluator = load_checkpoint(models / "classifier"), load_checkpoint(models / "evaluator")
    freeze(classifier), freeze(evaluator)
    test = load_split(options.project / "data" / options.dataset, "test")
    generators, seconds, sharpness = trained(options, classifier)
    config = EvaluationConfig(epsilons=(0.0,), robust_epsilon=0.0, resamples=200, distillation=None)
    num = config.num_samples
    sizes = [size for size in (1, 3, 10, 30, 100) if size <= options.most]
    sets, members = {}, {}
    for size in sizes:
        for subset in subsets(options.most, size):
            parts = [draw_images(generators[i], -(-num // size), seed=1000 + i, sharpness=sharpness) for i in subset]
            images, vector = (in_turn(part, num) for part in zip(*parts, strict=True))
            sets[f"{size} from {subset.start}"] = images, vector.argmax(dim=1)
            members[f"{size} from {subset.start}"] = size
    rows = measure_images(sets, classifier, evaluator, test, config)
    found: dict[str, Any] = {}
    for size in sizes:
        some = [row.measures for name, row in rows.items() if members[name] == size]
        values = {m: [v.value for row in some if isinstance(v := row[m], Estimate)] for m in MEASURES}
        found[str(size)] = values
    about = {"dataset": options.dataset, "most": options.most, "images": num, "cpu_seconds": seconds}
    return about | {"torch": torch.__version__, "measures": found}


def told(results: dict[str, Any]) -> str:
    """A Markdown table: mean and standard deviation over the ensembles of a size."""
    lines = [f"| generators | ensembles | {' | '.join(map(spelt, MEASURES))} |", f"|{'---|' * (len(MEASURES) + 2)}"]
    for size, values in results["measures"].items():
        cells = [
            f"{mean(of):.3f}" + (f" ± {stdev(of):.3f}" if len(of) > 1 else "") if (of := values[name]) else ""
            for name in MEASURES
        ]
        lines.append(f"| {size} | {len(values[MEASURES[0]])} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def drawn(results: dict[str, Any], path: Path) -> None:
    """A picture of the curves: the mean of the ensembles of a size, and each of them as a dot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = [int(size) for size in results["measures"]]
    figure, axes = pyplot.subplots(1, len(SHOWN), figsize=(3 * len(SHOWN), 2.8), layout="constrained")
    for axis, name in zip(axes, SHOWN, strict=True):
        values = [of[name] for of in results["measures"].values()]
        axis.plot(sizes, list(map(mean, values)), color="#2b5d9c")
        for size, each in zip(sizes, values, strict=True):
            axis.plot([size] * len(each), each, "o", color="#2b5d9c", markersize=3, alpha=0.5)
        axis.set_xscale("log")
        axis.set_xticks(sizes, list(map(str, sizes)))
        axis.minorticks_off()
        axis.set_title(spelt(name), fontsize=10)
        axis.set_xlabel("generators", fontsize=9)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def spelt(name: str) -> str:
    """A measure's name for people."""
    return name.removesuffix("_ratio").replace("_", " ")


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--project", type=Path, required=True, help="folder in which the pipeline has run")
    parser.add_argument("--most", type=int, default=30, help="generators in all (30)")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--steps", type=int, help="in place of the preset's")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; the table is written beside it")
    parser.add_argument("--picture", type=Path, help="PNG file for the curves")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = measured(options)
    write_text(options.out, json.dumps(results, indent=1) + "\n")
    write_text(options.out.with_suffix(".md"), told(results))
    print(told(results))
    if options.picture:
        drawn(results, options.picture)


if __name__ == "__main__":
    main()
