"""Runs the default tests as several kinds of processor would compute, on several draws, and prints what came of it.

``python tests/portable.py [--only 2,5] [--first-seed 1] [pytest arguments]``. Settings are those of torch's own kernels
(``ATEN_CPU_CAPABILITY``), of oneDNN's (``ONEDNN_MAX_CPU_ISA``) and of the number of threads. All of their twelve
combinations are run, each on other draws, in three rounds of four that have every value at least once. In one run of
each round a processor is played that has bfloat16, where precision ``auto`` chooses it.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ({}, {"ATEN_CPU_CAPABILITY": "avx2"}, {"ATEN_CPU_CAPABILITY": "default"})
OTHERS = (
    {"NETINV_TEST_BFLOAT16": "1"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "2"},
    {"OMP_NUM_THREADS": "2"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},
)
SETTINGS = [KERNELS[(turn + i) % 3] | other for turn in range(3) for i, other in enumerate(OTHERS)]
"""Three rounds of four; threads are one unless said."""
NAMES = {name for setting in SETTINGS for name in setting} | {"NETINV_TEST_SEED"}


def run(setting: dict[str, str], seed: int, arguments: list[str]) -> tuple[bool, str, list[str]]:
    """Whether all passed, pytest's last line, and the failures by name."""
    others = {name: value for name, value in os.environ.items() if name not in NAMES}
    # Several processes of two threads on as many cores: whoever waits is not to keep a core busy.
    environment = others | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"} | setting
    environment["NETINV_TEST_SEED"] = str(seed)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rfE", "--tb=short", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    failures = [line for line in lines if re.match("(FAILED|ERROR) ", line)]
    if done.returncode:
        print(done.stdout, file=sys.stderr)
    return done.returncode == 0, lines[-1] if lines else "no output", failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="numbers of the settings to run, with commas between")
    parser.add_argument(
        "--first-seed", type=int, default=1, help="draws of the first setting; each later one has the next"
    )
    options, arguments = parser.parse_known_args()
    chosen = [int(part) for part in options.only.split(",")] if options.only else range(len(SETTINGS))
    failed = False
    print("| setting | seed | passed | pytest says | minutes |\n|---|---|---|---|---|", flush=True)
    for number in chosen:
        start, seed = time.monotonic(), options.first_seed + number
        passed, last, failures = run(SETTINGS[number], seed, arguments)
        name = " ".join(f"{key}={value}" for key, value in SETTINGS[number].items()) or "none set"
        minutes = (time.monotonic() - start) / 60
        print(f"| {number}: {name} | {seed} | {'yes' if passed else 'NO'} | {last} | {minutes:.1f} |", flush=True)
        for line in failures:
            print(f"| | | | {line.replace('|', '/')} | |", flush=True)
        failed |= not passed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
