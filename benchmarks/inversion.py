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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import baseline
import torch
from measuring import Arithmetic, fresh_classifier, machine_rates, processor, spread, synchronize, timed, told
from torch import Tensor, nn

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    build_classifier,
    freeze,
    load_classifier,
    predict,
    train_classifier,
)
from netinv.data import channel_statistics, load_spec, load_split
from netinv.generators import ConditionedGenerator, GeneratorConfig, sample_condition
from netinv.inversion import InversionConfig, InversionTraining, JointTraining, invert

STANDARD = InversionConfig(steps=400, batch_size=64, log_every=5)
ROBUST = InversionConfig(
    steps=600,
    batch_size=64,
    sharpness=(10.0, 10.0),
    alpha=0.1,
    gamma=1.0,
    total_variation=0.3,
    pixel_statistics=1.0,
    shift=2,
    perturbation="pgd",
    epsilon=0.2,
    log_every=5,
)
CONFIGS = {"standard": STANDARD, "robust": ROBUST}
"""What both contenders implement, looked at often: of MNIST's presets the steps, batches and bounds, without the second
step of the attack, the distortions and the latent field, and with a sharpness of 10 in the robust variant."""
GOALS = {"standard": 0.99, "robust": 0.95}
"""Accuracy under the inverted classifier, and under the evaluator."""
BLOCK = 5
"""Steps between two turns, and between two looks at the clock."""
TOGETHER = 8
"""Generators at once."""

Row = tuple[str, ...]
"""Of the table: what, netinv, baseline, ratio."""


def trainings(
    classifier: Classifier, variant: str, seed: int, steps: int | None = None
) -> dict[str, tuple[nn.Module, Iterator[Any]]]:
    """Both contenders, each a generator and an iterator that trains it by ``BLOCK`` steps at a time."""
    config = CONFIGS[variant] if steps is None else CONFIGS[variant].model_copy(update={"steps": steps})
    torch.manual_seed(seed)
    ours = ConditionedGenerator(GeneratorConfig(), classifier.num_classes, classifier.image_shape)
    plain = baseline.Generator(classifier.num_classes, classifier.image_shape)
    ours.to(classifier.device), plain.to(classifier.device)

    def blocks() -> Iterator[int]:
        steps = baseline.invert(plain, classifier, config.steps, config.batch_size, variant == "robust")
        return (step for step in steps if step % BLOCK == 0)

    return {"netinv": (ours, invert(ours, classifier, config, seed)), "baseline": (plain, blocks())}


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


