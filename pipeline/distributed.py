"""Ray: the only module that knows of it. Independent jobs in, an interleaved stream of their events out."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from netinv.errors import InputError

Event = TypeVar("Event")

MAX_RETRIES = 3
"""How often a job is started again after its worker died; it starts from its beginning, with the same seed."""


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
    if address is None:
        # "local" in so many words: without it Ray follows the address file of some other cluster, perhaps a dead one.
        ray.init(address="local", include_dashboard=False, **options)
    else:
        check_address(address)
        import netinv
        import pipeline

        # A remote worker has neither our code nor our files: the code travels with the job.
        try:
            ray.init(address=address, runtime_env={"py_modules": [netinv, pipeline]}, **options)
        except (ConnectionError, RuntimeError) as error:
            raise InputError(f"The Ray cluster at RAY_ADDRESS={address} refused the connection: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


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
    jobs: list[Any],
    shared: tuple[Any, ...],
    num_cpus: float = 1,
    num_gpus: float | None = None,
) -> Iterator[tuple[int, Event]]:
    """Run ``task(*shared, job)`` for every job wherever the cluster has room, and stream what the tasks yield.

    Shared arguments are put into Ray's object store once, so that no file system needs to be shared.

    Args:
        task: A function that yields events; it runs in a worker process, perhaps on another machine.
        jobs: The last argument of each call.
        shared: The arguments before it, the same for all.
        num_cpus: What one job occupies.
        num_gpus: Likewise; 0.25 packs four on one. ``None`` is a whole one where the cluster has any, else none.

    Yields:
        ``(index of the job, event)``, in order within a job, interleaved between jobs.

    Raises:
        InputError: No node of the cluster can ever hold one job.
    """
    import ray

    if num_gpus is None:
        num_gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in _nodes()) else 0.0
    _expect_room(num_cpus, num_gpus)
    remote = ray.remote(task).options(
        num_cpus=num_cpus, num_gpus=num_gpus, num_returns="streaming", max_retries=MAX_RETRIES
    )
    references = [ray.put(value) for value in shared]
    streams: dict[Any, int] = {remote.remote(*references, job): index for index, job in enumerate(jobs)}
    while streams:
        ready, _ = ray.wait(list(streams), num_returns=1)
        stream: Any = ready[0]  # typed as one reference, but a stream of them, since streams went in
        try:
            event: Event = ray.get(next(stream))
            yield streams[stream], event
        except StopIteration:
            del streams[stream]
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None


def _nodes() -> list[dict[str, float]]:
    """What each living node has, by resource."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _expect_room(num_cpus: float, num_gpus: float) -> None:
    """Report at once what would otherwise wait for ever."""
    nodes = _nodes()
    if not any(node.get("CPU", 0) >= num_cpus and node.get("GPU", 0) >= num_gpus for node in nodes):
        largest = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"A generator asks for {num_cpus:g} CPUs and {num_gpus:g} GPUs (ray.num_cpus, ray.num_gpus), "
            f"but the nodes have {largest}."
        )
