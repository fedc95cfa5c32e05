"""Stage ``invert``: train the generators of a variant as independent Ray work."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pipeline.stage import replaced, stage_command, write_csv, write_text

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from netinv.adapters import AdaptedClassifier
    from netinv.classifiers import Classifier
    from netinv.generator import ConditionedGenerator, GeneratorConfig
    from netinv.inversion import InversionConfig

SNAPSHOTS = 5
"""Sample grids drawn over a generator's training, the untrained one not counted."""
COLUMNS = 8
"""Images of each class in such a grid."""
MAX_ROWS = 20
"""Classes in such a grid."""


class Event(NamedTuple):
    """What a generator's training tells while it runs, and at its end."""

    record: dict[str, float]
    grid: "np.ndarray[Any, Any] | None" = None
    """uint8, (H, W) or (H, W, 3)."""
    weights: "dict[str, Tensor] | None" = None


def train_generator(
    classifier: "Classifier | AdaptedClassifier", architecture: "GeneratorConfig", config: "InversionConfig", seed: int
) -> Iterator[Event]:
    """One generator from its seed, on a GPU if this worker was given one. Runs on any node, needs no file."""
    import torch

    from netinv.classifiers import freeze
    from netinv.generator import ConditionedGenerator
    from netinv.inversion import invert

    device = "cuda" if torch.cuda.is_available() else "cpu"
    freeze(classifier).to(device)
    torch.manual_seed(seed)
    generator = ConditionedGenerator(architecture, classifier.num_classes, classifier.image_shape).to(device)
    next_snapshot = 0.0
    for record in invert(generator, classifier, config, seed):
        grid = None
        if record["step"] >= next_snapshot:
            grid = _sample_grid(generator, config.sharpness)
            next_snapshot += config.steps / SNAPSHOTS
        weights = None
        if record["step"] == config.steps:
            weights = {name: tensor.cpu() for name, tensor in generator.state_dict().items()}
        yield Event(record, grid, weights)


def _sample_grid(generator: "ConditionedGenerator", sharpness: tuple[float, float]) -> "np.ndarray[Any, Any]":
    """The same draws at every call: a row for each class."""
    import torch

    from netinv.sampling import draw, grid

    rows = min(generator.num_classes, MAX_ROWS)
    latent, vector = draw(
        rows * COLUMNS,
        latent_dim=generator.config.latent_dim,
        num_classes=generator.num_classes,
        seed=0,
        sharpness=sharpness,
        labels=[row for row in range(rows) for _ in range(COLUMNS)],
    )
    device = next(generator.parameters()).device
    training = generator.training
    with torch.no_grad():
        images = generator.eval()(torch.from_numpy(latent).to(device), torch.from_numpy(vector).to(device))
    generator.train(training)
    pixels = grid([images.cpu().numpy()], rows * COLUMNS, generator.image_shape, COLUMNS)
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


class Progress:
    """For the person who waits: a bar on a terminal, a line every 20 seconds in a log."""

    def __init__(self, title: str, num_generators: int, steps: int) -> None:
        from tqdm import tqdm

        self._title, self._steps = title, [0] * num_generators
        self._total = num_generators * steps
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm(total=self._total, desc=title, unit="step", disable=None)

    def update(self, index: int, record: dict[str, float]) -> None:
        """Count a generator's progress."""
        step = int(record["step"])
        self._bar.set_postfix_str(f"accuracy {record['accuracy']:.3f}", refresh=False)
        self._bar.update(step - self._steps[index])
        self._steps[index] = step
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > 20:
            self._last_line = now
            done = sum(self._steps) / self._total
            left = (now - self._start) * (1 - done) / done
            print(f"{self._title}: {done:.0%}, accuracy {record['accuracy']:.3f}, {left:.0f} s left", file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


@click.command()
@click.argument("dataset")
@click.argument("variant", type=click.Choice(["standard", "robust"]))
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Checkpoint of the classifier.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the generators.")
@click.option("--metrics", type=click.Path(path_type=Path), required=True, help="JSON file for the metrics.")
@click.option("--plots", type=click.Path(path_type=Path), required=True, help="CSV file for the training curves.")
@stage_command
def main(dataset: str, variant: str, model: Path, out: Path, metrics: Path, plots: Path) -> None:
    """Invert the classifier of DATASET with the generators of VARIANT (standard or robust)."""
    from netinv.adapters import AdaptedClassifier
    from netinv.checkpoint import save_generator
    from netinv.errors import InputError
    from netinv.generator import ConditionedGenerator
    from netinv.imported import load_checkpoint
    from pipeline import distributed, tracking
    from pipeline.params import load_params

    params = load_params()
    inversion = params.for_dataset(dataset).invert
    common, config = inversion.common, getattr(inversion, variant)
    classifier = load_checkpoint(model)
    if config.pixel_statistics and isinstance(classifier, AdaptedClassifier) and classifier.config.mean is None:
        raise InputError(
            f"invert.{variant}.pixel_statistics needs the mean and std of the training images: give them to "
            "train.classifier.source.adapter, or set it to 0."
        )
    address = os.environ.get("RAY_ADDRESS")
    distributed.check_address(address)
    seeds = [common.seed + i for i in range(common.num_generators)]
    progress = None
    histories: list[list[dict[str, float]]] = [[] for _ in seeds]
    with ExitStack() as stack:
        folder = stack.enter_context(replaced(out))
        run = stack.enter_context(
            tracking.stage_run(
                "invert",
                dataset=dataset,
                variant=variant,
                params={"common": common.model_dump(mode="json"), variant: config.model_dump(mode="json")},
                inputs=[Path("runs/train") / f"{dataset}-classifier.json"],
            )
        )
        stack.enter_context(distributed.cluster(address))
        children = [
            stack.enter_context(run.child(f"generator {i}", params={"seed": seed, **config.model_dump(mode="json")}))
            for i, seed in enumerate(seeds)
        ]
        progress = Progress(f"invert {dataset} {variant}", len(seeds), config.steps)
        stack.callback(progress.close)
        events = distributed.scatter(
            train_generator,
            seeds,
            (classifier, common.generator, config),
            params.ray.num_cpus,
            params.ray.num_gpus,
        )
        for index, event in events:
            step = int(event.record["samples"])
            if histories[index] and event.record["step"] <= histories[index][-1]["step"]:
                continue  # the worker died and its work was done again: these numbers are known already
            histories[index].append(event.record)
            progress.update(index, event.record)
            terms = {f"invert/{name}": value for name, value in event.record.items() if name != "samples"}
            children[index].log_metrics(terms, step=step)
            if event.grid is not None:
                children[index].log_image(event.grid, key="samples", step=step)
            if event.weights is not None:
                generator = ConditionedGenerator(common.generator, classifier.num_classes, classifier.image_shape)
                generator.load_state_dict(event.weights)
                save_generator(folder / str(index), generator)
                children[index].log_artifact(folder / str(index), folder="checkpoint")
        last = [history[-1]["accuracy"] for history in histories]
        run.log_metrics({"invert/accuracy": sum(last) / len(last)}, step=config.steps * config.batch_size)
        for index, history in enumerate(histories):
            write_csv(folder / str(index) / "history.csv", history)
        write_csv(plots, [{"generator": i, **record} for i, history in enumerate(histories) for record in history])
        write_text(metrics, json.dumps({"batch_accuracy": sum(last) / len(last), "generators": len(last)}) + "\n")
    print(
        f"invert {dataset} {variant}: {len(seeds)} generators, batch accuracy {min(last):.3f} or more", file=sys.stderr
    )


if __name__ == "__main__":
    main()
