"""How many small faults the tests notice: mutmut puts one after another into a package and runs the package's tests.

    make mutants                        # all packages: hours
    make mutants PACKAGES=sampling      # one of them: minutes
    make mutants PACKAGES='--sample 400 evaluation'    # so many of it, drawn at random, the same at every call

Each package has a folder of its own, ``build/mutants/<package>``, which keeps what was found. Another call tries what
is new, what changed, and what survived; ``mutmut show NAME`` in that folder shows a fault. ``docs/mutants.md`` has the
figures and the reasons.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("sampling", "evaluation", "perturbations", "inversion")
SLOW = {
    "evaluation": ("test_evaluation.py", "test_samples.py", "test_broken_input.py", "test_objectives.py"),
    "sampling": ("test_sampling.py",),
    "inversion": ("test_parallel.py",),
}
"""Tests that train or export networks, or start processes: with seconds for each mutant they would take days. What they
alone would notice counts as survived."""
FATES = {1: "killed", 3: "killed", 37: "refused by mypy", 0: "survived", 5: "no test", 33: "no test", None: "not tried"}
"""What exit codes in mutmut's files mean; all others are a test that hangs or a process that dies."""


def prepare(package: str) -> Path:
    """A copy of the sources and tests, with mutmut's settings for the package; earlier results stay."""
    folder = ROOT / "build" / "mutants" / package
    for part in ("netinv", "tests", "mutants/tests"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for part in ("netinv", "tests"):
        shutil.copytree(ROOT / part, folder / part)  # with their times, by which mutmut knows what changed
    own = {"only_mutate": [f"netinv/{package}/*"], "pytest_add_cli_args_test_selection": [f"tests/{package}"]}
    own["pytest_add_cli_args_test_selection"] += [f"--ignore=tests/{package}/{name}" for name in SLOW.get(package, ())]
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in own.items())
    settings = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(settings.replace("[tool.mutmut]\n", f"[tool.mutmut]\n{lines}\n"))
    # Which tests reach which function is measured anew.
    (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    for path in (folder / "mutants").rglob("*.meta"):
        record = json.loads(path.read_text())
        codes = record["exit_code_by_key"]
        record["exit_code_by_key"] = {
            name: code if FATES.get(code) == "killed" else None for name, code in codes.items()
        }
        path.write_text(json.dumps(record, indent=4))
    return folder


def fates(folder: Path) -> dict[str, str]:
    """What became of each mutant."""
    found: dict[str, str] = {}
    for path in sorted((folder / "mutants").rglob("*.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        found |= {name: FATES.get(code, "hangs or dies") for name, code in codes.items()}
    return found


def try_out(package: str, sample: int | None) -> dict[str, str]:
    """Try a package's mutants, one process for each core, and tell what became of each."""
    folder = prepare(package)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "mutmut", "run"]
    if sample is None:
        subprocess.run(command, cwd=folder, env=environment, check=True)
        return fates(folder)
    # A name that there is not: mutmut writes all mutants down, and ends.
    subprocess.run([*command, "none"], cwd=folder, env=environment, check=False, capture_output=True)
    chosen = set(random.Random(0).sample(sorted(fates(folder)), sample))
    subprocess.run([*command, *sorted(chosen)], cwd=folder, env=environment, check=True)
    return {name: fate for name, fate in fates(folder).items() if name in chosen}


def main() -> None:
    """Try mutants, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", default=list(PACKAGES))
    parser.add_argument("--sample", type=int, help="so many of each package, at random")
    arguments = parser.parse_args()
    for package in arguments.packages:
        found = try_out(package, arguments.sample)
        for name, fate in found.items():
            if fate not in ("killed", "refused by mypy", "hangs or dies"):
                print(f"{fate}: {name}")
        counts = Counter(found.values())
        print(f"{package}: {len(found)} mutants, " + ", ".join(f"{num} {fate}" for fate, num in counts.most_common()))


if __name__ == "__main__":
    main()
