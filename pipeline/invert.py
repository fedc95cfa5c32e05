"""Stage ``invert``: train the generators of a variant as independent Ray work."""

import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import netinv
from netinv.errors import InputError
from pipeline.stage import replaced, stage_command, verbose_option, write_csv, write_text

if TYPE_CHECKING:
    import numpy as np

    from netinv.adapters import AdaptedClassifier
    from netinv.classifiers import Classifier
    from netinv.generator import ConditionedGenerator, GeneratorConfig
    from netinv.inversion import InversionConfig, InversionTraining

CODE = Path(netinv.__file__).parent
SNAPSHOTS = 5
"""Sample grids drawn over a generator's training, the untrained one not counted."""
COLUMNS = 8
"""Images of each class in such a grid."""
MAX_ROWS = 20
"""Classes in such a grid."""
LINE_SECONDS = 20
"""Between two lines of progress in a log."""


class Event(NamedTuple):
    """What a generator's training tells while it runs, and at its end."""

    record: dict[str, float]
    grid: "np.ndarray[Any, Any] | None" = None
    """uint8, (H, W) or (H, W, 3)."""
    state: bytes | None = None
    """From where the training can be resumed, as torch saves it. The last one holds the trained generator."""


class Events(NamedTuple):
    """What generators that are trained as one program tell at the same step, one each."""

    each: tuple[Event, ...]

    @property
    def state(self) -> tuple[bytes, ...] | None:
        """The states of all, at a step after which they are kept."""
        return tuple(event.state for event in self.each if event.state is not None) or None


def train_generator(
    classifier: "Classifier | AdaptedClassifier",
    architecture: "GeneratorConfig",
    config: "InversionConfig",
    checkpoint_every: int,
    seed: int,
    state: bytes | None,
) -> Iterator[Event]:
    """One generator from its seed or a state, on a GPU if this worker was given one. Runs on any node, needs no file.

    In each of several workers of one ``torch.distributed`` group, it trains one generator for all of them.
    """
    training = _training(classifier, architecture, config, seed, state)
    before = training.step
    for record in training:
        wants_grid, wants_state = _due(before, training.step, config.steps, checkpoint_every)
        grid = _sample_grid(training.generator, config.sharpness) if wants_grid else None
        yield Event(record, grid, _saved(training.state_dict()) if wants_state else None)
        before = training.step


def train_generators(
    classifier: "Classifier | AdaptedClassifier",
    architecture: "GeneratorConfig",
    config: "InversionConfig",
    checkpoint_every: int,
    seeds: tuple[int, ...],
    states: tuple[bytes, ...] | None,
) -> Iterator[Events]:
    """Several generators as one program, from their seeds or from states of the same step; see the one above."""
    from netinv.joint import JointTraining

    joint = JointTraining(
        [
            _training(classifier, architecture, config, seed, state)
            for seed, state in zip(seeds, states or [None] * len(seeds), strict=True)
        ]
    )
    before = joint.step
    for records in joint:
        wants_grid, wants_state = _due(before, joint.step, config.steps, checkpoint_every)
        generators = [training.generator for training in joint.trainings]
        grids = [_sample_grid(g, config.sharpness) if wants_grid else None for g in generators]
        kept = map(_saved, joint.state_dicts()) if wants_state else [None] * len(seeds)
        yield Events(tuple(map(Event, records, grids, kept)))
        before = joint.step


def _training(
    classifier: "Classifier | AdaptedClassifier",
    architecture: "GeneratorConfig",
    config: "InversionConfig",
    seed: int,
    state: bytes | None,
) -> "InversionTraining":
    """A training on this worker's device, from its seed or a state."""
    import torch

    from netinv.classifiers import freeze
    from netinv.generator import ConditionedGenerator
    from netinv.inversion import InversionTraining
    from netinv.parallel import GlobalBatch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    freeze(classifier).to(device)
    torch.manual_seed(seed)
    generator = ConditionedGenerator(architecture, classifier.num_classes, classifier.image_shape).to(device)
    shared = GlobalBatch(config.batch_size) if torch.distributed.is_initialized() else None
    training = InversionTraining(generator, classifier, config, seed, shared)
    if state is not None:
        training.load_state_dict(load_state(state))
    return training


