"""Jobs as streaming tasks on a cluster, each started again from its last state when its worker dies."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from netinv.core import InputError
from pipeline.cluster.resources import ResourceBundle
from pipeline.cluster.workarounds import remove_reservations_of_dead_actors
from pipeline.cluster.worker_group import WorkerGroup, WorkerLostError

if TYPE_CHECKING:
    from pipeline.params import RayParams


class Resumable(Protocol):
    """An event of a job."""

    @property
    def state(self) -> bytes | tuple[bytes, ...] | None:
        """From where the job can be resumed, now and then."""


Event = TypeVar("Event", bound=Resumable)

MAX_RETRIES = 3
"""How often in a row a job is started again without having come to a new state."""
MAX_TOLD = 300
"""Characters of what Ray says of a worker's death."""
_PATIENCE = 5.0
"""Seconds of silence after which the cluster is asked whether it still can hold the jobs."""
_LONG = 300.0
"""Seconds of silence at the beginning after which the stage says that its jobs may not have begun."""


def run_tasks(
    task: Callable[..., Iterator[Event]],
    jobs: Mapping[int, Any],
    shared: tuple[Any, ...],
    states: Mapping[int, Any],
    resources: "RayParams",
) -> Iterator[tuple[int, Event]]:
    """Run ``task(*shared, job, state)`` for every job wherever the cluster can, and stream what the tasks yield.

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

    tasks = _Tasks(task, jobs, shared, states, ResourceBundle.of(resources, resources.num_workers))
    for index in jobs:
        tasks.start(index)
    waiting = False
    begun: float | None = time.monotonic()  # until a job is heard of, or that is told
    while tasks.streams:
        ready, _ = ray.wait(list(tasks.streams), num_returns=1, timeout=1.0 if tasks.silent_groups else _PATIENCE)
        if tasks.silent_groups:
            remove_reservations_of_dead_actors()
        if ready:
            begun = None
            yield from tasks.next_event(ready[0])
            continue
        shortage = tasks.bundle.shortage()
        if shortage and not waiting:
            print(f"waiting for a node to join: {shortage}", file=sys.stderr)
        waiting = shortage is not None
        if begun is not None and time.monotonic() > begun + _LONG:
            begun = None
            print(
                f"no training has told anything for {_LONG:g} s: where other work holds the cluster, see `ray status`, "
                "they begin after it",
                file=sys.stderr,
            )


class _Tasks(Generic[Event]):
    """The tasks at work: their streams of events, and from where each job can be started again."""

    def __init__(
        self,
        task: Callable[..., Iterator[Event]],
        jobs: Mapping[int, Any],
        shared: tuple[Any, ...],
        states: Mapping[int, Any],
        bundle: ResourceBundle,
    ) -> None:
        import ray

        self.bundle = bundle
        self.streams: dict[Any, tuple[int, Any]] = {}
        """By stream: the job's index, and the actor of its workers if there are several."""
        self.silent_groups: set[int] = set()
        """Jobs of several workers that were started again and have not been heard of yet."""
        self._task, self._jobs = task, jobs
        self._references: list[Any] = [ray.put(value) for value in shared]
        self._states = dict(states)
        self._losses = dict.fromkeys(jobs, 0)

    def start(self, index: int) -> None:
        """Start a job from its last state."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        arguments, state, bundle = (*self._references, self._jobs[index]), self._states.get(index), self.bundle
        if bundle.num_workers == 1:
            options: dict[str, Any] = {"num_cpus": bundle.num_cpus, "num_gpus": bundle.num_gpus, "max_retries": 0}
            stream = ray.remote(self._task).options(num_returns="streaming", **options).remote(*arguments, state)
            self.streams[stream] = index, None
        else:  # on the driver's node, so that the two live and die together
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            options = {"num_cpus": 0, "max_concurrency": bundle.num_workers + 1, "scheduling_strategy": here}
            group: Any = ray.remote(WorkerGroup).options(**options).remote(self._task, bundle, state)
            self.streams[group.run.options(num_returns="streaming").remote(*arguments)] = index, group

    def next_event(self, stream: Any) -> Iterator[tuple[int, Event]]:
        """Take what a stream that is ready has: an event, its end, or the loss of its worker."""
        import ray

        index, _ = self.streams[stream]
        try:
            event: Event = ray.get(next(stream))
        except StopIteration:
            del self.streams[stream]
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, WorkerLostError):
                raise error.cause from None
            self._start_again(stream, error.cause)
        except ray.exceptions.RayError as error:
            self._start_again(stream, error)
        else:
            self.silent_groups.discard(index)
            if event.state is not None:
                self._states[index], self._losses[index] = event.state, 0
            yield index, event

    def _start_again(self, stream: Any, error: Exception) -> None:
        index, _ = self.streams.pop(stream)
        self._losses[index] += 1
        if self._losses[index] > MAX_RETRIES:
            raise InputError(
                f"The worker of training {index} died {self._losses[index]} times in a row: {reason(error)}"
            ) from None
        print(f"training {index}: its worker died, it goes on from its last state, if it has one", file=sys.stderr)
        if self.bundle.num_workers > 1:
            self.silent_groups.add(index)
        self.start(index)


def reason(error: Exception) -> str:
    """Why a worker died, in one line: Ray appends pages of counters. Where memory was short, with what to do."""
    from ray.exceptions import OutOfMemoryError

    told = " ".join(str(error).split())[:MAX_TOLD]
    if isinstance(error, OutOfMemoryError):
        return (
            "the node's memory was short; lower batch_size or images_at_once, or raise ray.num_cpus so that fewer "
            f"share a node ({told})"
        )
    return told