MEMORY = """
import re, sys, torch
sys.path.insert(0, sys.argv[1])
import inversion
from pipeline.generators import Job, train_generator
torch.set_num_threads(1)
classifier = inversion.fresh_classifier((1, 28, 28), torch.device("cpu"))
config = inversion.CONFIGS[sys.argv[2]].model_copy(update={"steps": 40, "log_every": 20})
events = list(train_generator(classifier, 20, Job(0, inversion.GeneratorConfig(), config), None))
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def memory_part(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Any, Row]]:
    """Of a fresh process that does what a worker of the pipeline does."""
    for variant in CONFIGS:
        command = [sys.executable, "-c", MEMORY, str(Path(__file__).parent), variant]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
        gib = int(done.stdout.split()[-1]) / 2**20
        yield variant, {"peak_gib": gib}, (f"{variant}, MNIST: peak memory of a process, GiB", f"{gib:.2f}", "", "")


def sampling_part(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Any, Row]]:
    """An exported generator on one thread of the CPU, against torch eager."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        script = Path(__file__).with_name("onnx_sampling.py")
        subprocess.run(
            [sys.executable, script, "--sizes", "28", "--out", out],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        result = json.loads(out.read_text())["sizes"][0]
    times = {(row["batch"], row["contender"]): row["cpu_ms_median"] for row in result["throughput"]}
    for batch in sorted({batch for batch, _ in times}):
        ours, plain = times[batch, "onnxruntime float32"], times[batch, "torch eager"]
        rates = [batch / value * 1000 for value in (ours, plain)]
        yield (
            f"batch {batch}",
            {"samples_per_second": rates[0], "torch_eager": rates[1]},
            (
                f"sampling by ONNX, batch {batch}, one thread: samples a second",
                f"{rates[0]:.0f}",
                f"{rates[1]:.0f} (torch eager)",
                f"{plain / ours:.2f}",
            ),
        )


@torch.no_grad()
def accuracy(generator: nn.Module, judge: Callable[[Tensor], Tensor], variant: str) -> float:
    """Share of 1,000 fresh images, in evaluation mode, that a judge reads as what they were drawn for."""
    device = next(generator.parameters()).device
    rng = torch.Generator(device).manual_seed(1)
    condition = sample_condition(1000, 10, rng, CONFIGS[variant].sharpness)
    latent = torch.randn(1000, 64, generator=rng, device=device)
    generator.eval()
    label = torch.cat(
        [
            judge(generator(*part)).argmax(dim=1)
            for part in zip(latent.split(100), condition.vector.split(100), strict=True)
        ]
    )
    generator.train()
    return float((label == condition.label).float().mean())


def times_to_goal(classifier: Classifier, judge: nn.Module, variant: str, seed: int) -> dict[str, Any]:
    """Seconds of training until the judge's accuracy reaches the goal, looks at it not counted; None if it never does.

    Both train in turn, a block of steps at a time. Each is looked at every 25 steps, and trained to the preset's end at
    most.
    """
    seconds = dict.fromkeys(("netinv", "baseline"), 0.0)
    reached: dict[str, float | None] = dict.fromkeys(seconds)
    best = dict.fromkeys(seconds, 0.0)
    contenders = trainings(classifier, variant, seed)
    for block in range(1, CONFIGS[variant].steps // BLOCK + 1):
        for name, (generator, steps) in contenders.items():
            if reached[name] is not None:
                continue
            seconds[name] += timed(partial(next, steps), classifier.device)
            if block % 5 == 0:
                best[name] = max(best[name], accuracy(generator, judge, variant))
                if best[name] >= GOALS[variant]:
                    reached[name] = seconds[name]
    return {"seed": seed, "reached_s": reached, "trained_s": seconds, "best_accuracy": best}


def goals_part(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Any, Row]]:
    """Both variants on MNIST. Where the obvious loop never arrives, the ratio is at least what is told."""
    classifier, evaluator = (
        load_classifier(arguments.models / name).to(device) for name in (arguments.classifier, "evaluator")
    )
    freeze(classifier), freeze(evaluator)
    for variant, judge, judged in (("standard", classifier, "inversion"), ("robust", evaluator, "evaluator")):
        runs = [times_to_goal(classifier, judge, variant, seed) for seed in range(arguments.repeats)]
        ratios = [
            run["trained_s"]["baseline"] / run["reached_s"]["netinv"] if run["reached_s"]["netinv"] else None
            for run in runs
        ]
        cells = [
            ", ".join(
                f"{run['reached_s'][name]:.1f}"
                if run["reached_s"][name]
                else f"not within {run['trained_s'][name]:.0f} (best {run['best_accuracy'][name]:.3f})"
                for run in runs
            )
            for name in ("netinv", "baseline")
        ]
        all_arrive = all(run["reached_s"]["baseline"] for run in runs)
        yield (
            variant,
            {"goal": GOALS[variant], "runs": runs, "ratios": ratios, "baseline_always_arrives": all_arrive},
            (
                f"{variant}, MNIST: seconds to {GOALS[variant]} {judged} accuracy, a seed each",
                *cells,
                ", ".join(
                    f"{'' if run['reached_s']['baseline'] else 'over '}{ratio:.2f}" if ratio else "-"
                    for run, ratio in zip(runs, ratios, strict=True)
                ),
            ),
        )


def classifier_part(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Any, Row]]:
    """Seconds until the pipeline's MNIST classifier reaches its goal on test images, judged after each epoch."""
    data = arguments.data
    spec, train, test = load_spec(data), load_split(data, "train"), load_split(data, "test")
    mean, std = channel_statistics(train.images)
    torch.manual_seed(0)
    config = ConvClassifierConfig(channels=(16, 32), batch_norm=False)
    classifier = build_classifier(config, spec.num_classes, spec.image_shape, mean, std).to(device)
    epochs = train_classifier(
        classifier, train, ClassifierTrainingConfig(epochs=4, batch_size=128, shift=1, epsilon=0.05), seed=0
    )
    seconds, history = 0.0, []
    for _ in range(4):
        seconds += timed(partial(next, epochs), device)
        logits, _ = predict(classifier.eval(), test.images)
        reached = float((logits.argmax(dim=1).cpu() == test.labels).float().mean())
        history.append({"seconds": seconds, "test_accuracy": reached})
    goal = next((record["seconds"] for record in history if record["test_accuracy"] >= 0.99), None)
    yield (
        "mnist",
        {"seconds_to_0.99": goal, "history": history},
        ("classifier, MNIST: seconds to 0.99 test accuracy", f"{goal:.1f}" if goal else "not reached", "", ""),
    )


def pipeline_part(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Any, Row]]:
    """From nothing to the report, standard variant."""
    import overhead  # needs what a machine without the pipeline lacks

    result = overhead.measure("mnist")
    yield (
        "mnist",
        result,
        (
            "pipeline, MNIST, standard: seconds of `dvc repro`, of the science in it",
            f"{result['wall_s']:.0f}, {result['science_s']:.0f}",
            "",
            f"overhead {result['overhead']:.1%}",
        ),
    )
    for name, seconds in result["science_by_function_s"].items():
        yield name, seconds, (f"of which {name}, seconds", f"{seconds:.1f}", "", "")


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
        "--out", type=Path, default=Path(__file__).parent, help="folder of the JSON and the Markdown file"
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
        (arguments.out / "inversion.json").write_text(json.dumps(results, indent=2) + "\n")
        (arguments.out / f"{date}-inversion.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
