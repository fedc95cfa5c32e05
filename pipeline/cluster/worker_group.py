"""One job on several workers that share its batch, with Ray Train."""

import os
import queue
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netinv.core import InputError

if TYPE_CHECKING:
    from pipeline.cluster.resources import ResourceBundle

MAX_FAILURES = 3
"""How often Ray Train starts workers again that died."""
_WEEK = 7 * 24 * 3600


def _session_folder() -> Path:
    """Where Ray keeps the files of this cluster, which go with it: an actor that is killed removes none itself."""
    import ray

    context = ray.get_runtime_context()
    folder = Path(context.get_temp_dir(), context.get_session_name())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class WorkerLostError(Exception):
    """One of the workers that share a job is gone."""


class WorkerGroup:
    """An actor that has one job done by several workers, with Ray Train, and passes on the events of the first.

    The workers hand their events to it, and not to ``ray.train.report``: that waits for the controller's next look at
    each of them, and takes checkpoints to storage that all machines must share.
    """

    def __init__(self, task: Callable[..., Iterator[Any]], bundle: "ResourceBundle", state: bytes | None) -> None:
        self._task, self._bundle, self._state = task, bundle, state
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
        import ray.train

        with tempfile.TemporaryDirectory(dir=_session_folder()) as folder, ThreadPoolExecutor(1) as pool:
            run = pool.submit(self._trainer(arguments, folder).fit)
            while not run.done() or not self._events.empty():
                with suppress(queue.Empty):
                    yield self._events.get(timeout=0.1)
            try:
                run.result()
            except (ray.train.TrainingFailedError, ray.exceptions.RayActorError) as error:
                raise WorkerLostError(str(error)) from None
            if self._error is not None:
                raise self._error

    def _trainer(self, arguments: tuple[Any, ...], folder: str) -> Any:
        """Ray Train, set up to run the task in every worker."""
        # How often the controller looks after the workers, and how long it waits for a node to join.
        os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(_WEEK)
        os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # nothing here asks it, and each process costs a start
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer

        task, group, bundle = self._task, ray.get_runtime_context().current_actor, self._bundle

        def work() -> None:
            first = ray.train.get_context().get_world_rank() == 0
            try:
                for event in task(*arguments, ray.get(group.state.remote())):
                    if first:
                        ray.get(group.put.remote(event))
            except (InputError, FloatingPointError) as error:
                if first:
                    ray.get(group.fail.remote(error))

        return TorchTrainer(
            work,
            torch_config=TorchConfig(backend="nccl" if bundle.num_gpus else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=bundle.num_workers,
                use_gpu=bundle.num_gpus > 0,
                resources_per_worker={"CPU": bundle.num_cpus, "GPU": bundle.num_gpus},
            ),
            run_config=ray.train.RunConfig(
                name=uuid.uuid4().hex,
                storage_path=folder,
                failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
