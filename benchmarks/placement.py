"""Many GPUs, simulated: where Ray puts generators and groups on nodes of this machine that only say they have GPUs.

``python benchmarks/placement.py`` starts a Ray cluster of 8 nodes that declare 8 GPUs each, and runs on it what the
pipeline runs (``pipeline.cluster.run_tasks``), with tasks that wait in place of training:

* placement: 64 generators with a GPU each; how many each node holds, and the time until all are at work
* groups: 8 groups of 8 workers, as Ray Train reserves them; how many nodes each is spread over, and the time
* loss: 56 generators, a node of 8 is killed; the time until those that it held are at work elsewhere
* reckoned: what workers that share a generator's batch exchange in a step, over a link's bandwidth, up to 1,000 GPUs

Nothing here is a measurement of a GPU or of a network: the first three are of Ray's scheduler on this machine, whose
few cores also have to start all of the workers, and the last is arithmetic. It writes ``placement.json`` and a dated
table beside this file.
"""

import argparse
import json
import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
Row = tuple[str, str]
PATIENCE = 600.0
"""Seconds in which a simulated node comes up."""


class Event(NamedTuple):
    """What a task tells: where it is."""

    node: str
    ended: bool
    state: bytes | None


def wait(folder: str, job: int, state: bytes | None) -> Iterator[Event]:
    """A generator in training, as far as the scheduler can see: at work until a file says that it may end."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    yield Event(node, False, b"begun")
    while not (Path(folder) / "end").exists():
        time.sleep(0.2)
    yield Event(node, True, b"done")


def needs(num_gpus: float) -> Any:
    """What a generator asks for, as in ``params.yaml``."""
    return SimpleNamespace(num_workers=1, num_cpus=1.0, num_gpus=num_gpus, generators_per_worker=None)


@contextmanager
def declared(nodes: int, gpus: int) -> Iterator[tuple[Any, list[Any], float]]:
    """A cluster of nodes that declare GPUs, and a head that has none; with the seconds it took."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    import ray
    from ray.cluster_utils import Cluster

    _be_patient()
    begun = time.perf_counter()
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        own = [machines.add_node(num_cpus=gpus, num_gpus=gpus) for _ in range(nodes)]
        ray.init(address=machines.address, log_to_driver=False, logging_level="ERROR")
        yield machines, own, time.perf_counter() - begun
    finally:
        ray.shutdown()
        machines.shutdown()


def _be_patient() -> None:
    """Let a node take ten minutes to come up: Ray's own half a minute is written into its code, and cores are few."""
    from ray._private import services

    find = services.get_node

    def get_node(*arguments: Any) -> Any:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return find(*arguments)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    services.get_node = get_node


def spread(places: dict[int, str]) -> str:
    """How many jobs each node holds, the most first."""
    return " ".join(str(count) for _, count in Counter(places.values()).most_common())


def placement(num: int, folder: Path) -> Iterator[tuple[str, dict[str, Any], Row]]:
    """Generators with a GPU each."""
    from pipeline.cluster import run_tasks

    (folder / "end").unlink(missing_ok=True)
    begun, places, seconds = time.perf_counter(), dict[int, str](), []
    for job, event in run_tasks(wait, {i: i for i in range(num)}, (str(folder),), {}, needs(1.0)):
        if event.ended:
            continue
        places[job] = event.node
        seconds.append(time.perf_counter() - begun)
        if len(places) == num:
            (folder / "end").touch()
    told = f"{seconds[0]:.1f} s to the first, {seconds[-1]:.1f} s to the last at work; by node: {spread(places)}"
    figures = {"first_s": seconds[0], "all_s": seconds[-1], "by_node": list(Counter(places.values()).values())}
    yield "placement", figures, (f"{num} generators, a GPU each", told)


def groups(num: int, size: int) -> Iterator[tuple[str, dict[str, Any], Row]]:
    """Reservations as Ray Train makes them for workers that share a batch: bundles, packed. No worker is started."""
    import ray
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    begun = time.perf_counter()
    made = [placement_group([{"CPU": 1.0, "GPU": 1.0}] * size, strategy="PACK") for _ in range(num)]
    ray.get([group.ready() for group in made])
    seconds = time.perf_counter() - begun
    nodes = [len(set(placement_group_table(group)["bundles_to_node_id"].values())) for group in made]
    for group in made:
        remove_placement_group(group)
    told = f"{seconds:.1f} s until all are reserved; nodes of a group: {' '.join(map(str, nodes))}"
    yield "groups", {"seconds": seconds, "nodes_by_group": nodes}, (f"{num} groups of {size} workers", told)


