"""What ``gpu.py`` measures, a part each: generators of rows, which stop by themselves when their time is up."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from gpu_common import CONFIGS, Options, Part, Row
from gpu_correctness import correctness
from gpu_goals import fast, goals
from gpu_rates import rates, shares
from measuring import fresh_classifier

from netinv.generators import GeneratorConfig


def ray(options: Options) -> Iterator[Row]:
    """Four generators of a stage: a GPU each, a quarter each, and as the pipeline has them by default."""
    from pipeline.cluster import cluster, jobs_per_worker, run_tasks
    from pipeline.generators import Job, train_generator, train_generators

    config = CONFIGS["standard"]
    if options.small:
        config = config.model_copy(update={"steps": 10, "batch_size": 8})
    jobs = {seed: Job(seed, GeneratorConfig(), config) for seed in range(4)}
    shared = (fresh_classifier((1, 28, 28), torch.device("cpu")), config.steps)
    gpu = options.device.type == "cuda"

    def resources(num_gpus: float | None) -> Any:
        return SimpleNamespace(
            num_workers=1, num_cpus=1.0, num_gpus=num_gpus, generators_per_worker=None, checkpoint_every=config.steps
        )

    def seconds(task: Any, work: dict[int, Any], needs: Any) -> tuple[float, float, int]:
        start, first, events = time.perf_counter(), 0.0, 0
        for _, _ in run_tasks(task, work, shared, {}, needs):
            first, events = first or time.perf_counter() - start, events + 1
        return time.perf_counter() - start, first, events

    begun = time.perf_counter()
    with cluster(None):
        yield Row("a local cluster: seconds to start", f"{time.perf_counter() - begun:.1f}", "", {})
        for num_gpus in (1.0, 0.25) if gpu else (0.0,):
            whole, first, events = seconds(train_generator, jobs, resources(num_gpus))
            yield Row(
                f"4 generators with num_gpus {num_gpus:g} each: seconds in all, to the first event",
                f"{whole:.1f}, {first:.1f}",
                f"{events} events",
                {"seconds": whole, "first_event": first, "events": events},
            )
        together = jobs_per_worker(len(jobs), resources(None if gpu else 0.0))
        if together > 1:
            whole, first, events = seconds(train_generators, {0: tuple(jobs.values())}, resources(None))
            yield Row(
                "the default, all as one program on one worker: seconds in all, to the first event",
                f"{whole:.1f}, {first:.1f}",
                f"{together} generators",
                {"seconds": whole, "first_event": first, "events": events},
            )
        else:
            yield Row("the default", "one generator on each worker", "as on any CPU", {"together": together})


PARTS: dict[str, tuple[Part, float]] = {
    "correctness": (correctness, 70.0),
    "shares": (shares, 50.0),
    "rates": (rates, 110.0),
    "goals": (goals, 100.0),
    "ray": (ray, 80.0),
    "fast": (fast, 60.0),
}
"""Each with the seconds it may take."""
