"""A real Ray, on this machine."""

import inspect
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest
import torch
import torch.distributed as dist
from draws import torch_rng

from netinv.core import InputError
from netinv.interpretation import DictionaryConfig, Wanted, train_dictionary
from pipeline import interpret
from pipeline.cluster import check_address, cluster, connection, jobs_per_worker, resources, run_tasks, workarounds
from pipeline.params import Range, RayParams

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


def needs(num_workers: int = 1, num_cpus: float = 1, num_gpus: float = 0) -> RayParams:
    return RayParams(
        num_workers=num_workers, num_cpus=num_cpus, num_gpus=num_gpus, checkpoint_every=1, storage="unused"
    )


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
        assert "generator 1: its worker died, it goes on from its last checkpoint" in capfd.readouterr().err


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


def test_a_cluster_that_may_grow_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of an autoscaler's have a group, which is a label."""
    import ray

    def node(labels: dict[str, str], **more: float) -> dict[str, Any]:
        return {"Alive": True, "Resources": {"CPU": 4.0, **more}, "Labels": labels}

    def bundle() -> resources.ResourceBundle:
        return resources.ResourceBundle.of(needs(num_gpus=1), 1)

    there = [node({"ray.io/node-id": "0"})]
    monkeypatch.setattr(ray, "nodes", lambda: there)
    with pytest.raises(InputError, match="asks for 1 x 1 CPUs and 1 GPUs"):
        bundle()
    there[0] = node({"ray.io/node-id": "0", "ray.io/node-group": "headgroup"})
    assert "the nodes have 4 CPUs and 0 GPUs" in (bundle().shortage() or "")
    assert jobs_per_worker(9, needs(num_gpus=1)) == 1
    there.append(node({}, GPU=3.0))
    assert bundle().shortage() is None
    assert jobs_per_worker(9, needs(num_gpus=1)) == 3


