"""The library's inversion against the obvious loop of ``baseline.py``, in turn, in one run.

``python benchmarks/inversion.py`` measures steps on 28x28x1 and 32x32x3; with ``--data data/mnist --models
models/mnist``, which ``make repro DATASETS=mnist`` leaves, also the time to a goal, and the training of the classifier.
It prints a Markdown table and writes ``benchmarks/inversion.json``. It runs on a GPU where there is one.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import baseline
import torch
from torch import nn

from netinv.checkpoint import load_classifier
from netinv.classifiers import Classifier, ConvClassifierConfig, build_classifier, freeze
from netinv.conditioning import sample_condition
from netinv.data import channel_statistics, load_spec, load_split
from netinv.generator import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, invert
from netinv.training import ClassifierTrainingConfig, predict, train_classifier

STANDARD = InversionConfig(steps=400, batch_size=64, log_every=5)
ROBUST = InversionConfig(
    steps=600,
    batch_size=64,
    sharpness=(10.0, 10.0),
    alpha=0.1,
    gamma=1.0,
    total_variation=0.3,
    pixel_statistics=1.0,
    shift=2,
    perturbation="pgd",
    epsilon=0.2,
    log_every=5,
)
CONFIGS = {"standard": STANDARD, "robust": ROBUST}
BLOCK = 5
"""Steps between two turns, and between two looks at the clock."""


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def trainings(
    classifier: Classifier, variant: str, steps: int | None = None
) -> dict[str, tuple[nn.Module, Iterator[Any]]]:
    """Both contenders, each a generator and an iterator that trains it by ``BLOCK`` steps at a time."""
    config = CONFIGS[variant] if steps is None else CONFIGS[variant].model_copy(update={"steps": steps})
    torch.manual_seed(0)
    ours = ConditionedGenerator(GeneratorConfig(), classifier.num_classes, classifier.image_shape)
    plain = baseline.Generator(classifier.num_classes, classifier.image_shape)
    ours.to(classifier.device), plain.to(classifier.device)

    def blocks() -> Iterator[int]:
        steps = baseline.invert(plain, classifier, config.steps, config.batch_size, variant == "robust")
        return (step for step in steps if step % BLOCK == 0)

    return {"netinv": (ours, invert(ours, classifier, config, seed=0)), "baseline": (plain, blocks())}


def step_times(classifier: Classifier, variant: str, turns: int) -> dict[str, Any]:
    """Samples a second of both, in turn."""
    times: dict[str, list[float]] = {"netinv": [], "baseline": []}
    contenders = trainings(classifier, variant, steps=BLOCK * (turns + 1))
    for turn in range(turns + 1):
        for name, (_, steps) in contenders.items():
            synchronize(classifier.device)
            start = time.perf_counter()
            next(steps)
            synchronize(classifier.device)
            if turn:  # the first one warms up
                times[name].append((time.perf_counter() - start) / BLOCK)
    rates = {name: [STANDARD.batch_size / value for value in values] for name, values in times.items()}
    ratios = [ours / plain for ours, plain in zip(rates["netinv"], rates["baseline"], strict=True)]
    return {
        "samples_per_second": {name: spread(values) for name, values in rates.items()},
        "ratio": spread(ratios),
        "turns": turns,
    }


@torch.no_grad()
def accuracy(generator: nn.Module, judge: Callable[[torch.Tensor], torch.Tensor], variant: str) -> float:
    """Share of 1,000 fresh images, in evaluation mode, that a judge reads as what they were drawn for."""
    device = next(generator.parameters()).device
    rng = torch.Generator(device).manual_seed(1)
    condition = sample_condition(1000, 10, rng, CONFIGS[variant].sharpness)
    latent = torch.randn(1000, 64, generator=rng, device=device)
    generator.eval()
    label = torch.cat(
        [
            judge(generator(*part)).argmax(dim=1)
            for part in zip(latent.split(100), condition.vector.split(100), strict=True)
        ]
    )
    generator.train()
    return float((label == condition.label).float().mean())


def times_to_goal(classifier: Classifier, judge: nn.Module, variant: str, goal: float) -> dict[str, float | None]:
    """Seconds of training until the judge's accuracy reaches the goal, looks at it not counted; None if it never does.

    Both train in turn, a block of steps at a time. Each is looked at every 25 steps.
    """
    seconds = dict.fromkeys(("netinv", "baseline"), 0.0)
    reached: dict[str, float | None] = dict.fromkeys(seconds)
    contenders = trainings(classifier, variant)
    for block in range(1, CONFIGS[variant].steps // BLOCK + 1):
        for name, (generator, steps) in contenders.items():
            if reached[name] is not None:
                continue
            synchronize(classifier.device)
            start = time.perf_counter()
            next(steps)
            synchronize(classifier.device)
            seconds[name] += time.perf_counter() - start
            if block % 5 == 0 and accuracy(generator, judge, variant) >= goal:
                reached[name] = seconds[name]
    return {"goal": goal, **{f"{name}_seconds": value for name, value in reached.items()}}


def classifier_training(data: Path, device: torch.device, goal: float) -> dict[str, Any]:
    """Seconds until the pipeline's MNIST classifier reaches its goal on test images, judged after each epoch."""
    spec, train, test = load_spec(data), load_split(data, "train"), load_split(data, "test")
    mean, std = channel_statistics(train.images)
    torch.manual_seed(0)
    config = ConvClassifierConfig(channels=(16, 32), batch_norm=False)
    classifier = build_classifier(config, spec.num_classes, spec.image_shape, mean, std).to(device)
    training = ClassifierTrainingConfig(epochs=4, batch_size=128, shift=1, epsilon=0.05)
    seconds, start = 0.0, time.perf_counter()
    history = []
    for _ in train_classifier(classifier, train, training, seed=0):
        synchronize(device)
        seconds += time.perf_counter() - start
        logits, _ = predict(classifier.eval(), test.images)
        reached = float((logits.argmax(dim=1).cpu() == test.labels).float().mean())
        history.append({"seconds": seconds, "test_accuracy": reached})
        start = time.perf_counter()
    return {
        "goal": goal,
        "seconds": next((h["seconds"] for h in history if h["test_accuracy"] >= goal), None),
        "history": history,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="MNIST as the pipeline keeps it, such as data/mnist")
    parser.add_argument("--models", type=Path, help="its classifier and evaluator, such as models/mnist")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3, help="of the times to a goal")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cores": os.cpu_count(),
            "cpu": platform.processor() or platform.machine(),
            "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
            "threads": arguments.threads,
            "load_before": os.getloadavg()[0],
        },
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "steps": {},
    }
    print("| what | netinv | baseline | ratio (quartiles) |\n|---|---|---|---|")
    for shape in ((1, 28, 28), (3, 32, 32)):
        torch.manual_seed(0)
        mean, std = (0.3,) * shape[0], (0.3,) * shape[0]
        config = ConvClassifierConfig(channels=(16, 32), batch_norm=False)
        classifier = build_classifier(config, 10, shape, mean, std).to(device)
        freeze(classifier)
        for variant in CONFIGS:
            name = f"{variant}, {shape[1]}x{shape[2]}x{shape[0]}, samples a second"
            result = step_times(classifier, variant, arguments.turns)
            results["steps"][name] = result
            ours, plain = (result["samples_per_second"][key]["median"] for key in ("netinv", "baseline"))
            ratio = result["ratio"]
            print(
                f"| {name} | {ours:.0f} | {plain:.0f} | "
                f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) |",
                flush=True,
            )
    if arguments.data and arguments.models:
        classifier, evaluator = (load_classifier(arguments.models / n).to(device) for n in ("classifier", "evaluator"))
        freeze(classifier), freeze(evaluator)
        results["goals"] = {}
        for variant, judge, goal in (("standard", classifier, 0.99), ("robust", evaluator, 0.95)):
            runs = [times_to_goal(classifier, judge, variant, goal) for _ in range(arguments.repeats)]
            results["goals"][variant] = runs
            told = [[f"{run[f'{n}_seconds'] or float('nan'):.1f}" for run in runs] for n in ("netinv", "baseline")]
            judged = "inversion" if variant == "standard" else "evaluator"
            what = f"{variant}, MNIST, s to {goal} {judged} accuracy"
            print(f"| {what} | {', '.join(told[0])} | {', '.join(told[1])} | |", flush=True)
        training = classifier_training(arguments.data, device, 0.99)
        results["classifier"] = training
        print(f"| classifier, MNIST, s to 0.99 test accuracy | {training['seconds'] or float('nan'):.1f} | | |")
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
