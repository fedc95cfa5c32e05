"""A real Ray, on this machine."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
import torch.distributed as dist
from draws import torch_rng
from ray_needs import needs

from netinv.core import InputError
from netinv.interpretation import DictionaryConfig, Wanted, train_dictionary
from pipeline import interpret
from pipeline.cluster import check_address, cluster, connection, run_tasks, tasks, workarounds

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own start-up warns of its future defaults


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module
    with cluster(None):
        yield


class Told(NamedTuple):
    """An event."""

    number: int
    state: bytes | None = None


def numbers(events: Iterable[tuple[int, Told]], index: int) -> list[int]:
    return [event.number for i, event in events if i == index]


def _count(factor: int, job: int, state: bytes | None) -> Iterator[Told]:
    for i in range(3):
        yield Told(factor * (10 * job + i))


def _die_once(folder: str, job: int, state: bytes | None) -> Iterator[Told]:
    """Count to 4 with a state at 2; die after 3."""
    for number in range(int(state or 0) + 1, 5):
        yield Told(number, b"2" if number == 2 else None)
        marker = Path(folder) / str(job)
        first = not dist.is_initialized() or dist.get_rank() == 0
        if number == 3 and first and not marker.exists():
            marker.touch()
            time.sleep(1)  # a little, so that the events are on their way
            os.kill(os.getpid(), signal.SIGKILL)
        if dist.is_initialized():
            dist.barrier()  # the others cannot go on without this one


def _lose_the_controller_once(folder: str, job: int, state: bytes | None) -> Iterator[Told]:
    """Count to 3 with a state at 1; after 2 kill what looks after the workers."""
    for number in range(int(state or 0) + 1, 4):
        yield Told(number, b"1" if number == 1 else None)
        marker = Path(folder) / str(job)
        if number == 2 and dist.get_rank() == 0 and not marker.exists():
            marker.touch()
            (controller,) = [p for p in psutil.process_iter() if "ray::TrainController" in " ".join(p.cmdline()[:1])]
            controller.kill()
            time.sleep(60)  # the workers end with it
        dist.barrier()


def _lose_the_group_once(folder: str, job: int, state: bytes | None) -> Iterator[Told]:
    """Count to 3 with a state at 1; after 2 kill the actor that has the work done."""
    for number in range(int(state or 0) + 1, 4):
        yield Told(number, b"1" if number == 1 else None)
        marker = Path(folder) / str(job)
        if number == 2 and dist.get_rank() == 0 and not marker.exists():
            marker.touch()
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    if "ray::WorkerGroup" in " ".join(process.cmdline()[:1]):
                        process.kill()
                        marker.write_text("killed")
            time.sleep(60)  # the workers end with it
        dist.barrier()


def _fail(_: None, job: int, state: bytes | None) -> Iterator[Told]:
    yield Told(job)
    raise FloatingPointError("The inversion loss is nan at step 3; lower the lr.")


def test_every_job_streams_its_events_in_order(ray_cluster: None) -> None:
    events = list(run_tasks(_count, {0: 0, 1: 1, 5: 2}, (2,), {}, needs()))
    for index, job in ((0, 0), (1, 1), (5, 2)):
        assert numbers(events, index) == [2 * (10 * job + i) for i in range(3)]


EITHER = pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])


@pytest.mark.slow
def test_dictionaries_of_a_cluster_are_those_trained_here(ray_cluster: None) -> None:
    rows = {"generated": 2 + torch.randn(60, 6, generator=torch_rng(0))}
    config = DictionaryConfig(units=12, active=3, steps=20, batch_size=16)
    wanted = [Wanted(name, name, "generated", config) for name in ("generated", "random")]
    events = dict(run_tasks(interpret.train, dict(enumerate(wanted)), (rows,), {}, needs()))
    for index, one in enumerate(wanted):
        found = interpret._loaded(events[index].state, 6, one).state_dict()
        for name, value in train_dictionary(rows["generated"], config, one.source).state_dict().items():
            assert torch.allclose(found[name], value, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "address", "expected"), [(20, None, "here"), (1_000_000, None, "cluster"), (20, "auto", "cluster")]
)
def test_small_dictionaries_wait_for_no_cluster(
    steps: int, address: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("netinv.interpretation.in_turn", lambda rows, wanted: [("here", None)])
    monkeypatch.setattr(interpret, "_on_cluster", lambda ray, address, rows, wanted: [("cluster", None)])
    config = DictionaryConfig(units=256, active=3, steps=steps, batch_size=256)
    trained = interpret._trainer(needs())({"noise": torch.zeros(4, 128)}, [Wanted("noise", "noise", "noise", config)])
    assert [name for name, _ in trained] == [expected]


@EITHER
def test_a_job_whose_worker_is_killed_goes_on_from_its_last_state(
    ray_cluster: None, tmp_path: Path, num_workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = needs(num_workers, num_cpus=0.5)
    events = list(run_tasks(_die_once, {0: 5, 1: 7}, (str(tmp_path),), {1: b"1"}, wanted))
    assert numbers(events, 0) == [1, 2, 3, 3, 4]
    assert numbers(events, 1) == [2, 3, 3, 4]
    if num_workers == 1:  # else Ray Train sees to it
        assert "training 1: its worker died, it goes on from its last state" in capfd.readouterr().err


@pytest.mark.slow
def test_a_group_that_is_killed_leaves_no_folder_outside_of_ray_s(ray_cluster: None, tmp_path: Path) -> None:
    def left() -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob("*/*/.validate_storage_marker"))  # what Ray Train writes first

    before = left()
    wanted = needs(2, num_cpus=0.5)
    assert numbers(run_tasks(_lose_the_group_once, {0: 0}, (str(tmp_path),), {}, wanted), 0) == [1, 2, 2, 3]
    assert (tmp_path / "0").read_text() == "killed"
    assert left() == before


QUARTERS = """
import sys, time
from pathlib import Path
from typing import NamedTuple
import ray
from pipeline.cluster import run_tasks
from pipeline.params import RayParams

