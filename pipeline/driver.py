"""The driver's side of many generators: what is to be trained, from where it goes on, and what is told on the way.

``invert`` and ``ablation`` plan, resume, consume and write; ``tune`` follows its trials in the same way, and leaves the
plan to Ray Tune.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netinv
from pipeline import checkpoints as storage
from pipeline import cluster, generators
from pipeline.generators import Event, Job
from pipeline.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    from netinv.classifiers import AdaptedClassifier, Classifier
    from netinv.generators import GeneratorConfig
    from netinv.inversion import InversionConfig
    from pipeline.params import RayParams
    from pipeline.tracking import Run

MAX_SHOWN = 8
"""Generators whose accuracies are shown one by one."""


@dataclass(frozen=True)
class Plan:
    """Generators to be trained, and with what."""

    title: str
    """Of the stage, in messages: ``invert digits robust``."""
    classifier: "Classifier | AdaptedClassifier"
    jobs: Mapping[str, Job]
    """By the name of the generator's run."""
    ray: "RayParams"
    fingerprint: str
    """Of all that the results depend on; see :func:`fingerprint`."""
    keys: tuple[str, ...] = ()
    """What each job is called among the checkpoints; by default its place."""

    def checkpoints(self) -> storage.Checkpoints:
        """Where it keeps its states: beside those of the same stage at other settings, which are forgotten."""
        return storage.Checkpoints(self.ray.storage, self.title.replace(" ", "-"), self.fingerprint)

    def again(self, names: Sequence[str], attempt: int) -> "Plan":
        """The plan of another attempt, counted from 1, at some of the generators: with seeds that no other has."""
        more = (attempt - 1) * len(self.jobs)
        places = {name: place for place, name in enumerate(self.jobs)}
        jobs = {f"{name}, attempt {attempt}": self.jobs[name] for name in names}
        return replace(
            self,
            title=f"{self.title}, attempt {attempt}",
            jobs={name: job._replace(seed=job.seed + more) for name, job in jobs.items()},
            keys=tuple(f"{places[name]}-{attempt}" for name in names),
        )


def check_settings(
    where: str,
    generator: "GeneratorConfig",
    config: "InversionConfig",
    ray: "RayParams",
    classifier: "Classifier | AdaptedClassifier",
) -> None:
    """Refuse what would fail in a worker, before there is one.

    Args:
        where: The key of the inversion's settings, such as ``invert.robust``, for messages.
        generator: Architecture of a generator.
        config: How it is trained.
        ray: On how many workers.
        classifier: The one to be inverted.

    Raises:
        InputError: Names the key.
    """
    from netinv.classifiers import check_statistics
    from pipeline.estimates import check_inversion
    from pipeline.params import expect_equal_shares

    expect_equal_shares(config.batch_size, ray.num_workers, f"{where}.batch_size: ")
    check_inversion(where, generator, config, classifier)
    check_statistics(config.pixel_statistics, config.layer_statistics, classifier, where=f"{where}.")


def fingerprint(settings: list[str], model: Path, *stage: str) -> str:
    """A digest of settings, the classifier, all of the library, and the stage's own modules.

    Args:
        settings: Texts.
        model: Folder of the classifier.
        stage: Files of the stage's modules that decide its results; the driver's and the workers' come along.
    """
    code = [*sorted(Path(netinv.__file__).parent.rglob("*.py")), *map(Path, (*stage, __file__, generators.__file__))]
    return storage.fingerprint([*map(str.encode, settings), *sorted(filter(Path.is_file, model.iterdir())), *code])


class Followed:
    """One generator or trial that is at work: its history and state on storage, and its run in MLflow."""

    def __init__(self, index: int | str, checkpoints: storage.Checkpoints, run: "Run", prefix: str) -> None:
        self._index, self._checkpoints, self.run, self._prefix = index, checkpoints, run, prefix
        self.history, self.state = checkpoints.load(index)
        for record in self.history:
            run.log_earlier_metrics(self._metrics(record), int(record["samples"]))

    @property
    def step(self) -> int:
        """Steps that are known to be done."""
        return int(self.history[-1]["step"]) if self.history else 0

    def _metrics(self, record: Mapping[str, float]) -> dict[str, float]:
        return {f"{self._prefix}/{name}": value for name, value in record.items() if name != "samples"}

    def begin_anew(self) -> int:
        """Forget what a discarded training told; returns how many of its steps were known."""
        known = self.step
        self.history, self.state = [], None
        self._checkpoints.save_history(self._index, self.history)
        return known

    def take(self, record: dict[str, float], grid: "np.ndarray[Any, Any] | None" = None, state: Any = None) -> int:
        """Log and keep what is new in a record; returns how many steps are new.

        After the loss of a worker, or of the stage itself, records come again that are known already.
        """
        new = max(0, int(record["step"]) - self.step)
        if new:
            samples = int(record["samples"])
            self.run.log_metrics(self._metrics(record), step=samples)
            if grid is not None:
                self.run.log_image(grid, key="samples", step=samples)
            self.history.append(record)
            # Last: a kill in between has the point logged again, with the same values, and not left out for ever.
            self._checkpoints.save_history(self._index, self.history)
        if state is not None:
            self._checkpoints.save_state(self._index, state)
            self.state = state
        return new


