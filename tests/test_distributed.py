"""A real Ray, on this machine."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netinv.errors import InputError
from pipeline.distributed import cluster, scatter

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own start-up warns of its future defaults


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module
    with cluster(None):
        yield


def _count(factor: int, job: int) -> Iterator[int]:
    for i in range(3):
        yield factor * (10 * job + i)


def _die_once(folder: str, job: int) -> Iterator[int]:
    yield job
    marker = Path(folder) / str(job)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield job + 1


def _fail(_: None, job: int) -> Iterator[int]:
    yield job
    raise FloatingPointError("The inversion loss is nan at step 3; lower the lr.")


def test_every_job_streams_its_events_in_order(ray_cluster: None) -> None:
    events = list(scatter(_count, [0, 1, 2], (2,)))
    for index in range(3):
        assert [event for i, event in events if i == index] == [2 * (10 * index + i) for i in range(3)]


def test_a_job_whose_worker_is_killed_is_done_again(ray_cluster: None, tmp_path: Path) -> None:
    events = list(scatter(_die_once, [5, 7], (str(tmp_path),)))
    assert {event for i, event in events if i == 0} == {5, 6}
    assert {event for i, event in events if i == 1} == {7, 8}


def test_the_error_of_a_job_reaches_the_driver_as_itself(ray_cluster: None) -> None:
    with pytest.raises(FloatingPointError, match="at step 3"):
        list(scatter(_fail, [0], (None,)))


def test_a_job_that_no_node_can_hold_is_refused_at_once(ray_cluster: None) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=r"asks for 1000 CPUs and 0 GPUs .* but the nodes have"):
        next(scatter(_count, [0], (1,), num_cpus=1000))
    with pytest.raises(InputError, match="asks for 1 CPUs and 64 GPUs"):
        next(scatter(_count, [0], (1,), num_gpus=64))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:9", "No Ray cluster answers at RAY_ADDRESS=127.0.0.1:9"), ("nonsense", "is no address")],
)
def test_unreachable_address_is_refused_within_seconds(address: str, words: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=words), cluster(address):
        pass
    assert time.monotonic() - start < 10
