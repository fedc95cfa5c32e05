"""Clears up after a local cluster, whatever ends its stage: ``python guard.py FOLDER``, a process that outlives it.

Standard input ends with the stage, SIGKILL included. Then what still runs of Ray's processes is killed, since its
agents live on for half a minute without their raylet, and the folder is removed. It imports nothing but psutil, and is
a script, so that it begins at once.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

ROUNDS = 20
"""How often it is looked at most, since what was starting when the stage ended may write a moment later."""


def main(folder: str) -> None:
    """Wait for the stage's end, and clear up."""
    stage = os.getppid()
    sys.stdin.read()
    for _ in range(ROUNDS):
        family = [process for process in of_cluster(folder) if process.pid not in (stage, os.getpid())]
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=3)
        shutil.rmtree(folder, ignore_errors=True)
        if not family and not Path(folder).exists():
            return
        time.sleep(0.2)


def of_cluster(folder: str) -> Iterator[psutil.Process]:
    """Ray's processes that were given a path in the folder, or have a file open there."""
    python = os.path.realpath(sys.executable)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.exe() == python or "/ray/" in process.exe():
                paths = [*process.cmdline(), *(file.path for file in process.open_files())]
                if any(folder in path for path in paths):
                    yield process


if __name__ == "__main__":
    main(*sys.argv[1:])