def _due(before: int, step: int, steps: int, checkpoint_every: int) -> tuple[bool, bool]:
    """Whether a grid is drawn, and whether the state is kept, at a step after the one ``before``."""

    def passed(interval: float) -> bool:
        return step // interval > before // interval

    return before == 0 or passed(steps / SNAPSHOTS), step == steps or passed(checkpoint_every)


def groups(steps: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Who is trained with whom: at most ``size`` generators, after the same number of steps.

    Example:
        >>> groups([0, 0, 100, 0], size=2)
        [(0, 1), (3,), (2,)]
    """
    result = []
    for step in sorted(set(steps)):
        alike = [index for index, done in enumerate(steps) if done == step]
        result += [tuple(alike[i : i + size]) for i in range(0, len(alike), size)]
    return result


def _saved(state: dict[str, Any]) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def load_state(state: bytes) -> dict[str, Any]:
    """A state of a training; see :meth:`netinv.inversion.InversionTraining.state_dict`."""
    import torch

    loaded: dict[str, Any] = torch.load(io.BytesIO(state), weights_only=True)
    return loaded


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
    """For the person who waits: a bar for each generator on a terminal, a line every 20 seconds in a log."""

    def __init__(self, title: str, done: list[int], steps: int) -> None:
        """Begin with the steps that each generator has done already."""
        from tqdm import tqdm

        self._title, self._steps, self._first, self._done = title, steps, sum(done), list(done)
        self._accuracies = ["-"] * len(done)
        self._start = self._last_line = time.monotonic()
        names = [f"{title} {index}" for index in range(len(done))]
        self._bars = [
            tqdm(total=steps, initial=first, desc=name, unit="step", position=index, disable=None)
            for index, (name, first) in enumerate(zip(names, done, strict=True))
        ]

    def update(self, index: int, record: dict[str, float]) -> None:
        """Show a generator's progress."""
        self._accuracies[index] = f"{record['accuracy']:.3f}"
        self._bars[index].set_postfix_str(f"accuracy {self._accuracies[index]}", refresh=False)
        self._bars[index].update(int(record["step"]) - self._done[index])
        self._done[index] = int(record["step"])
        now = time.monotonic()
        if self._bars[index].disable and now - self._last_line > LINE_SECONDS:
            self._last_line = now
            print(self._line(now), file=sys.stderr)

    def _line(self, now: float) -> str:
        left = self._steps * len(self._done) - sum(self._done)
        rate = (sum(self._done) - self._first) / (now - self._start)
        states = zip(self._done, self._accuracies, strict=True)
        table = ", ".join(f"[{i}] {done / self._steps:.0%} {accuracy}" for i, (done, accuracy) in enumerate(states))
        return f"{self._title}: generators' progress and accuracy {table}; {left / rate:.0f} s left"

    def close(self) -> None:
        """End the bars."""
        for bar in self._bars:
            bar.close()


@click.command()
@click.argument("dataset")
@click.argument("variant", type=click.Choice(["standard", "robust"]))
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Checkpoint of the classifier.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the generators.")
@click.option("--metrics", type=click.Path(path_type=Path), required=True, help="JSON file for the metrics.")
@click.option("--plots", type=click.Path(path_type=Path), required=True, help="CSV file for the training curves.")
@verbose_option
@stage_command
def main(dataset: str, variant: str, model: Path, out: Path, metrics: Path, plots: Path) -> None:
    """Invert the classifier of DATASET with the generators of VARIANT (standard or robust)."""
    from netinv.adapters import AdaptedClassifier
    from netinv.checkpoint import save_generator
    from netinv.generator import ConditionedGenerator
    from netinv.imported import load_checkpoint
    from netinv.layers import has_batch_norm
    from pipeline import cluster, tracking
    from pipeline.checkpoints import Checkpoints, fingerprint
    from pipeline.params import load_params

    params = load_params()
    inversion = params.for_dataset(dataset).invert
    common, config = inversion.common, getattr(inversion, variant)
    if config.batch_size % params.ray.num_workers:
        raise InputError(
            f"{params.ray.num_workers} workers (ray.num_workers) cannot share a batch of {config.batch_size} equally: "
            f"choose another of the two."
        )
    classifier = load_checkpoint(model)
    if config.pixel_statistics and isinstance(classifier, AdaptedClassifier) and classifier.config.mean is None:
        raise InputError(
            f"invert.{variant}.pixel_statistics needs the mean and std of the training images: give them to "
            "train.classifier.source.adapter, or set it to 0."
        )
    if config.layer_statistics and not has_batch_norm(classifier):
        raise InputError(
            f"invert.{variant}.layer_statistics needs a classifier with batch norm layers, and this one has none: "
            "set it to 0."
        )
    address = os.environ.get("RAY_ADDRESS")
    cluster.check_address(address)
    seeds = [common.seed + i for i in range(common.num_generators)]
    with ExitStack() as stack:
        folder = stack.enter_context(replaced(out))
        settings = [f"{dataset} {variant}", common.model_dump_json(), config.model_dump_json()]
        checkpoints = Checkpoints(
            params.ray.storage,
            fingerprint([*map(str.encode, settings), *sorted(model.iterdir()), *sorted(CODE.glob("*.py"))]),
        )
        histories, states = [], {}
        for index in range(len(seeds)):
            history, state = checkpoints.load(index)
            histories.append(history)
            if state is not None:
                states[index] = state
        done = [int(history[-1]["step"]) if history else 0 for history in histories]
        if states:
            print(f"invert {dataset} {variant}: goes on from its checkpoints", file=sys.stderr)
        run = stack.enter_context(
            tracking.stage_run(
                "invert",
                dataset=dataset,
                variant=variant,
                params={"common": common.model_dump(mode="json"), variant: config.model_dump(mode="json")},
                inputs=[Path("runs/train") / f"{dataset}-classifier.json"],
            )
        )
        stack.enter_context(cluster.cluster(address))
        children = [
            # What a killed stage logged of a generator is not logged again: its run goes on, below this stage's.
            stack.enter_context(
                run.child(
                    f"generator {i}",
                    params={"seed": seed, **config.model_dump(mode="json")},
                    key=f"{checkpoints.run}-{i}",
                )
            )
            for i, seed in enumerate(seeds)
        ]
        progress = Progress(f"invert {dataset} {variant}", done, config.steps)
        stack.callback(progress.close)
        shared = (classifier, common.generator, config, params.ray.checkpoint_every)
        events: Iterator[tuple[int, Event]]
        together = cluster.jobs_per_worker(len(seeds), params.ray)
        if together == 1:
            events = cluster.run_tasks(train_generator, dict(enumerate(seeds)), shared, states, params.ray)
        else:
            steps = [int(load_state(states[i])["step"]) if i in states else 0 for i in range(len(seeds))]
            members = {group[0]: group for group in groups(steps, together)}
            streams = cluster.run_tasks(
                train_generators,
                {first: tuple(seeds[i] for i in group) for first, group in members.items()},
                shared,
                {first: tuple(states[i] for i in group) for first, group in members.items() if first in states},
                params.ray,
            )
            events = (pair for first, told in streams for pair in zip(members[first], told.each, strict=True))
        for index, event in events:
            history, record = histories[index], event.record
            if not history or record["step"] > history[-1]["step"]:  # else a worker died, and it is known already
                history.append(record)
                progress.update(index, record)
                step = int(record["samples"])
                terms = {f"invert/{name}": value for name, value in record.items() if name != "samples"}
                children[index].log_metrics(terms, step=step)
                if event.grid is not None:
                    children[index].log_image(event.grid, key="samples", step=step)
                # Last: a kill in between has the point logged again, with the same values, and not left out for ever.
                checkpoints.save_history(index, history)
            if event.state is not None:
                checkpoints.save_state(index, event.state)
                states[index] = event.state
        for index, history in enumerate(histories):
            generator = ConditionedGenerator(common.generator, classifier.num_classes, classifier.image_shape)
            generator.load_state_dict(load_state(states[index])["generator"])
            save_generator(folder / str(index), generator)
            children[index].log_artifact(folder / str(index), folder="checkpoint")
            write_csv(folder / str(index) / "history.csv", history)
        last = [history[-1]["accuracy"] for history in histories]
        run.log_metrics({"invert/accuracy": sum(last) / len(last)}, step=config.steps * config.batch_size)
        write_csv(plots, [{"generator": i, **record} for i, history in enumerate(histories) for record in history])
        write_text(metrics, json.dumps({"batch_accuracy": sum(last) / len(last), "generators": len(last)}) + "\n")
    checkpoints.remove()
    print(
        f"invert {dataset} {variant}: {len(seeds)} generators, batch accuracy {min(last):.3f} or more", file=sys.stderr
    )


if __name__ == "__main__":
    main()