class Told(NamedTuple):
    gpus: str
    state: bytes | None = None

def together(folder, job, state):
    import os
    Path(folder, str(job)).touch()
    while len(list(Path(folder).iterdir())) < 4:
        time.sleep(0.05)
    yield Told(os.environ["CUDA_VISIBLE_DEVICES"])

ray.init(address="local", num_cpus=1, num_gpus=1, include_dashboard=False, logging_level="ERROR")
quarter = RayParams(num_workers=1, num_cpus=0.25, num_gpus=0.25, checkpoint_every=1, storage="unused")
print([event.gpus for _, event in run_tasks(together, {i: i for i in range(4)}, (sys.argv[1],), {}, quarter)])
"""


@pytest.mark.slow  # a cluster of its own, and four workers
def test_four_generators_share_one_gpu(tmp_path: Path) -> None:
    """Ray believes that there is one: each of the four begins before any of them ends."""
    result = subprocess.run(
        [sys.executable, "-c", QUARTERS, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert result.stdout.strip() == "['0', '0', '0', '0']", result.stderr[-2000:]


@pytest.mark.slow  # groups of workers take seconds to start
def test_workers_without_a_controller_leave_their_resources_to_the_next(ray_cluster: None, tmp_path: Path) -> None:
    wanted = needs(num_workers=2, num_cpus=(os.cpu_count() or 2) / 2)  # all there is
    events = list(run_tasks(_lose_the_controller_once, {0: 0}, (str(tmp_path),), {}, wanted))
    assert numbers(events, 0) == [1, 2, 2, 3]


@EITHER
def test_the_error_of_a_job_reaches_the_driver_as_itself(ray_cluster: None, num_workers: int) -> None:
    with pytest.raises(FloatingPointError, match="at step 3"):
        list(run_tasks(_fail, {0: 0}, (None,), {}, needs(num_workers, num_cpus=0.5)))


def test_a_job_that_the_cluster_can_never_hold_is_refused_at_once(ray_cluster: None) -> None:
    start = time.monotonic()
    for wanted, words in (
        (needs(num_cpus=1000), r"asks for 1 x 1000 CPUs and 0 GPUs .* but the nodes have"),
        (needs(num_gpus=64), "asks for 1 x 1 CPUs and 64 GPUs"),
        (needs(num_workers=1000), "asks for 1000 x 1 CPUs"),
    ):
        with pytest.raises(InputError, match=words):
            next(run_tasks(_count, {0: 0}, (1,), {}, wanted))
    assert time.monotonic() - start < 5


def _be_late(_: None, job: int, state: bytes | None) -> Iterator[Told]:
    time.sleep(0.5)
    yield Told(job)


def test_a_stage_that_hears_nothing_says_what_it_may_wait_for(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Others may hold all of a cluster that is large enough."""
    monkeypatch.setattr(tasks, "_PATIENCE", 0.1)
    monkeypatch.setattr(tasks, "_LONG", 0.2)
    assert numbers(run_tasks(_be_late, {0: 7}, (None,), {}, needs()), 0) == [7]
    assert capsys.readouterr().err.count("where other work holds the cluster, see `ray status`") == 1


def _device(_: None, job: int, state: bytes | None) -> Iterator[Told]:
    from pipeline.cluster import device

    torch.cuda.is_available = lambda: True
    yield Told(len(device()), device().encode())


def test_a_worker_that_was_given_no_gpu_takes_none(ray_cluster: None) -> None:
    """Whatever it can see of those of its node."""
    events = list(run_tasks(_device, {0: 0}, (None,), {}, needs()))
    assert [event.state for _, event in events] == [b"cpu"]


