"""How soon a GPU has good generators, and what could make it faster, parts of ``gpu.py``."""

import copy
import os
from collections.abc import Iterator
from functools import partial

import torch
from gpu_common import BLOCK, CONFIGS, Options, Row, fresh_generator, tf32_allowed
from measuring import timed, timed_epochs
from torch import nn

from netinv.classifiers import (
    Classifier,
    ClassifierConfig,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    ResidualClassifierConfig,
    build_classifier,
    freeze,
)
from netinv.data import Dataset, FetchConfig, channel_statistics, fetch_dataset
from netinv.generators import ConditionedGenerator, draw_images
from netinv.inversion import InversionConfig, InversionTraining


def _trained(
    architecture: ClassifierConfig, data: Dataset, config: ClassifierTrainingConfig, options: Options
) -> tuple[Classifier, list[dict[str, float]]]:
    """A classifier, and after each epoch the seconds of training and its test accuracy."""
    mean, std = channel_statistics(data.train.images)
    torch.manual_seed(0)
    shape = (int(data.train.images.shape[1]), int(data.train.images.shape[2]), int(data.train.images.shape[3]))
    classifier = build_classifier(architecture, len(data.classes), shape, mean, std).to(options.device)
    history = timed_epochs(classifier, data.train, data.test, config)
    freeze(classifier)
    return classifier, history


def goals(options: Options) -> Iterator[Row]:
    """MNIST: seconds until a classifier is trained, until it and a stranger read what is asked for."""
    data = fetch_dataset("digits" if options.small else "mnist", FetchConfig(mirror=_mirror(options)))
    epochs = (1, 1) if options.small else (5, 2)
    networks = []
    for name, architecture, config in (
        (
            "classifier",
            ConvClassifierConfig(channels=(16, 32), batch_norm=False),
            ClassifierTrainingConfig(epochs=epochs[0], batch_size=128, shift=1, epsilon=0.15),
        ),
        ("evaluator", ResidualClassifierConfig(), ClassifierTrainingConfig(epochs=epochs[1], batch_size=128)),
    ):
        network, history = _trained(architecture, data, config, options)
        networks.append(network)
        goal = next((record["seconds"] for record in history if record["test_accuracy"] >= 0.99), None)
        yield Row(
            f"{name}: seconds to 0.99 test accuracy; all {config.epochs} epochs",
            (f"{goal:.1f}" if goal else "not reached") + f"; {history[-1]['seconds']:.1f}",
            f"test accuracy {history[-1]['test_accuracy']:.4f}",
            {"history": history, "seconds_to_0.99": goal},
        )
    classifier, evaluator = networks
    wanted = (("standard", 0.99, classifier, "inversion", 2), ("robust", 0.95, evaluator, "evaluator", 4))
    for variant, goal, judge, judged, target in wanted:
        runs = []
        for seed in range(1 if options.small else 3):
            if options.left < 0:
                break
            runs.append(_time_to(goal, CONFIGS[variant], classifier, judge, seed, options))
        best = ", ".join(f"{run['best']:.3f}" for run in runs)
        told = [f"{run['reached']:.2f}" if run["reached"] else f"not in {run['trained']:.1f}" for run in runs]
        yield Row(
            f"{variant}: seconds to {goal} {judged} accuracy, a seed each",
            ", ".join(told) or "time was up",
            f"best {best}; wanted on a GPU: {target} s",
            {"goal": goal, "runs": runs},
        )


def _mirror(options: Options) -> str | None:
    return str(options.mirror) if options.mirror else os.environ.get("NETINV_MIRROR")


