"""Clears up after a local cluster, whatever ends its stage: ``python guard.py FOLDER``, a process that outlives it.

Standard input ends with the stage, SIGKILL included. Then what still runs of Ray's processes is killed, since its
agents live on for half a minute without their raylet, and the folder is removed. It imports nothing but psutil, and is
a script, so that it begins at once.
"""

import os
import select
import shutil
import sys
from contextlib import suppress

import psutil

NEEDED = ("gcs_server", "raylet")
"""Ray's processes that a local cluster cannot do without; all others but its workers are their children."""


def main(folder: str) -> None:
    """Watch until the stage's end, and clear up."""
    stage, family, pause = psutil.Process(os.getppid()), set[psutil.Process](), 0.5
    while not select.select([sys.stdin], [], [], pause)[0]:
        with suppress(psutil.NoSuchProcess):
            for child in stage.children():
                if child.name() in NEEDED:
                    family |= {child, *child.children(recursive=True)}
        pause = min(1.2 * pause, 60.0)  # most begin with the cluster
    for process in family:
        with suppress(psutil.NoSuchProcess):  # also where another process has its number by now
            process.kill()
    psutil.wait_procs(family, timeout=3)  # they write no more
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
