"""What is measured of processes of their own, parts of ``inversion.py``: memory, sampling, the pipeline."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from inversion_common import CONFIGS, Row

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