def _time_to(
    goal: float, usual: InversionConfig, classifier: Classifier, judge: nn.Module, seed: int, options: Options
) -> dict[str, float | None]:
    """Seconds of training until a judge reads so many of 1,000 fresh images as asked; looks are not counted."""
    config = usual.model_copy(update={"log_every": 10, **({"steps": 20, "batch_size": 8} if options.small else {})})
    generator = fresh_generator(classifier.image_shape, seed, options.device)
    records = iter(InversionTraining(generator, classifier, config, seed))
    seconds, best, reached = 0.0, 0.0, None
    for _ in range(config.steps // config.log_every):
        seconds += timed(partial(next, records), options.device)
        images, wanted = draw_images(generator, 1000, seed=1, sharpness=config.sharpness)
        with torch.no_grad():
            read = judge(images.to(options.device)).argmax(dim=1).cpu()
        best = max(best, float((read == wanted.argmax(dim=1).cpu()).float().mean()))
        if best >= goal:
            reached = seconds
            break
        if options.left < 0:
            break
    return {"reached": reached, "trained": seconds, "best": best}


def fast(options: Options) -> Iterator[Row]:
    """Ways to compute, of one generator, against torch's default: steps a second, and what the training comes to.

    ``compiled`` is ``torch.compile`` in the mode ``reduce-overhead``, which records CUDA graphs, of the generator and
    of the classifier's layers; the loss and the optimizer stay as they are.
    """
    data = fetch_dataset("digits" if options.small else "mnist", FetchConfig(mirror=_mirror(options)))
    training = ClassifierTrainingConfig(epochs=1 if options.small else 2, batch_size=128, shift=1, epsilon=0.15)
    network, _ = _trained(ConvClassifierConfig(channels=(16, 32), batch_norm=False), data, training, options)
    backend = {"backend": "eager"} if options.small else {"mode": "reduce-overhead"}
    usual: float | None = None
    for name, precision, tf32, compiled in (
        ("the default, tf32 in convolutions", "float32", (True, False), False),
        ("no tf32", "float32", (False, False), False),
        ("tf32 in products too", "float32", (True, True), False),
        ("bfloat16", "bfloat16", (True, True), False),
        ("tf32 in products too, compiled", "float32", (True, True), True),
        ("bfloat16, compiled", "bfloat16", (True, True), True),
    ):
        if options.left < 0:
            yield Row(name, "not measured", "time was up", {})
            continue
        changes = {"precision": precision, "log_every": BLOCK} | (
            {"steps": 20, "batch_size": 8} if options.small else {}
        )
        config = CONFIGS["standard"].model_copy(update=changes)
        classifier = copy.deepcopy(network)
        generator = fresh_generator(classifier.image_shape, 0, options.device)
        if compiled:
            generator.compile(**backend)
            classifier.body.compile(**backend)
        with tf32_allowed(*tf32):
            # A whole short training compiles, for a dropout too that is another number at each step of its second half.
            short = config.model_copy(update={"steps": 2 * BLOCK})
            list(InversionTraining(generator, classifier, short, seed=0))
            generator.load_state_dict(fresh_generator(classifier.image_shape, 0, options.device).state_dict())
            work = iter(InversionTraining(generator, classifier, config, seed=0))
            seconds = timed(partial(list, work), options.device)
        usual = usual or seconds
        with torch.no_grad():
            images, wanted = draw_images(_bare(generator), 1000, seed=1, sharpness=config.sharpness)
            read = network(images.to(options.device)).argmax(dim=1).cpu()
        accuracy = float((read == wanted.argmax(dim=1)).float().mean())
        yield Row(
            f"standard, {name}: steps a second, accuracy at the end",
            f"{config.steps / seconds:,.1f}, {accuracy:.3f}",
            f"{usual / seconds:.2f} times the default",
            {"steps_per_second": config.steps / seconds, "accuracy": accuracy, "ratio": usual / seconds},
        )


def _bare(generator: ConditionedGenerator) -> ConditionedGenerator:
    """The same weights, not compiled."""
    plain = fresh_generator(generator.image_shape, 0, next(generator.parameters()).device)
    plain.load_state_dict(generator.state_dict())
    return plain.eval()
