"""How fast the library is: one command, everything in one run, contenders in turn.

``python benchmarks/inversion.py --data data/mnist --models models/mnist`` (what ``make repro DATASETS=mnist`` leaves)
measures, against the obvious loop of ``baseline.py`` where that is meaningful:

* steps: samples a second of a training step, and which share of the machine's measured arithmetic that is
* together: eight generators (on a GPU also 1, 4, 16 and 64) as one program, and on workers of one thread each, against
  one after the other
* memory: the peak of a process that trains a generator, as a worker of the pipeline does
* sampling: from an exported generator, see ``onnx_sampling.py``
* goals: seconds until a judge reads 0.99 or 0.95 of the images as what they were drawn for
* classifier: seconds until it reads 0.99 of the test images
* pipeline: wall time of ``dvc repro`` over its science, see ``overhead.py``; it fetches MNIST, or takes NETINV_MIRROR's

It prints a Markdown table as it goes, and writes it with all figures beside this file. It runs on a GPU where there is
one. The first four parts need no files, and ``--parts`` names the ones wanted.
"""

import argparse
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from inversion_common import BLOCK, CONFIGS, STANDARD, Row, trainings
from inversion_goals import classifier_part, goals_part
from inversion_processes import memory_part, pipeline_part, sampling_part
from measuring import Arithmetic, fresh_classifier, machine_rates, processor, spread, synchronize, timed, told

from netinv.classifiers import Classifier
from netinv.core import write_text
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionTraining, JointTraining

TOGETHER = 8
"""Generators at once."""


def step_times(classifier: Classifier, variant: str, turns: int) -> dict[str, Any]:
    """Samples a second of both, in turn, and the arithmetic of a step."""
    times: dict[str, list[float]] = {"netinv": [], "baseline": []}
    contenders = trainings(classifier, variant, seed=0, steps=BLOCK * (turns + 2))
    flops = {}
    for name, (_, steps) in contenders.items():  # these warm up as well
        with Arithmetic() as counter:
            next(steps)
        flops[name] = counter.total / BLOCK
    processor: dict[str, list[float]] = {name: [] for name in times}
    for turn in range(turns + 1):
        for name, (_, steps) in contenders.items():
            start = time.process_time()
            seconds = timed(partial(next, steps), classifier.device) / BLOCK
            if turn:
                times[name].append(seconds)
                processor[name].append((time.process_time() - start) / BLOCK)
    ratios = [plain / ours for ours, plain in zip(times["netinv"], times["baseline"], strict=True)]
    of_processor = [plain / ours for ours, plain in zip(processor["netinv"], processor["baseline"], strict=True)]
    return {
        "samples_per_second": {n: spread([STANDARD.batch_size / value for value in v]) for n, v in times.items()},
        "processor_ms_per_step": {n: spread([1000 * value for value in v]) for n, v in processor.items()},
        "ratio": spread(ratios),
        "ratio_of_processor_time": spread(of_processor),
        "gflop_per_step": {name: value / 1e9 for name, value in flops.items()},
        "gflops": {name: flops[name] / statistics.median(values) / 1e9 for name, values in times.items()},
        "turns": turns,
    }


def steps_part(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Any, Row]]:
    """Both variants at two sizes of images."""
    rates = machine_rates(device)
    yield (
        "machine",
        rates,
        (
            "the machine: GFLOP/s of a matrix product, of a convolution; GB/s of a copy",
            f"{rates['matrix_gflops']:.0f}, {rates['convolution_gflops']:.0f}; {rates['gigabytes_per_second']:.1f}",
            "",
            "",
        ),
    )
    for shape in ((1, 28, 28), (3, 32, 32)):
        classifier = fresh_classifier(shape, device)
        for variant in CONFIGS:
            name = f"{variant}, {shape[1]}x{shape[2]}x{shape[0]}"
            result = step_times(classifier, variant, arguments.turns)
            result["share_of_convolution_rate"] = result["gflops"]["netinv"] / rates["convolution_gflops"]
            ours, plain = (result["samples_per_second"][key] for key in ("netinv", "baseline"))
            yield (
                name,
                result,
                (
                    f"{name}: samples a second",
                    told(ours, 0),
                    told(plain, 0),
                    f"{told(result['ratio'])}, of processor time {told(result['ratio_of_processor_time'])}; "
                    f"{result['share_of_convolution_rate']:.0%} of the convolution rate",
                ),
            )