@pytest.mark.parametrize("gpus", [{}, {"GPU": 1.0}])
@pytest.mark.parametrize("address", [None, "host:6379"])
def test_a_given_cluster_without_a_gpu_is_used_and_named_once(
    address: str | None, gpus: dict[str, float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resources, "_nodes", lambda: [{"CPU": 4.0, **gpus}])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    resources._tell.cache_clear()
    wanted = needs().model_copy(update={"num_gpus": None})
    assert [resources.ResourceBundle.of(wanted, 1).num_gpus for _ in range(2)] == [len(gpus)] * 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == (1 if address and not gpus else 0)
    assert all("ray.num_gpus=1 waits for GPUs to join" in line for line in told)


GROWING = """
import os, threading
from typing import NamedTuple
import ray
from ray.cluster_utils import Cluster
from pipeline.cluster import run_tasks
from pipeline.params import RayParams

class Told(NamedTuple):
    number: int
    state: bytes | None = None

def work(job, state):
    yield Told(job)

os.environ["RAY_NODE_TYPE_NAME"] = "headgroup"
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
ray.init(address=cluster.address, logging_level="ERROR")
needs = RayParams(num_workers=1, num_cpus=1, num_gpus=1, checkpoint_every=1, storage="unused")
events = []
driver = threading.Thread(target=lambda: events.extend(run_tasks(work, {0: 7}, (), {}, needs)))
driver.start()
driver.join(8)
cluster.add_node(num_cpus=1, num_gpus=1)
driver.join()
print([event.number for _, event in events])
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow  # a cluster of its own, and the patience of 5 s
def test_a_generator_waits_for_the_node_that_can_hold_it() -> None:
    result = subprocess.run([sys.executable, "-c", GROWING], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip().endswith("[7]"), result.stderr[-2000:]
    assert "waiting for a node to join: A generator asks for 1 x 1 CPUs and 1 GPUs" in result.stderr


def _device(_: None, job: int, state: bytes | None) -> Iterator[Told]:
    from pipeline.cluster import device

    torch.cuda.is_available = lambda: True
    yield Told(len(device()), device().encode())


def test_a_worker_that_was_given_no_gpu_takes_none(ray_cluster: None) -> None:
    """Whatever it can see of those of its node."""
    events = list(run_tasks(_device, {0: 0}, (None,), {}, needs()))
    assert [event.state for _, event in events] == [b"cpu"]


def test_what_a_worker_trains_is_on_the_device_that_it_was_given(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    import ray

    from netinv.classifiers import ConvClassifierConfig, build_classifier
    from netinv.generators import GeneratorConfig
    from netinv.inversion import InversionConfig
    from pipeline.cluster import device
    from pipeline.generators import Job, train_generator
    from pipeline.params import load_params
    from pipeline.tune import train_trial

    given: list[str] = []

    def available() -> bool:  # says torch to the pipeline; what torch tells itself stays true
        name: str = sys._getframe(1).f_globals["__name__"]
        return name.startswith("pipeline.")

    monkeypatch.setattr(torch.cuda, "is_available", available)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert device() == "cuda"
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": given})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    assert device() == "cpu"
    params = load_params(root / "params.yaml")
    classifier = build_classifier(ConvClassifierConfig(channels=(4,), feature_dim=8), 3, (1, 8, 8), (0.5,), (0.5,))
    architecture = GeneratorConfig(latent_dim=4, hidden_dim=12, width=4, max_width=4)
    config = InversionConfig(steps=1, log_every=1, batch_size=9)
    assert list(train_generator(classifier, 1, Job(0, architecture, config), None))
    tune = params.tune.model_copy(update={"samples_per_class": 2, "attack_steps": 1})
    common = params.for_dataset("digits").invert.common
    assert list(train_trial(classifier, common, config.model_dump(mode="json"), tune, {}))
    rows = {"generated": torch.randn(60, 6, generator=torch_rng(0))}
    dictionary = DictionaryConfig(units=12, active=3, steps=1, batch_size=16)
    assert list(interpret.train(rows, Wanted("a", "generated", "generated", dictionary), None))
    given.append("0")
    assert device() == "cuda"


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        ([{"CPU": 8}], {}, 1),
        ([{"CPU": 8}], {"generators_per_worker": 4}, 4),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8}], {}, 5),  # on two GPUs
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8}], {"num_gpus": 0.5}, 3),  # four workers
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8}], {"num_gpus": 0}, 1),
        ([{"CPU": 8, "GPU": 2}], {"num_workers": 2}, 1),
        ([{"CPU": 64, "GPU": 16}], {}, 1),
    ],
)
def test_generators_share_a_worker_on_gpus_so_that_none_waits(
    nodes: list[dict[str, float]], settings: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_nodes", lambda: nodes)
    defaults = {"num_workers": 1, "num_cpus": 1, "num_gpus": None, "checkpoint_every": 1, "storage": "unused"}
    assert jobs_per_worker(9, RayParams(**defaults | settings)) == expected


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


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:9", "No Ray cluster answers at RAY_ADDRESS=127.0.0.1:9"), ("nonsense", "is no address")],
)
def test_unreachable_address_is_refused_within_seconds(address: str, words: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=words), cluster(address):
        pass
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0", None])
def test_what_is_not_ray_is_refused_within_seconds(answer: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that close, speak HTTP, say too little, or nothing at all."""
    assert connection.PATIENCE == 5
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve() -> None:
            connected, _ = server.accept()
            with connected:
                connected.recv(64)
                if answer is not None:
                    connected.sendall(answer)
                if answer is None or answer == b"\0":
                    ended.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        begin = time.monotonic()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match=r"No Ray cluster answers at RAY_ADDRESS=.*(not Ray|timed out)"):
            check_address(address)
        assert time.monotonic() - begin < 3
        ended.set()
        thread.join()


def test_ray_itself_is_known_by_its_answer(ray_cluster: None) -> None:
    import ray

    check_address(ray.get_runtime_context().gcs_address)