def loss(num: int, folder: Path, machines: Any, own: list[Any]) -> Iterator[tuple[str, dict[str, Any], Row]]:
    """A node is killed while generators are at work, and as many GPUs as it had are free."""
    from pipeline.cluster import run_tasks

    (folder / "end").unlink(missing_ok=True)
    places, lost, again = dict[int, str](), set[int](), dict[int, float]()
    killed: list[float] = []

    def kill() -> None:
        killed.append(time.perf_counter())
        machines.remove_node(victim, allow_graceful=False)

    thread, victim = threading.Thread(target=kill), own[0]
    for job, event in run_tasks(wait, {i: i for i in range(num)}, (str(folder),), {}, needs(1.0)):
        if event.ended:
            continue
        if job in places:
            again[job] = time.perf_counter() - killed[0]
        places[job] = event.node
        if len(places) == num and not killed and not thread.is_alive():
            counts = Counter(places.values())
            victim = max(own, key=lambda node: counts[node.node_id])
            lost = {job for job, node in places.items() if node == victim.node_id}
            thread.start()
        if killed and lost <= again.keys():
            (folder / "end").touch()
    thread.join()
    moved = sum(places[job] != victim.node_id for job in lost)
    seconds = sorted(again.values())
    told = (
        f"{len(lost)} lost, {moved} at work elsewhere, the first after {seconds[0]:.1f} s, the last after "
        f"{seconds[-1]:.1f} s; {len(again.keys() - lost)} others were disturbed"
    )
    figures = {"lost": len(lost), "moved": moved, "seconds": seconds, "disturbed": len(again.keys() - lost)}
    yield "loss", figures, (f"a node of {len(own)} is lost under {num} generators", told)


LINKS = {"NVLink, 450 GB/s": 450e9, "400 Gb/s network, 50 GB/s": 50e9}
"""Bytes a second of one GPU, one way, by the makers' sheets."""
LATENCY = 20e-6
"""Seconds of one collective call, taken for granted."""
KINDS = {"1x28x28, 10 classes": ((1, 28, 28), 10, 128), "3x224x224, 1,000 classes": ((3, 224, 224), 1000, 2048)}
"""Shape of an image, classes, and features of the classifier."""


class Exchange(NamedTuple):
    """What a worker takes part in, in a step."""

    received: float
    """Bytes."""
    calls: int
    """Collective operations."""


def exchanged(shape: tuple[int, int, int], classes: int, features: int, batch: int, workers: int) -> Exchange:
    """What ``netinv/inversion/parallel.py`` does in a step of a generator of the usual architecture.

    Gathered are images, logits, features, moments (none here), conditions, labels (8 bytes) and latents of all rows, in
    seven calls. Summed over the workers are the gradients, which a ring sends twice, and of each batch norm two
    statistics, forward and backward, whose few bytes do not count.
    """
    from netinv.generators import BatchNorm, ConditionedGenerator, GeneratorConfig

    generator = ConditionedGenerator(GeneratorConfig(), classes, shape)
    weights = sum(parameter.numel() for parameter in generator.parameters())
    norms = sum(isinstance(module, BatchNorm) for module in generator.modules())
    row = 4 * (math.prod(shape) + 2 * classes + features + generator.config.latent_dim) + 8
    return Exchange((workers - 1) / workers * (batch * row + 2 * 4 * weights), 7 + 1 + 4 * norms)


def reckoned() -> Iterator[tuple[str, dict[str, Any], Row]]:
    """One generator on n GPUs, with 64 images on each: what a step exchanges, and how long that takes at least."""
    for kind, sizes in KINDS.items():
        for workers in (8, 64, 1000):
            received, calls = exchanged(*sizes, batch=64 * workers, workers=workers)
            times = {name: received / rate + calls * LATENCY for name, rate in LINKS.items()}
            told = f"{received / 1e9:.3g} GB; " + ", ".join(f"{1000 * t:.3g} ms by {n}" for n, t in times.items())
            yield f"{kind}, {workers}", {"bytes": received, "seconds": times}, (f"{kind}: {workers} GPUs", told)


def main() -> None:
    """Simulate, reckon, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=8, help="declared by each node")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    given = parser.parse_args()
    import tempfile

    from netinv.core import write_text

    date, total = datetime.now(UTC).date().isoformat(), given.nodes * given.gpus
    results: dict[str, Any] = {"date": date, "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    lines = [
        f"# {date}: many GPUs, simulated and reckoned",
        "",
        f"{given.nodes} Ray nodes on one machine of {os.cpu_count()} cores (load before: {os.getloadavg()[0]:.0f}), "
        f"declaring {given.gpus} GPUs each, of which none exists; tasks wait in place of training. Times are of "
        "starting processes on those cores. Made by `python benchmarks/placement.py`.",
        "",
        "| simulated | |",
        "|---|---|",
    ]

    def tell(rows: Iterator[tuple[str, dict[str, Any], Row]]) -> None:
        for name, figures, row in rows:
            results[name] = figures
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)

    with tempfile.TemporaryDirectory() as place, declared(given.nodes, given.gpus) as (machines, own, seconds):
        results["start_s"] = seconds
        tell(groups(given.nodes, given.gpus))
        tell(placement(total, Path(place)))
        tell(loss(total - given.gpus, Path(place), machines, own))
    lines += ["", "| reckoned: 64 images on each GPU | received by each, and the time for it |", "|---|---|"]
    tell(reckoned())
    write_text(given.out / "placement.json", json.dumps(results, indent=2) + "\n")
    write_text(given.out / f"{date}-placement.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
