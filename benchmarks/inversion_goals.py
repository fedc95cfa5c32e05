"""How soon there are good generators and a good classifier, parts of ``inversion.py``."""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from inversion_common import BLOCK, CONFIGS, Row, trainings
from measuring import timed, timed_epochs
from torch import Tensor, nn

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    build_classifier,
    freeze,
    load_classifier,
)
from netinv.data import channel_statistics, load_spec, load_split
from netinv.generators import condition_of, draw_condition

GOALS = {"standard": 0.99, "robust": 0.95}
"""Accuracy under the inverted classifier, and under the evaluator."""


@torch.no_grad()
def accuracy(generator: nn.Module, judge: Callable[[Tensor], Tensor], variant: str) -> float:
    """Share of 1,000 fresh images, in evaluation mode, that a judge reads as what they were drawn for."""
    device = next(generator.parameters()).device
    rng = torch.Generator(device).manual_seed(1)
    sharpness = CONFIGS[variant].sharpness
    condition = condition_of(*draw_condition(1000, 10, sharpness, rng), sharpness)
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


def times_to_goal(classifier: Classifier, judge: nn.Module, variant: str, seed: int) -> dict[str, Any]:
    """Seconds of training until the judge's accuracy reaches the goal, looks at it not counted; None if it never does.

    Both train in turn, a block of steps at a time. Each is looked at every 25 steps, and trained to the preset's end at
    most.
    """
    seconds = dict.fromkeys(("netinv", "baseline"), 0.0)
    reached: dict[str, float | None] = dict.fromkeys(seconds)
    best = dict.fromkeys(seconds, 0.0)
    contenders = trainings(classifier, variant, seed)
    for block in range(1, CONFIGS[variant].steps // BLOCK + 1):
        for name, (generator, steps) in contenders.items():
            if reached[name] is not None:
                continue
            seconds[name] += timed(partial(next, steps), classifier.device)
            if block % 5 == 0:
                best[name] = max(best[name], accuracy(generator, judge, variant))
                if best[name] >= GOALS[variant]:
                    reached[name] = seconds[name]
    return {"seed": seed, "reached_s": reached, "trained_s": seconds, "best_accuracy": best}


def goals_part(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Any, Row]]:
    """Both variants on MNIST. Where the obvious loop never arrives, the ratio is at least what is told."""
    classifier, evaluator = (
        load_classifier(arguments.models / name).to(device) for name in (arguments.classifier, "evaluator")
    )
    freeze(classifier), freeze(evaluator)
    for variant, judge, judged in (("standard", classifier, "inversion"), ("robust", evaluator, "evaluator")):
        runs = [times_to_goal(classifier, judge, variant, seed) for seed in range(arguments.repeats)]
        ratios = [
            run["trained_s"]["baseline"] / run["reached_s"]["netinv"] if run["reached_s"]["netinv"] else None
            for run in runs
        ]
        cells = [
            ", ".join(
                f"{run['reached_s'][name]:.1f}"
                if run["reached_s"][name]
                else f"not within {run['trained_s'][name]:.0f} (best {run['best_accuracy'][name]:.3f})"
                for run in runs
            )
            for name in ("netinv", "baseline")
        ]
        all_arrive = all(run["reached_s"]["baseline"] for run in runs)
        yield (
            variant,
            {"goal": GOALS[variant], "runs": runs, "ratios": ratios, "baseline_always_arrives": all_arrive},
            (
                f"{variant}, MNIST: seconds to {GOALS[variant]} {judged} accuracy, a seed each",
                *cells,
                ", ".join(
                    f"{'' if run['reached_s']['baseline'] else 'over '}{ratio:.2f}" if ratio else "-"
                    for run, ratio in zip(runs, ratios, strict=True)
                ),
            ),
        )


def classifier_part(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Any, Row]]:
    """Seconds until the pipeline's MNIST classifier reaches its goal on test images, judged after each epoch."""
    data = arguments.data
    spec, train, test = load_spec(data), load_split(data, "train"), load_split(data, "test")
    mean, std = channel_statistics(train.images)
    torch.manual_seed(0)
    config = ConvClassifierConfig(channels=(16, 32), batch_norm=False)
    classifier = build_classifier(config, spec.num_classes, spec.image_shape, mean, std).to(device)
    training = ClassifierTrainingConfig(epochs=4, batch_size=128, shift=1, epsilon=0.05)
    history = timed_epochs(classifier, train, test, training)
    goal = next((record["seconds"] for record in history if record["test_accuracy"] >= 0.99), None)
    yield (
        "mnist",
        {"seconds_to_0.99": goal, "history": history},
        ("classifier, MNIST: seconds to 0.99 test accuracy", f"{goal:.1f}" if goal else "not reached", "", ""),
    )
