"""Ray: the only module that knows of it. Independent jobs in, an interleaved stream of their events out.

A job occupies one worker, or several that share its batch. Both are streaming tasks whose events come to the driver,
the states in which a job can be resumed among them. So nothing needs a file system that machines share, and a job whose
worker or node is gone is started again from its last state, wherever there is room.
"""

import os
import queue
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from netinv.core import InputError

if TYPE_CHECKING:
    from pipeline.params import Choices, Range, RayParams


class Resumable(Protocol):
    """An event of a job."""

    @property
    def state(self) -> bytes | tuple[bytes, ...] | None:
        """From where the job can be resumed, now and then."""


Event = TypeVar("Event", bound=Resumable)

MAX_RETRIES = 3
"""How often in a row a job is started again without having come to a new state."""
STARTS = 3
"""How often a local cluster that does not come up in time is started."""
_PATIENCE = 5.0
"""Seconds of silence after which the cluster is asked whether it still has room."""


class WorkerLostError(Exception):
    """One of the workers that share a job is gone."""


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at ``address``, or start a local one and stop it afterwards.

    Raises:
        InputError: The cluster refuses the connection, see also :func:`check_address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    verbose = os.environ.get("NETINV_VERBOSE") == "1"
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": "INFO" if verbose else "ERROR"}
    if not verbose:  # what Ray says of dead workers comes by a way of its own
        ray._private.worker.listen_error_messages = lambda *_: None
    if address is None:
        # "local" in so many words: without it Ray follows the address file of some other cluster, perhaps a dead one.
        _start_local(include_dashboard=False, **options)
    else:
        check_address(address)
        import netinv
        import pipeline

        # A remote worker has neither our code nor our files: the code travels with the job. As folders, since within a
        # submitted job Ray copies the environment, and modules cannot be copied.
        code = [module.__path__[0] for module in (netinv, pipeline)]
        try:
            ray.init(address=address, runtime_env={"py_modules": code}, **options)
        except (ConnectionError, RuntimeError) as error:
            raise InputError(f"The Ray cluster at RAY_ADDRESS={address} refused the connection: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _start_local(**options: Any) -> None:
    """Start a cluster on this machine. Ray gives its processes 30 s to come up, and a busy machine may need longer."""
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            ray.init(address="local", **options)
            return
        except Exception as error:  # Ray raises no narrower one
            ray.shutdown()
            if "timed out during startup" not in str(error) or attempt == STARTS:
                raise


def check_address(address: str | None) -> None:
    """Fail within seconds where Ray would try for minutes.

    Raises:
        InputError: Nothing answers at the address.
    """
    if address is None or address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"RAY_ADDRESS={address} is no address: give host:port, ray://host:port or auto, or unset it.")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(
            f"No Ray cluster answers at RAY_ADDRESS={address} ({error}): start it, or unset RAY_ADDRESS to run locally."
        ) from None


def scatter(
    task: Callable[..., Iterator[Event]],
    jobs: Mapping[int, Any],
    shared: tuple[Any, ...],
    states: Mapping[int, Any],
    resources: "RayParams",
) -> Iterator[tuple[int, Event]]:
    """Run ``task(*shared, job, state)`` for every job wherever the cluster has room, and stream what the tasks yield.

    Shared arguments are put into Ray's object store once, so that no file system needs to be shared.

    Args:
        task: A function that yields events; it runs in a worker process, perhaps on another machine. If several
            workers share a job, it runs in each, in one ``torch.distributed`` group, and the first one's events count.
        jobs: By index.
        shared: The arguments before the job, the same for all.
        states: From where to resume, by index; a job without one begins at its beginning.
        resources: What a job occupies.

    Yields:
        ``(index of the job, event)``, in order within a job, interleaved between jobs. After the loss of a worker, the
        events since the job's last state come again.

    Raises:
        InputError: The cluster can never hold one job, or workers die again and again.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    room = _Room.of(resources, resources.num_workers)
    references: list[Any] = [ray.put(value) for value in shared]
    latest = dict(states)
    losses = dict.fromkeys(jobs, 0)
    streams: dict[Any, tuple[int, Any]] = {}
    lost_groups: set[int] = set()  # and started again, but not heard of yet

    def start(index: int) -> None:
        arguments = (*references, jobs[index])
        if room.num_workers == 1:
            options: dict[str, Any] = {"num_cpus": room.num_cpus, "num_gpus": room.num_gpus, "max_retries": 0}
            stream = ray.remote(task).options(num_returns="streaming", **options).remote(*arguments, latest.get(index))
            streams[stream] = index, None
        else:  # beside the driver, so that the two live and die together
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            options = {"num_cpus": 0, "max_concurrency": room.num_workers + 1, "scheduling_strategy": here}
            group: Any = ray.remote(_Group).options(**options).remote(task, room, latest.get(index))
            streams[group.run.options(num_returns="streaming").remote(*arguments)] = index, group

    def start_again(index: int, error: Exception) -> None:
        losses[index] += 1
        if losses[index] > MAX_RETRIES:
            raise InputError(f"The worker of generator {index} died {losses[index]} times in a row: {error}") from None
        print(f"generator {index}: its worker died, it goes on from its last checkpoint", file=sys.stderr)
        if room.num_workers > 1:
            lost_groups.add(index)
        start(index)

    for index in jobs:
        start(index)
    waiting = False
    while streams:
        ready, _ = ray.wait(list(streams), num_returns=1, timeout=1.0 if lost_groups else _PATIENCE)
        if lost_groups:
            _free_reserved_by_the_dead()
        if not ready:
            shortage = room.shortage()
            if shortage and not waiting:
                print(f"waiting for a node to join: {shortage}", file=sys.stderr)
            waiting = shortage is not None
            continue
        stream: Any = ready[0]  # typed as one reference, but a stream of them, since streams went in
        index, _ = streams[stream]
        try:
            event: Event = ray.get(next(stream))
        except StopIteration:
            del streams[stream]
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, WorkerLostError):
                raise error.cause from None
            del streams[stream]
            start_again(index, error.cause)
        except ray.exceptions.RayError as error:
            del streams[stream]
            start_again(index, error)
        else:
            lost_groups.discard(index)
            if event.state is not None:
                latest[index], losses[index] = event.state, 0
            yield index, event


def _free_reserved_by_the_dead() -> None:
    """Give back what this job's dead actors had reserved for their workers.

    Ray keeps a placement group until its actor and its job have both ended, so that a group of workers that was lost
    with its controller would for ever take the place of the one that goes on. Ray Train has an actor that sees to it;
    that one needs a dashboard, and does not know of a group whose workers were still starting.
    """
    import ray
    from ray._private.state import state  # what is public does not tell who has reserved
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    for serialized in state._connect_and_get_accessor().get_placement_group_table():
        reserved = PlacementGroupTableData.FromString(serialized)
        removed = reserved.state == PlacementGroupTableData.REMOVED
        if reserved.creator_actor_dead and reserved.creator_job_id.hex() == job and not removed:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(reserved.placement_group_id)))


def jobs_per_worker(num_jobs: int, resources: "RayParams") -> int:
    """How many jobs a worker does as one program, where the settings leave it open: on GPUs so many that none waits.

    On CPUs it is one: two programs on a core each are faster than one on both.

    Raises:
        InputError: The cluster can never hold one worker.
    """
    if resources.generators_per_worker is not None or resources.num_workers > 1:
        return resources.generators_per_worker or 1
    room = _Room.of(resources, 1)
    return -(-num_jobs // room.workers()) if room.num_gpus else 1


class Trial(NamedTuple):
    """One trial of a search."""

    name: str
    settings: dict[str, Any]
    """What was drawn, by key of the space."""
    record: dict[str, float]
    """The last that its task yielded; empty before the first."""
    outcome: str = "running"
    """``running``, ``finished``, ``stopped early`` or ``failed``."""


def search(
    task: Callable[..., Iterator[dict[str, float]]],
    shared: tuple[Any, ...],
    space: "Mapping[str, Range | Choices]",
    objectives: Sequence[str],
    num_trials: int,
    seed: int,
    folder: Path,
    resources: "RayParams",
    tell: Callable[[Trial], None],
) -> list[Trial]:
    """Search for settings with which ``task(*shared, settings)`` does best, with Optuna and successive halving (ASHA).

    The task yields records with ``share``, how much of its work is done, each objective, to be made large, and
    ``score``, by which ASHA stops the lesser half of the trials at a quarter and at half of their work. Trials run
    wherever the cluster has room for one worker; what they yield comes to the driver.

    Args:
        task: Runs in a worker process, perhaps on another machine.
        shared: The arguments before the settings, the same for all.
        space: What may be drawn, by key.
        objectives: Keys of the records, in whose Pareto front Optuna looks on.
        num_trials: Draws.
        seed: Of the draws. What is drawn depends on which trial ends first as well.
        folder: Keeps the search while it is at work: where it holds one that was killed, that one goes on. Trials that
            were at work begin again, and the others do not.
        resources: What a trial occupies; ``num_workers`` counts as 1.
        tell: Called with a trial at its every record and at its end.

    Returns:
        All trials, in order of their names.

    Raises:
        InputError: The cluster can never hold one trial.
    """
    verbose = os.environ.get("NETINV_VERBOSE") == "1"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1"
    os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
    os.environ["RAY_AIR_NEW_OUTPUT"] = str(int(verbose))  # the new one prints a table, whatever it is told
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    room = _Room.of(resources, 1)
    if not verbose:
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    def work(settings: dict[str, Any], shared: tuple[Any, ...]) -> None:
        for record in task(*shared, settings):
            tune.report(record)

    class Teller(tune.Callback):
        def __reduce__(self) -> Any:  # Tune keeps its callbacks in the folder, but this one lives with this process
            return tune.Callback, ()

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            tell(told(trial, "running"))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            tell(told(trial))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            tell(told(trial))

    def told(trial: Any, outcome: str | None = None) -> Trial:
        record = {key: value for key, value in (trial.last_result or {}).items() if key in keys}
        if outcome is None:
            ended = "finished" if record.get("share") == 1 else "stopped early"
            outcome = "failed" if trial.status == "ERROR" else ended
        return Trial(trial.trial_id, dict(trial.config), record, outcome)

    keys = {"share", "step", "samples", "score", *objectives}
    trainable = tune.with_resources(
        tune.with_parameters(work, shared=shared), {"CPU": room.num_cpus, "GPU": room.num_gpus}
    )
    tuner: Any
    if tune.Tuner.can_restore(folder):
        tuner = tune.Tuner.restore(str(folder), trainable, resume_unfinished=True)
    else:
        quarter: Any = 0.25  # declared as whole numbers, which shares of the work are not
        halving = ASHAScheduler("share", "score", "max", max_t=1, grace_period=quarter, reduction_factor=2)
        drawn = {key: _drawn(part) for key, part in space.items()}
        tuner = tune.Tuner(
            trainable,
            param_space=drawn,
            tune_config=tune.TuneConfig(
                num_samples=num_trials,
                search_alg=OptunaSearch(metric=list(objectives), mode=["max"] * len(objectives), seed=seed),
                scheduler=halving,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=tune.FailureConfig(max_failures=MAX_RETRIES),
                verbose=int(verbose),
            ),
        )
    tuner._local_tuner._run_config.callbacks = [Teller()]
    tuner.fit()
    trials = tuner._local_tuner._experiment_analysis.trials
    return sorted((told(trial) for trial in trials), key=lambda trial: trial.name)


def _drawn(part: "Range | Choices") -> Any:
    """A part of a search space in Tune's terms."""
    from ray import tune

    from pipeline.params import Choices

    if isinstance(part, Choices):
        return tune.choice(list(part.choices))
    return (tune.loguniform if part.log else tune.uniform)(part.low, part.high)


class _Group:
    """An actor that has one job done by several workers, with Ray Train, and passes on the events of the first.

    The workers hand their events to it, and not to ``ray.train.report``: that waits for the controller's next look at
    each of them, and takes checkpoints to storage that all machines must share.
    """

    def __init__(self, task: Callable[..., Iterator[Any]], room: "_Room", state: bytes | None) -> None:
        self._task, self._room, self._state = task, room, state
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._error: Exception | None = None

    def put(self, event: Any) -> None:
        """Take an event from the first worker."""
        self._state = event.state or self._state
        self._events.put(event)

    def fail(self, error: Exception) -> None:
        """Take the first worker's word that starting again would not help."""
        self._error = error

    def state(self) -> bytes | None:
        """From where workers begin, for the first time or after a fault."""
        return self._state

    def run(self, *arguments: Any) -> Iterator[Any]:
        """Do the job, and yield its events.

        Raises:
            WorkerLostError: Workers died, and Ray Train has given up starting them again, or its controller died.
        """
        # How often the controller looks after the workers, and how long it waits for a node to join: a week.
        os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(7 * 24 * 3600)
        os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # nothing here asks it, and each process costs a start
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer

        task, group, room = self._task, ray.get_runtime_context().current_actor, self._room

        def work() -> None:
            first = ray.train.get_context().get_world_rank() == 0
            try:
                for event in task(*arguments, ray.get(group.state.remote())):
                    if first:
                        ray.get(group.put.remote(event))
            except (InputError, FloatingPointError) as error:
                if first:
                    ray.get(group.fail.remote(error))

        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
            trainer = TorchTrainer(
                work,
                torch_config=TorchConfig(backend="nccl" if room.num_gpus else "gloo"),
                scaling_config=ray.train.ScalingConfig(
                    num_workers=room.num_workers,
                    use_gpu=room.num_gpus > 0,
                    resources_per_worker={"CPU": room.num_cpus, "GPU": room.num_gpus},
                ),
                run_config=ray.train.RunConfig(
                    name=uuid.uuid4().hex,
                    storage_path=folder,
                    failure_config=ray.train.FailureConfig(max_failures=MAX_RETRIES),
                ),
            )
            run = pool.submit(trainer.fit)
            while not run.done() or not self._events.empty():
                with suppress(queue.Empty):
                    yield self._events.get(timeout=0.1)
            try:
                run.result()
            except (ray.train.TrainingFailedError, ray.exceptions.RayActorError) as error:
                raise WorkerLostError(str(error)) from None
            if self._error is not None:
                raise self._error


class _Room:
    """What one job takes of a cluster: so many workers of so many CPUs and GPUs each."""

    def __init__(self, num_cpus: float, num_gpus: float, num_workers: int) -> None:
        self.num_cpus, self.num_gpus, self.num_workers = num_cpus, num_gpus, num_workers

    @classmethod
    def of(cls, resources: "RayParams", num_workers: int) -> "_Room":
        """What the settings ask for.

        Raises:
            InputError: The cluster, were it idle, could not hold one job.
        """
        num_gpus = resources.num_gpus
        if num_gpus is None:
            num_gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in _nodes()) else 0.0
        room = cls(resources.num_cpus, num_gpus, num_workers)
        if shortage := room.shortage():
            raise InputError(shortage)
        return room

    def shortage(self) -> str | None:
        """Why the cluster, were it idle, could not hold one job; reported at once, not waited out for ever."""
        if self.workers() >= self.num_workers:
            return None
        nodes = _nodes()
        there = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        return (
            f"A generator asks for {self.num_workers} x {self.num_cpus:g} CPUs and {self.num_gpus:g} GPUs "
            f"(ray.num_workers, ray.num_cpus, ray.num_gpus), but the nodes have {there or 'nothing'}."
        )

    def workers(self) -> int:
        """How many workers the cluster, were it idle, could hold."""
        return sum(map(self._workers_on, _nodes()))

    def _workers_on(self, node: dict[str, float]) -> int:
        workers = node.get("CPU", 0) / self.num_cpus
        return int(min(workers, node.get("GPU", 0) / self.num_gpus) if self.num_gpus else workers)


def _nodes() -> list[dict[str, float]]:
    """What each living node has, by resource."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