def train_several(seeds: list[int], variant: str, threads: int, steps: int, jointly: bool = False) -> None:
    """Generators of one classifier in this process, one after the other or as one program."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier = fresh_classifier((1, 28, 28), device)
    config = CONFIGS[variant].model_copy(update={"steps": steps, "log_every": steps})
    trainings = []
    for seed in seeds:
        torch.manual_seed(seed)
        generator = ConditionedGenerator(GeneratorConfig(), 10, (1, 28, 28)).to(device)
        trainings.append(InversionTraining(generator, classifier, config, seed))
    for training in [JointTraining(trainings)] if jointly else trainings:
        list(training)
    synchronize(device)


def together_part(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Any, Row]]:
    """Generators as one program and, on a CPU, on workers of one thread each as the pipeline has them, in turn."""
    workers = 1 if device.type == "cuda" else arguments.threads
    steps = 2 * BLOCK
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:

        def by_workers(seeds: list[int], variant: str) -> None:
            jobs = [pool.submit(train_several, seeds[i::workers], variant, 1, steps) for i in range(workers)]
            for job in jobs:
                job.result()

        for variant, size in itertools.product(CONFIGS, (1, 4, TOGETHER, 16, 64) if workers == 1 else (TOGETHER,)):
            seeds = list(range(size))
            contenders = {
                "in sequence": partial(train_several, seeds, variant, arguments.threads, steps),
                "as one program": partial(train_several, seeds, variant, arguments.threads, steps, jointly=True),
            }
            if workers > 1:
                contenders[f"on {workers} workers"] = partial(by_workers, seeds, variant)
            times: dict[str, list[float]] = {name: [] for name in contenders}
            for turn in range(arguments.turns // 2 + 1):
                for name, contender in contenders.items():
                    seconds = timed(contender, device)
                    if turn:  # the first one warms up
                        times[name].append(seconds)
            torch.set_num_threads(arguments.threads)
            samples = size * steps * STANDARD.batch_size
            rates = {name: spread([samples / seconds for seconds in values]) for name, values in times.items()}
            for name in list(contenders)[1:]:
                ratio = spread([one / other for one, other in zip(times["in sequence"], times[name], strict=True)])
                yield (
                    f"{variant}, {size} {name}",
                    {"at_once": rates[name], "in_sequence": rates["in sequence"], "ratio": ratio},
                    (
                        f"{variant}: {size} generators {name}, over in sequence; samples a second of all",
                        told(rates[name], 0),
                        told(rates["in sequence"], 0),
                        told(ratio),
                    ),
                )


PARTS = {
    "steps": steps_part,
    "together": together_part,
    "memory": memory_part,
    "sampling": sampling_part,
    "goals": goals_part,
    "classifier": classifier_part,
    "pipeline": pipeline_part,
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"), help="MNIST as the pipeline keeps it")
    parser.add_argument("--models", type=Path, default=Path("models/mnist"), help="its classifiers")
    parser.add_argument("--classifier", default="classifier", help="name of the one to be inverted")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3, help="of the times to a goal")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="folder of the JSON and the Markdown file"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    date = datetime.now(UTC).date().isoformat()
    packages = ("torch", "onnxruntime", "ray", "mlflow", "dvc")
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "threads": arguments.threads,
        "load_before": os.getloadavg()[0],
    }
    results: dict[str, Any] = {"date": date, "machine": machine, "versions": versions}
    lines = [
        f"# {date}: speed",
        "",
        f"{machine['gpu'] or machine['processor']}, {machine['cores']} cores, {arguments.threads} threads, load before "
        f"{machine['load_before']:.1f}; " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "Made by `python benchmarks/inversion.py`; medians and quartiles of turns, ratios within a turn.",
        "",
        "| what | netinv | baseline | ratio |",
        "|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for part in arguments.parts:
        start = time.perf_counter()
        results[part] = {}
        for name, figures, row in PARTS[part](arguments, device):
            results[part][name] = figures
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
        results[part]["part_s"] = time.perf_counter() - start
        write_text(arguments.out / "inversion.json", json.dumps(results, indent=2) + "\n")
        write_text(arguments.out / f"{date}-inversion.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
