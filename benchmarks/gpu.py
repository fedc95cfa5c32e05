"""What the library does on a GPU: one command of at most eight minutes, on a machine with torch and no registry.

``python benchmarks/gpu.py --mirror FOLDER`` (torchvision's layout, for MNIST) measures, in this order:

* correctness: a step in every precision against float64 on the CPU, one program against each alone, a group of one
* shares: of the chip's measured matrix rate and copy bandwidth; operations and kernels of a step
* rates: samples a second of 1, 4, 16 and 64 generators, both variants, three sizes of images, and of the plain loop
* goals: MNIST; seconds until a classifier is trained, and until it and a stranger read what was asked for
* ray: four generators of a stage, with a GPU each, a quarter each, and by default
* fast: torch's default, which is tf32 in convolutions alone, against no tf32, tf32 in products too, bfloat16, and
  compilation with CUDA graphs: speed and what it comes to

Each part is a process of its own with a time budget. One that fails, or whose time is up, is written down as such, with
the rows that it came to and the end of what it said, and the others go on. ``--small`` is the same on a few images, to
try the script out. It writes ``gpu.json`` and a dated Markdown table to ``build/benchmarks``, or to ``--out``.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 480.0
"""Of all parts together."""
KEPT = 4000
"""Characters of what a part that did not end well wrote to standard error, the last ones, in ``gpu.json``."""


def supervise(command: list[str], lines: Path, budget: float) -> dict[str, Any]:
    """Run a part that writes rows as lines of JSON; says how it ended, after at most so many seconds."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            status = child.wait(budget)
            ended = "whole" if status == 0 else f"failed: status {status}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after its {budget:.0f} s"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        errors.seek(0)
        said = errors.read().strip()
    if said and ended.startswith("failed"):
        ended = f"failed: {said.splitlines()[-1].strip()}"
    rows = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    stderr = "" if ended == "whole" else said[-KEPT:]
    return {"ended": ended, "seconds": time.monotonic() - start, "rows": rows, "stderr": stderr}


def run_part(name: str, lines: Path, small: bool, mirror: Path | None, budget: float) -> None:
    """Do one part in this process, and write its rows as they come."""
    from gpu_parts import PARTS, Options

    part, _ = PARTS[name]
    with lines.open("a", buffering=1) as file:
        for row in part(Options(small, mirror, time.monotonic() + 0.9 * budget)):
            file.write(json.dumps(row._asdict()) + "\n")


def machine() -> dict[str, Any]:
    """Where it runs."""
    import torch
    from measuring import processor

    gpu = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "gpu_memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if gpu else None,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
    }


def table(results: dict[str, Any]) -> str:
    """All of it as Markdown."""
    there = results["machine"]
    card = there["gpu"] or "no GPU: what the script gives on a CPU, of no use for comparisons"
    lines = [
        f"# {results['date']}: {there['gpu'] or 'the GPU script on a CPU'}",
        "",
        f"{card}; {there['processor']}, {there['cores']} cores, {there['threads']} threads; torch {there['torch']}, "
        f"CUDA {there['cuda']}, Python {there['python']}. Made by `python {results['command']}`.",
    ]
    for name, part in results["parts"].items():
        lines += ["", f"## {name}", f"{part['seconds']:.0f} s; {part['ended']}."]
        if part["rows"]:
            lines += ["", "| what | measured | |", "|---|---|---|"]
        lines += [f"| {row['name']} | {row['value']} | {row['beside']} |" for row in part["rows"]]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Do all parts, or in a child the one that is named."""
    from gpu_parts import PARTS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--mirror", type=Path, help="MNIST's files in torchvision's layout")
    parser.add_argument("--small", action="store_true", help="a few images of everything, the digits in place of MNIST")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all parts together")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="folder of the JSON and the Markdown file"
    )
    parser.add_argument("--child", nargs=2, metavar=("LINES", "SECONDS"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        run_part(given.parts[0], Path(given.child[0]), given.small, given.mirror, float(given.child[1]))
        return
    sys.path.insert(0, str(ROOT))
    from netinv.core import write_text

    date = datetime.now(UTC).date().isoformat()
    flags = [*(["--small"] if given.small else []), *(["--mirror", str(given.mirror)] if given.mirror else [])]
    told = " ".join(["benchmarks/gpu.py", *(["--small"] if given.small else [])])
    results: dict[str, Any] = {"date": date, "command": told, "machine": machine(), "parts": {}}
    end = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory() as folder:
        for name in given.parts:
            lines, budget = Path(folder) / name, min(PARTS[name][1], end - time.monotonic())
            if budget < 5:
                results["parts"][name] = {"ended": "not begun, for want of time", "seconds": 0.0, "rows": []}
            else:
                command = [sys.executable, __file__, "--parts", name, "--child", str(lines), str(budget), *flags]
                results["parts"][name] = supervise(command, lines, budget)
            print(f"{name}: {results['parts'][name]['ended']}", flush=True)
            write_text(given.out / "gpu.json", json.dumps(results, indent=2) + "\n")
            write_text(given.out / f"{date}-gpu.md", table(results))
    print(table(results))


if __name__ == "__main__":
    main()
