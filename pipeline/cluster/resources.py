"""What one job takes of a cluster, and whether the cluster can ever hold it."""

import os
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from netinv.core import InputError, best_device

if TYPE_CHECKING:
    from pipeline.params import RayParams


@dataclass(frozen=True)
class ResourceBundle:
    """So many workers of so many CPUs and GPUs each."""

    num_cpus: float
    num_gpus: float
    num_workers: int

    @classmethod
    def of(cls, resources: "RayParams", num_workers: int) -> "ResourceBundle":
        """What the settings ask for.

        Raises:
            InputError: The cluster, were it idle, could not hold one job, and nothing tells that it grows.
        """
        num_gpus = resources.num_gpus
        if num_gpus is None:
            num_gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in _nodes()) else 0.0
            if not num_gpus and os.environ.get("RAY_ADDRESS"):
                _print_once(
                    "No node of the cluster has a GPU, so CPUs are used: ray.num_gpus=1 waits for GPUs to join."
                )
        bundle = cls(resources.num_cpus, num_gpus, num_workers)
        if (shortage := bundle.shortage()) and not _may_grow():
            raise InputError(shortage)
        return bundle

    def shortage(self) -> str | None:
        """Why the cluster, were it idle, could not hold one job; reported at once, not waited out for ever."""
        if self.capacity() >= self.num_workers:
            return None
        nodes = _nodes()
        there = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        return (
            f"A training asks for {self.num_workers} x {self.num_cpus:g} CPUs and {self.num_gpus:g} GPUs "
            f"(ray.num_workers, ray.num_cpus, ray.num_gpus), but the nodes have {there or 'nothing'}."
        )

    def capacity(self) -> int:
        """How many workers the cluster, were it idle, could hold."""
        return sum(map(self._workers_on, _nodes()))

    def _workers_on(self, node: dict[str, float]) -> int:
        workers = node.get("CPU", 0) / self.num_cpus
        return int(min(workers, node.get("GPU", 0) / self.num_gpus) if self.num_gpus else workers)


def jobs_per_worker(num_jobs: int, resources: "RayParams") -> int:
    """How many jobs a worker does as one program, where the settings leave it open.

    On GPUs it is so many that no job waits, or one where no GPU has joined yet. On CPUs it is one: two programs on a
    core each are faster than one on both.

    Raises:
        InputError: The cluster can never hold one worker.
    """
    if resources.generators_per_worker is not None or resources.num_workers > 1:
        return resources.generators_per_worker or 1
    bundle = ResourceBundle.of(resources, 1)
    return -(-num_jobs // (bundle.capacity() or num_jobs)) if bundle.num_gpus else 1


def _living() -> list[dict[str, Any]]:
    """What Ray says of each living node."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _nodes() -> list[dict[str, float]]:
    """What each living node has, by resource."""
    return [node["Resources"] for node in _living()]


def _may_grow() -> bool:
    """Whether nodes were started for the cluster as members of groups, as Ray's autoscalers do.

    Ray tells nobody whether an autoscaler is at work. But its cluster launcher and KubeRay name the group of each node,
    which becomes a label, and ``ray start`` by hand does not.
    """
    return any("ray.io/node-group" in node["Labels"] for node in _living())


@cache
def _print_once(sentence: str) -> None:
    """Say it once."""
    print(sentence, file=sys.stderr)


def device() -> str:
    """What this process computes on: in a worker a GPU only where Ray has given it one, whatever it can see."""
    import ray

    given = not ray.is_initialized() or bool(ray.get_runtime_context().get_accelerator_ids()["GPU"])
    return best_device() if given else "cpu"
