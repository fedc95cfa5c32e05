"""The work on one generator, or on several as one program, in a worker that may be on another machine."""

import io
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from netinv.classifiers import AdaptedClassifier, Classifier
    from netinv.generators import ConditionedGenerator, GeneratorConfig
    from netinv.inversion import InversionConfig, InversionTraining

SNAPSHOTS = 5
"""Sample grids drawn over a generator's training, the untrained one not counted."""
COLUMNS = 8
"""Images of each class in such a grid."""
MAX_ROWS = 20
"""Classes in such a grid."""


class Job(NamedTuple):
    """One generator to be trained."""

    seed: int
    architecture: "GeneratorConfig"
    config: "InversionConfig"


class Event(NamedTuple):
    """What a generator's training tells while it runs, and at its end."""

    record: dict[str, float]
    grid: "np.ndarray[Any, Any] | None" = None
    """uint8, (H, W) or (H, W, 3)."""
    state: bytes | None = None
    """From where the training can be resumed, as torch saves it. The last one holds the trained generator."""
    begun_anew: bool = False
    """Whether the state that the training was given is from another kind of device; with the first event only."""


class Events(NamedTuple):
    """What generators that are trained as one program tell at the same step, one each."""

    each: tuple[Event, ...]

    @property
    def state(self) -> tuple[bytes, ...] | None:
        """The states of all, at a step after which they are kept."""
        return tuple(event.state for event in self.each if event.state is not None) or None


def train_generator(
    classifier: "Classifier | AdaptedClassifier", checkpoint_every: int, job: Job, state: bytes | None
) -> Iterator[Event]:
    """One generator from its seed or a state, on a GPU if this worker was given one. Runs on any node, needs no file.

    In each of several workers of one ``torch.distributed`` group, it trains one generator for all of them.
    """
    training, begun_anew = _training(classifier, job, state)
    before = training.step
    for record in training:
        wants_grid, wants_state = _due(before, training.step, job.config.steps, checkpoint_every)
        grid = _sample_grid(training.generator, job.config.sharpness) if wants_grid else None
        yield Event(record, grid, _saved(training.state_dict()) if wants_state else None, begun_anew)
        before, begun_anew = training.step, False


def train_generators(
    classifier: "Classifier | AdaptedClassifier",
    checkpoint_every: int,
    jobs: tuple[Job, ...],
    states: tuple[bytes, ...] | None,
) -> Iterator[Events]:
    """Several generators of the same settings as one program, from their seeds or from states of one kind."""
    from netinv.inversion import JointTraining

    begun = [_training(classifier, *each) for each in zip(jobs, states or [None] * len(jobs), strict=True)]
    joint = JointTraining([training for training, _ in begun])
    begun_anew = [anew for _, anew in begun]
    config = jobs[0].config
    before = joint.step
    for records in joint:
        wants_grid, wants_state = _due(before, joint.step, config.steps, checkpoint_every)
        generators = [training.generator for training in joint.trainings]
        grids = [_sample_grid(g, config.sharpness) if wants_grid else None for g in generators]
        kept = map(_saved, joint.state_dicts()) if wants_state else [None] * len(jobs)
        yield Events(tuple(map(Event, records, grids, kept, begun_anew)))
        before, begun_anew = joint.step, [False] * len(jobs)


def _training(
    classifier: "Classifier | AdaptedClassifier", job: Job, state: bytes | None
) -> tuple["InversionTraining", bool]:
    """A training on this worker's device, from its seed or a state, and whether it begins anew in spite of its state.

    Which kind of device a worker has is known to the worker alone, so that the driver cannot tell beforehand.
    """
    import torch

    from netinv.classifiers import freeze
    from netinv.core import InputError, trade_memory_for_speed
    from netinv.generators import ConditionedGenerator
    from netinv.inversion import GlobalBatch, InversionTraining
    from pipeline.cluster import device

    trade_memory_for_speed()
    here = device()
    freeze(classifier).to(here)
    torch.manual_seed(job.seed)
    generator = ConditionedGenerator(job.architecture, classifier.num_classes, classifier.image_shape).to(here)
    shared = GlobalBatch(job.config.batch_size) if torch.distributed.is_initialized() else None
    training = InversionTraining(generator, classifier, job.config, job.seed, shared)
    if state is not None:
        try:
            training.load_state_dict(load_state(state))
        except InputError:
            return training, True
    return training, False


def _due(before: int, step: int, steps: int, checkpoint_every: int) -> tuple[bool, bool]:
    """Whether a grid is drawn, and whether the state is kept, at a step after the one ``before``."""

    def passed(interval: float) -> bool:
        return step // interval > before // interval

    return before == 0 or passed(steps / SNAPSHOTS), step == steps or passed(checkpoint_every)


def groups(kinds: Sequence[Hashable], size: int) -> list[tuple[int, ...]]:
    """Which generators are trained together: at most ``size`` of one kind, which is their settings and steps so far.

    Example:
        >>> groups(["a", "a", "b", "a"], size=2)
        [(0, 1), (3,), (2,)]
    """
    result = []
    for kind in dict.fromkeys(kinds):
        alike = [index for index, other in enumerate(kinds) if other == kind]
        result += [tuple(alike[i : i + size]) for i in range(0, len(alike), size)]
    return result


def state_kind(state: bytes | None) -> tuple[int, int]:
    """What generators that go on as one program have in common: their step, and the size of their random states.

    That size tells a GPU's state from a CPU's.
    """
    if state is None:
        return 0, 0
    loaded = load_state(state)
    return int(loaded["step"]), len(loaded["rng"])


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
    from netinv.generators import class_grid

    return class_grid(generator, MAX_ROWS, COLUMNS, seed=0, sharpness=sharpness)


def damage(classifier: "Classifier | AdaptedClassifier", job: Job, state: bytes) -> str | None:
    """Why a training cannot go on from a state; ``None`` if it can."""
    try:
        trained(classifier, job, state)
        loaded = load_state(state)
        if missing := {"step", "optimizer", "schedule", "rng"} - loaded.keys():
            return f"it lacks {', '.join(sorted(missing))}"
        if not 0 < loaded["step"] <= job.config.steps:
            return f"its step is {loaded['step']}"
    except Exception as error:  # damaged files fail in every possible way
        return (str(error) or type(error).__name__).splitlines()[0]
    return None


def trained(classifier: "Classifier | AdaptedClassifier", job: Job, state: bytes) -> "ConditionedGenerator":
    """The generator that a training has come to, from its last state."""
    from netinv.generators import ConditionedGenerator

    generator = ConditionedGenerator(job.architecture, classifier.num_classes, classifier.image_shape)
    generator.load_state_dict(load_state(state)["generator"])
    return generator.eval()
