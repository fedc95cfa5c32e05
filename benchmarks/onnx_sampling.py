"""Sampling from an exported generator against torch: throughput, start-up, memory and file size.

``python benchmarks/onnx_sampling.py`` prints a Markdown table and writes ``build/benchmarks/onnx_sampling.json``.

The contenders take turns in blocks of calls, one thread each, so that whatever else the machine does meets all of
them. Times are of the processor (``time.thread_time``), which other programs' turns do not enter; the ratio of wall
times stands beside them. The weights are random: they do not change the time.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from netinv.core import write_text
from netinv.export import compress, generator_models, rewritten, versions, write_model
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.sampling import Metadata, OnnxGenerator, draw

BATCHES = {1: (40, 25), 64: (20, 3), 1024: (7, 1)}
"""Turns of each contender, and calls in a turn, by batch size."""


class Draws(CalibrationDataReader):
    """Latents and conditions as calibration data of onnxruntime's static quantisation."""

    def __init__(self, num: int, metadata: Metadata) -> None:
        latent, condition = draw(num, **metadata.draws, seed=0)
        self.batches = iter([{"latent": latent, "condition": condition}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch."""
        return next(self.batches, None)


def export(folder: Path, generator: ConditionedGenerator) -> dict[str, Path]:
    """The forms to be timed, by name."""
    metadata = Metadata(
        kind="generator",
        dataset="benchmark",
        variant="standard",
        classes=tuple("0123456789"),
        image_shape=generator.image_shape,
        run_id="",
        licence="",
        versions=versions(),
        latent_dim=generator.config.latent_dim,
    )
    (plain,) = generator_models([generator])
    model = rewritten(plain)
    models = {"float32": model, "float16": compress(model, "float16"), "int8": compress(model, "int8")}
    models["float32 as traced"] = plain
    paths = {name: folder / f"{name}.onnx" for name in models}
    for name, path in paths.items():
        write_model(path, models[name], metadata)
    # What onnxruntime itself offers for int8, with integer arithmetic: measured here, not exported.
    paths["int8 arithmetic"] = folder / "static.onnx"
    quantize_static(
        paths["float32"],
        paths["int8 arithmetic"],
        Draws(200, metadata),
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    static = onnx.load(paths["int8 arithmetic"])
    write_model(paths["int8 arithmetic"], static, metadata)
    return paths


def in_turn(contenders: dict[str, Callable[[], Any]], turns: int, calls: int) -> dict[str, list[tuple[float, float]]]:
    """Processor and wall seconds for each call, by contender, for each turn."""
    for call in contenders.values():
        for _ in range(3):
            call()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, call in contenders.items():
            cpu, wall = time.thread_time(), time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append(((time.thread_time() - cpu) / calls, (time.perf_counter() - wall) / calls))
    return times


def throughput(generator: ConditionedGenerator, paths: dict[str, Path]) -> list[dict[str, Any]]:
    """Times of all contenders at all batch sizes."""
    compiled = torch.compile(generator)
    networks = {name: OnnxGenerator(path, num_threads=1) for name, path in paths.items()}
    rows = []
    for batch, (turns, calls) in BATCHES.items():
        latent, condition = draw(batch, **networks["float32"].metadata.draws, seed=0)
        tensors = torch.from_numpy(latent), torch.from_numpy(condition)
        contenders: dict[str, Callable[[], Any]] = {
            "torch eager": lambda tensors=tensors: generator(*tensors),
            "torch.compile": lambda tensors=tensors: compiled(*tensors),
        }
        for name, network in networks.items():
            contenders[f"onnxruntime {name}"] = lambda network=network, z=latent, p=condition: network(z, p)
        with torch.inference_mode():
            times = in_turn(contenders, turns, calls)
        base = times["onnxruntime float32"]
        for name, values in times.items():
            cpu = sorted(1000 * value[0] for value in values)
            rows.append(
                {
                    "batch": batch,
                    "contender": name,
                    "turns": turns,
                    "calls_per_turn": calls,
                    "cpu_ms_median": statistics.median(cpu),
                    "cpu_ms_quartiles": statistics.quantiles(cpu, n=4)[::2],
                    "ratio_to_float32_cpu": statistics.median(v[0] / b[0] for v, b in zip(values, base, strict=True)),
                    "ratio_to_float32_wall": statistics.median(v[1] / b[1] for v, b in zip(values, base, strict=True)),
                }
            )
    return rows


def command(path: Path, folder: Path, num: int, runs: int) -> dict[str, Any]:
    """Wall and processor seconds, and peak memory, of ``netinv sample`` from command to file."""
    code = (
        "import re, sys, time; from netinv.app.command import cli; cli.main(sys.argv[1:], standalone_mode=False);"
        "print(time.process_time(), re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    walls, cpus, memory = [], [], []
    for _ in range(runs):
        start = time.perf_counter()
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                code,
                "sample",
                path,
                "--num",
                str(num),
                "--threads",
                "1",
                "--out",
                folder / "out.npz",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        walls.append(time.perf_counter() - start)
        cpu, kibibytes = map(float, done.stdout.splitlines()[-1].split())
        cpus.append(cpu)
        memory.append(kibibytes / 1024)
    return {
        "num": num,
        "runs": runs,
        "wall_s_median": statistics.median(walls),
        "wall_s_min_max": [min(walls), max(walls)],
        "cpu_s_median": statistics.median(cpus),
        "peak_mib": max(memory),
    }


def measure(size: int) -> dict[str, Any]:
    """Everything for one image size."""
    generator = ConditionedGenerator(GeneratorConfig(), 10, (1, size, size)).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = export(folder, generator)
        return {
            "image_shape": generator.image_shape,
            "generator": generator.config.model_dump(),
            "load_before": os.getloadavg()[0],
            "bytes": {name: path.stat().st_size for name, path in paths.items()},
            "throughput": throughput(generator, paths),
            "command": [command(paths["float32"], folder, 64, 9), command(paths["float32"], folder, 10_000, 2)],
        }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 16], help="sides of the images")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/onnx_sampling.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cores": os.cpu_count(), "cpu": platform.processor() or platform.machine(), "threads": 1},
        "versions": {**versions(), "onnxruntime": onnxruntime.__version__},
        "sizes": [measure(size) for size in arguments.sizes],
    }
    write_text(arguments.out, json.dumps(results, indent=2) + "\n")
    for size in results["sizes"]:
        print(f"\n{size['image_shape']}, load {size['load_before']:.1f}\n")
        print("| batch | contender | CPU ms (quartiles) | CPU time : float32 | wall time : float32 |")
        print("|---|---|---|---|---|")
        for row in size["throughput"]:
            low, high = row["cpu_ms_quartiles"]
            print(
                f"| {row['batch']} | {row['contender']} | {row['cpu_ms_median']:.2f} ({low:.2f} to {high:.2f}) "
                f"| {row['ratio_to_float32_cpu']:.2f} | {row['ratio_to_float32_wall']:.2f} |"
            )
        print(json.dumps({key: size[key] for key in ("bytes", "command")}, indent=2))


if __name__ == "__main__":
    main()