ENDED = """
import time
from pipeline.cluster import cluster, run_tasks
from pipeline.params import RayParams
from pipeline.stage import stage_command

def work(job, state):
    time.sleep(300)
    yield

@stage_command
def main():
    needs = RayParams(num_workers=1, num_cpus=1, num_gpus=0, checkpoint_every=1, storage="unused")
    with cluster(None):
        print("ready", flush=True)
        try:
            list(run_tasks(work, {0: 0}, (), {}, needs))
        except BaseException as error:
            print([kind.__name__ for kind in type(error).mro()])
            raise

main()
"""


@pytest.mark.parametrize(
    ("killed", "status", "sentence"),
    [
        (None, 143, "Terminated; nothing half-written was left behind."),
        pytest.param("gcs_server", 2, "on this machine has died: run the stage again.", marks=pytest.mark.slow),
        pytest.param("raylet", 2, "on this machine has died", marks=pytest.mark.slow),
        pytest.param("the stage", -signal.SIGKILL, None, marks=pytest.mark.slow),
    ],
)
def test_a_stage_ends_in_seconds_when_it_or_its_cluster_does(
    killed: str | None, status: int, sentence: str | None
) -> None:
    """Until then its cluster is reached from this machine alone, and afterwards nothing is left."""
    # Not in pytest's folder, whose path is too long for sockets.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as place:
        another = Path(place) / "netinv-ray-of-a-stage-that-was-killed"
        another.mkdir(mode=0o700)
        (another / "lock").touch()
        stage = subprocess.Popen(
            [sys.executable, "-c", ENDED],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "RAY_TMPDIR": place},
        )
        assert stage.stdout is not None
        assert stage.stdout.readline() == "ready\n"
        while not any("ray::" in "".join(p.cmdline()[:1]) for p in psutil.Process(stage.pid).children(recursive=True)):
            time.sleep(0.1)  # until a worker has begun
        family = psutil.Process(stage.pid).children(recursive=True)
        pids = {process.pid for process in family} | {stage.pid}
        there = [one.laddr.ip for one in psutil.net_connections() if one.status == "LISTEN" and one.pid in pids]
        assert len(there) > 5
        assert {address.removeprefix("::ffff:") for address in there} == {"127.0.0.1"}
        assert [oct(path.stat().st_mode) for path in Path(place).iterdir()] == ["0o40700"]
        begun = time.monotonic()
        if killed is None:
            stage.send_signal(signal.SIGTERM)
        elif killed == "the stage":
            stage.kill()
        else:
            next(process for process in family if process.name() == killed).kill()
        output, errors = stage.communicate(timeout=60)
        assert time.monotonic() - begun < 30  # GRACE, and a busy machine
        assert stage.returncode == status
        if sentence is not None:
            assert errors.startswith("error: ")
            assert sentence in errors
            assert len(errors.splitlines()) == 1
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
        assert list(Path(place).iterdir()) == []
        if killed is None:  # Ray itself may hang on what was killed
            assert "KeyboardInterrupt" in output  # what the run in MLflow goes by


def test_ray_itself_is_known_by_its_answer(ray_cluster: None) -> None:
    import ray

    check_address(ray.get_runtime_context().gcs_address)


def test_a_head_that_answers_no_more_ends_the_stage(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would end the process after a minute, without a word of what to do; a short silence may pass."""
    ended: list[InputError] = []
    monkeypatch.setattr(connection, "end", ended.append)
    answers = iter([None, OSError(), InputError("another token"), OSError(), *[TimeoutError()] * 999])

    def ask(address: str, _: socket.socket) -> None:
        if error := next(answers):
            raise error

    lost = connection._head_lost("head:6379")
    assert lost() is None  # by Ray itself
    monkeypatch.setattr(connection, "_expect_head", ask)
    assert [lost() for _ in range(4)] == [None] * 4
    monkeypatch.setattr(connection, "SILENCE", 0.2)
    with connection._watched(lost, 0.01):
        deadline = time.monotonic() + 30
        while not ended:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "The head of the Ray cluster at RAY_ADDRESS=head:6379 has not answered" in str(ended[0])


def test_the_workaround_for_reservations_of_dead_actors_is_still_needed(ray_cluster: None) -> None:
    """Once Ray frees a placement group with the actor that made it, `pipeline/cluster/workarounds.py` can go."""
    import ray
    from ray.util import placement_group_table

    class Reserver:
        def reserve(self) -> str:
            group = ray.util.placement_group([{"CPU": 0.25}])
            group.wait(30)
            reserved: str = group.id.hex()
            return reserved

    def state() -> str:
        found: str = placement_group_table()[reserved]["state"]
        return found

    actor: Any = ray.remote(Reserver).options(num_cpus=0).remote()
    reserved = ray.get(actor.reserve.remote())
    ray.kill(actor)
    time.sleep(3)
    assert state() == "CREATED", "Ray frees it by itself now: remove the workaround."
    workarounds.remove_reservations_of_dead_actors()
    assert state() == "REMOVED"
