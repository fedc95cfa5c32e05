"""Generators of digits that are trained on a real Ray, and what ``chaos.py``'s parts look at in them."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psutil
import torch

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    build_classifier,
    freeze,
    train_classifier,
)
from netinv.data import channel_statistics, load_digits
from netinv.generators import GeneratorConfig
from netinv.inversion import InversionConfig
from pipeline.cluster import cluster, run_tasks
from pipeline.generators import Job, load_state, train_generator
from pipeline.params import RayParams

CHECKPOINT_EVERY = 40
"""Steps, of the trials."""
LOG_EVERY = 5
JOINS_AFTER = 15
"""Seconds after the loss of a node."""
PATIENCE = 180
"""Seconds after which a run that does not go on counts as lost."""


TRAINING = "train_generator|RayTrainWorker"
"""What Ray calls the processes in which generators are trained."""
OURS = TRAINING + "|WorkerGroup|TrainController"
"""And those that look after them."""


class Mode(NamedTuple):
    """How generators are spread over workers."""

    generators: int
    num_workers: int
    steps: int


MODES = {"ensemble": Mode(generators=2, num_workers=1, steps=400), "data-parallel": Mode(1, num_workers=2, steps=240)}


class Outcome(NamedTuple):
    """How a run ended."""

    seconds: float
    weights: dict[int, dict[str, torch.Tensor]]
    records: dict[int, dict[str, float]]
    redone: int
    """Steps done again, the most of any generator."""

    def equals(self, other: "Outcome") -> bool:
        """Whether the weights are the same bit for bit, and the last records the same."""
        same = all(
            torch.equal(tensor, other.weights[index][name])
            for index, weights in self.weights.items()
            for name, tensor in weights.items()
        )
        return same and self.records == other.records


Row = tuple[str, str, str, bool]
"""What, the target, what came out, whether that is enough."""


def digits_classifier() -> Classifier:
    """A small classifier of digits, quickly trained."""
    data = load_digits().train
    torch.manual_seed(0)
    config = ConvClassifierConfig(channels=(16, 32), feature_dim=64, batch_norm=False)
    classifier = build_classifier(config, 10, (1, 16, 16), *channel_statistics(data.images))
    training = ClassifierTrainingConfig(epochs=4, batch_size=64)
    *_, last = train_classifier(classifier, data, training, seed=0)
    assert last["accuracy"] > 0.9
    freeze(classifier)
    return classifier


def config_of(steps: int, log_every: int) -> InversionConfig:
    """The paper's loss."""
    return InversionConfig(steps=steps, batch_size=64, log_every=log_every)


class Work:
    """Trains the generators of a mode with Ray, and remembers how far they have come."""

    def __init__(
        self,
        classifier: Classifier,
        mode: Mode,
        checkpoint_every: int = CHECKPOINT_EVERY,
        log_every: int = LOG_EVERY,
    ) -> None:
        self._classifier, self._mode, self._every, self._log_every = classifier, mode, checkpoint_every, log_every
        self.done: dict[int, int] = {}
        """Steps by generator."""

    def run(self) -> Outcome:
        """From the start to the end, whatever dies meanwhile."""
        mode, start = self._mode, time.perf_counter()
        resources = RayParams(
            num_workers=mode.num_workers, num_cpus=1, num_gpus=0, checkpoint_every=self._every, storage="unused"
        )
        shared = (self._classifier, self._every)
        config = config_of(mode.steps, self._log_every)
        jobs = {index: Job(index, GeneratorConfig(), config) for index in range(mode.generators)}
        records, states, redone = {}, {}, 0
        for index, event in run_tasks(train_generator, jobs, shared, {}, resources):
            step = int(event.record["step"])
            redone = max(redone, self.done.get(index, 0) - (step - self._log_every))
            self.done[index] = step
            records[index] = event.record
            if event.state is not None:
                states[index] = event.state
        weights = {index: load_state(state)["generator"] for index, state in states.items()}
        return Outcome(time.perf_counter() - start, weights, records, redone)


def stuck() -> str:
    """What Ray has reserved, and its actors that live or wait: where nothing comes on."""
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    tables = state._connect_and_get_accessor().get_placement_group_table()
    groups = [PlacementGroupTableData.FromString(table) for table in tables]
    reserved = [
        (group.state, group.creator_actor_dead, state.actor_table(group.creator_actor_id.hex()).get("State"))
        for group in groups
        if group.state != PlacementGroupTableData.REMOVED
    ]
    actors = [(actor["ActorClassName"], actor["State"]) for actor in state.actor_table(None).values()]
    alive = [actor for actor in actors if actor[1] != "DEAD"]
    return f"reserved {reserved}, actors {alive}, free {ray.available_resources().get('CPU', 0)} CPUs"


def watched(work: Work, disturb: Callable[[], None]) -> Outcome:
    """Run, with something that happens beside it.

    Raises:
        TimeoutError: Nothing has come from the work for a long time.
        Exception: What ended the work.
    """
    outcomes: list[Outcome] = []
    errors: list[Exception] = []

    def guarded_run() -> None:
        try:
            outcomes.append(work.run())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=guarded_run, daemon=True)
    thread.start()
    disturb()  # in the main thread, where Ray wants nodes to be started
    before, since = -1, time.monotonic()
    while thread.is_alive():
        thread.join(0.2)
        if (done := sum(work.done.values())) != before:
            before, since = done, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise TimeoutError(f"No generator has come on for {PATIENCE} s, steps done: {work.done}; {stuck()}")
    if errors:
        raise errors[0]
    return outcomes[0]


def at_work(root: psutil.Process | None = None, names: str = OURS) -> list[psutil.Process]:
    """Ray's processes below another, this one by default, that train a generator or look after those that do."""
    found = []
    for process in (root or psutil.Process()).children(recursive=True):
        with suppress(psutil.Error):
            if re.match(rf"ray::({names})", (process.cmdline() or [""])[0]):
                found.append(process)
    return found


@contextmanager
def several_nodes() -> Iterator[Any]:
    """A Ray cluster of several nodes on this machine: a head without CPUs, which is where the driver is."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        with cluster(nodes.address):
            yield nodes
    finally:
        nodes.shutdown()