@pytest.mark.parametrize(
    ("refusal", "given", "words"),
    [
        ("UNAUTHENTICATED", {}, "asks for a token, and is given none: set RAY_AUTH_MODE=token"),
        ("UNAUTHENTICATED", {"RAY_AUTH_TOKEN": "of-another"}, "asks for a token, and refuses the one"),
        ("UNIMPLEMENTED", {}, "is another port of Ray's"),
        (None, {"RAY_AUTH_TOKEN": "its"}, ""),
    ],
)
def test_a_cluster_that_asks_for_a_token_or_is_of_another_kind_says_so_at_once(
    refusal: str | None, given: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import grpc

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    told: list[Any] = []

    class Head(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            def answer(request: bytes, context: Any) -> bytes:
                told.append((call.method, dict(context.invocation_metadata()).get("authorization")))
                if refusal:
                    context.abort(grpc.StatusCode[refusal], "no")
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Head()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    begun = time.monotonic()
    try:
        if refusal is None:
            check_address(f"127.0.0.1:{port}")
        else:
            with pytest.raises(InputError, match=words):
                check_address(f"127.0.0.1:{port}")
    finally:
        server.stop(0)
    assert time.monotonic() - begun < 5
    token = given.get("RAY_AUTH_TOKEN")
    assert told == [("/ray.rpc.NodeInfoGcsService/CheckAlive", f"Bearer {token}" if token else None)]


@pytest.mark.parametrize("address", ["[::1]:6379", "head.example:6379", "10.0.0.1:6379"])
def test_every_form_of_an_address_is_understood(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(connection, "_expect_grpc", lambda connection: None)
    monkeypatch.setattr(connection, "_expect_service", lambda address: None)
    monkeypatch.setattr(connection.socket, "create_connection", lambda to, timeout: asked.append(to) or socket.socket())
    check_address(address)
    host, _, port = address.rpartition(":")
    assert asked == [(host.strip("[]"), int(port))]


@pytest.mark.parametrize("address", ["[::1]", "::1:6379", "[]:6379", "host:", ":6379", "host:port", "http://host:6379"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="is no address"):
        check_address(address)


def test_ray_client_is_refused_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would connect, and refuse the first generator: it knows no streams."""
    monkeypatch.setattr(connection.socket, "create_connection", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(InputError, match=r"is of Ray Client, .* host:6379, or submit the pipeline as a job"):
        check_address("ray://10.0.0.1:10001")


SIGNALS = """
import signal
import ray

def ours(*_): ...

signal.signal(signal.SIGTERM, ours)
ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
print(signal.getsignal(signal.SIGTERM) is ours)
ray.shutdown()
print(signal.getsignal(signal.SIGTERM) is ours)
"""


@pytest.mark.slow  # a cluster of its own
def test_the_workaround_for_signals_is_still_needed() -> None:
    """Once Ray leaves a program's handlers alone, `signals_kept` can go."""
    command = [sys.executable, "-W", "ignore", "-c", SIGNALS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["False", "False"], result.stderr[-2000:]


def test_ray_still_says_that_a_node_is_late_in_the_words_that_are_looked_for() -> None:
    from ray._private import node

    assert workarounds.LATE in inspect.getsource(node)


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


SEARCH = """
import sys, time
from pathlib import Path
from pipeline.cluster import cluster, search
from pipeline.params import Range, RayParams

def task(seconds, settings):
    for share in (0.25, 0.5, 1.0):
        time.sleep(seconds)
        yield {"share": share, "step": share, "samples": share, "score": settings["x"], "a": settings["x"], "b": 1.0}

needs = RayParams(num_workers=1, num_cpus=1, num_gpus=0, checkpoint_every=1, storage="unused")
with cluster(None):
    trials = search(
        task, (float(sys.argv[2]),), {"x": Range(low=0.0, high=1.0)}, ("a", "b"), 4, 0, Path(sys.argv[1]), needs,
        lambda trial: print(trial.name, trial.outcome, flush=True),
    )
print("all", len(trials), *sorted({trial.outcome for trial in trials}))
"""


@pytest.mark.parametrize("state", [None, "", "{", "{}"])
def test_a_search_that_was_killed_before_it_had_drawn_anything_begins_anew(
    state: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray Tune would restore it without its space, and fail at every later call."""
    from ray import tune

    from pipeline.cluster.search import _new_tuner, _restored

    def work(settings: dict[str, Any]) -> None: ...

    folder = tmp_path / "search"
    assert _restored(work, folder) is None
    assert capsys.readouterr().err == ""
    _new_tuner(work, {"x": Range(low=0.0, high=1.0)}, ("a",), 4, 0, folder)
    if state is not None:
        (folder / "experiment_state-2026-01-01_00-00-00.json").write_text(state)
    assert tune.Tuner.can_restore(folder)
    assert _restored(work, folder) is None
    assert not folder.exists()
    assert "cannot go on" in capsys.readouterr().err


@pytest.mark.slow  # two clusters start
def test_a_search_that_is_killed_tells_of_its_trials_when_it_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SEARCH, str(tmp_path / "search")]
    killed = subprocess.Popen([*command, "1.0"], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert killed.stdout is not None
    for line in killed.stdout:
        if not line.endswith("running\n"):
            break
    time.sleep(2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    result = subprocess.run([*command, "0.1"], capture_output=True, text=True, timeout=300)
    lines = result.stdout.splitlines()
    assert lines[-1] == "all 4 finished stopped early", result.stdout + result.stderr[-2000:]
    assert len({line for line in lines if not line.endswith("running")}) == 5  # each trial once, and the last line
    assert result.stderr == ""


@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_ends_with_one_sentence_and_no_output_of_rays() -> None:
    code = (
        "import os, signal\nfrom typing import NamedTuple\nfrom pipeline.cluster import cluster, run_tasks\n"
        "from pipeline.params import RayParams\n"
        "def die(job, state): os.kill(os.getpid(), signal.SIGKILL); yield\n"
        "needs = RayParams(num_workers=1, num_cpus=1, num_gpus=0, checkpoint_every=1, storage='unused')\n"
        "with cluster(None):\n    list(run_tasks(die, {0: 0}, (), {}, needs))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert result.stdout == ""
    assert "InputError: The worker of generator 0 died 4 times in a row" in result.stderr