def resume(plan: Plan, checkpoints: storage.Checkpoints, run: "Run", stack: ExitStack) -> list[Followed]:
    """A run for each generator, below the stage's: the one that a killed stage began, or a new one.

    Its parameters are its seed and what tells it from the others; the stage's run has all. MLflow writes those of a run
    above its every picture.
    """
    followed = []
    settings = [
        {**job.config.model_dump(mode="json"), "generator": job.architecture.model_dump(mode="json")}
        for job in plan.jobs.values()
    ]
    telling = [name for name in settings[0] if any(own[name] != settings[0][name] for own in settings)]
    keys = plan.keys or tuple(map(str, range(len(plan.jobs))))
    for key, (name, job), own in zip(keys, plan.jobs.items(), settings, strict=True):
        params = {"seed": job.seed, **{name: own[name] for name in telling}}
        child = stack.enter_context(run.child(name, params, key=f"{checkpoints.run}-{key}"))
        one = Followed(key, checkpoints, child, "invert")
        if one.state is not None and (reason := generators.damage(plan.classifier, job, one.state)):
            print(f"warning: The checkpoint of {name} is damaged ({reason}) and discarded.", file=sys.stderr)
            one.state = None
        followed.append(one)
    if any(one.state is not None for one in followed):
        print(f"{plan.title}: goes on from its checkpoints", file=sys.stderr)
    return followed


def consume(plan: Plan, followed: list[Followed]) -> None:
    """Train all generators to their ends, and keep what they tell."""
    jobs = list(plan.jobs.values())
    names = list(plan.jobs)
    with ExitStack() as stack:
        stack.enter_context(cluster.cluster(os.environ.get("RAY_ADDRESS")))
        total, done = sum(job.config.steps for job in jobs), sum(one.step for one in followed)
        progress = Progress(plan.title, total, "step", done)
        stack.callback(progress.close)
        for index, event in _events(plan, followed):
            if event.begun_anew:
                progress.write(
                    f"warning: The checkpoint of {names[index]} is from another kind of device than its worker's, "
                    "whose random numbers are others, and discarded: it begins anew."
                )
                progress.advance(-followed[index].begin_anew(), _standing(jobs, followed))
            new = followed[index].take(event.record, event.grid, event.state)
            if new:
                progress.advance(new, _standing(jobs, followed))
            if new and len(jobs) > MAX_SHOWN and followed[index].step == jobs[index].config.steps:
                progress.write(f"{names[index]}: {_measured(jobs[index : index + 1])} {event.record['accuracy']:.3f}")


def _standing(jobs: list[Job], followed: list[Followed]) -> str:
    """How the generators stand."""
    if len(jobs) > MAX_SHOWN:
        ended = sum(one.step == job.config.steps for job, one in zip(jobs, followed, strict=True))
        return f"{ended} of {len(jobs)} generators done"
    accuracies = " ".join(f"{one.history[-1]['accuracy']:.3f}" if one.history else "-" for one in followed)
    return f"{_measured(jobs)} {accuracies}"


def _measured(jobs: list[Job]) -> str:
    """What is told of each batch, in all of some trainings."""
    return "accuracy under attack" if all(job.config.epsilon for job in jobs) else "accuracy"


def _events(plan: Plan, followed: list[Followed]) -> Iterator[tuple[int, Event]]:
    """What the generators tell, each by its index, trained alone or with others as one program."""
    jobs = list(plan.jobs.values())
    shared = (plan.classifier, plan.ray.checkpoint_every)
    states = {index: one.state for index, one in enumerate(followed) if one.state is not None}
    together = cluster.jobs_per_worker(len(jobs), plan.ray)
    if together == 1:
        yield from cluster.run_tasks(generators.train_generator, dict(enumerate(jobs)), shared, states, plan.ray)
        return
    kinds = [(job.architecture, job.config, generators.state_kind(states.get(i))) for i, job in enumerate(jobs)]
    members = {group[0]: group for group in generators.groups(kinds, together)}
    events = cluster.run_tasks(
        generators.train_generators,
        {first: tuple(jobs[i] for i in group) for first, group in members.items()},
        shared,
        {first: tuple(states[i] for i in group) for first, group in members.items() if first in states},
        plan.ray,
    )
    for first, told in events:
        yield from zip(members[first], told.each, strict=True)
