"""What survives when something dies, and what Ray costs: ``python benchmarks/chaos.py``, or ``make chaos``.

* workers: SIGKILL of a random process of the work at a random time, for generators on one worker each, and for one
  that two workers share, on one node and on two
* nodes: every process of a node that is at work is killed; another node is there, or joins later
* tree: SIGKILL of anything that ``dvc repro`` has started, then ``dvc repro`` again, with MLflow's records
* cost: a step of the stage ``invert``, with Ray and tracking, over one of the bare loop; and what a stage costs at once
* ensemble: four generators on two slots of one thread each, against one after the other on one thread

All on a real Ray on this machine, with digits. What was disturbed must end with the weights and the metrics of what was
not. It prints a Markdown table as it goes, writes it with all figures beside this file, and fails where a fault was not
survived.
"""

import argparse
import importlib.metadata
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from kills import nodes_part, tree_part, workers_part
from ray_cost import cost_part, ensemble_part
from ray_work import digits_classifier

from netinv.core import write_text

PARTS = {
    "workers": workers_part,
    "nodes": nodes_part,
    "tree": tree_part,
    "cost": cost_part,
    "ensemble": ensemble_part,
}


def main() -> None:
    """Break things, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--trials", type=int, default=20, help="kills, in each mode")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), help="folder of the JSON and the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    date = datetime.now(UTC).date().isoformat()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "ray", "mlflow", "dvc"))
    lines = [
        f"# {date}: faults, and what Ray costs",
        "",
        f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}; {versions}. By `make chaos`; medians, ranges.",
        "",
        "| what | target | came out | met |",
        "|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    classifier = digits_classifier()
    results: dict[str, Any] = {"date": date}
    met = True
    for part in arguments.only:
        results[part] = {"load": os.getloadavg()[0]}
        for name, figures, (what, target, came, enough) in PARTS[part](classifier, arguments.trials):
            results[part][name] = figures
            lines.append(f"| {what} | {target} | {came} | {'yes' if enough else '**no**'} |")
            print(lines[-1], flush=True)
            met &= enough
            write_text(arguments.out / "chaos.json", json.dumps(results, indent=1) + "\n")
            write_text(arguments.out / f"{date}-ray.md", "\n".join(lines) + "\n")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
